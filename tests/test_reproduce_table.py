"""The script that makes Table 2 anew, at toy size on made images: it goes on where it was stopped; what it writes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from layerwise.errors import UserError
from layerwise.training.checkpoint import Checkpoint
from probes.csvfile import read_csv
from probes.results.intervals import wilson_interval
from tests.benchmarks import cifar10_folder, reproduce

ROOT = Path(__file__).resolve().parent.parent
K3 = "cifar10-k3"
BLOCKS = {K3: 4, "cifar10-k2": 4, "cifar10-k1": 5, "cifar10-k3-fast": 4, "cifar10-best": 3}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of ten classes, 21 images of 32x32 pixels of each in train, 4 in test: a colour under noise."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name, colour in zip(cifar10_folder.CLASSES, rng.integers(0, 256, (10, 3)), strict=True):
        for split, count in (("train", 21), ("test", 4)):
            (folder := root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = (0.5 * colour + 0.5 * rng.integers(0, 256, (32, 32, 3))).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i:05}.png")
    return root


def call(images: Path, out: Path, *more: str) -> int:
    return reproduce.main(["--toy", "--data-dir", str(images), "--out", str(out), *more])


def kept(out: Path) -> dict[str, Any]:
    return json.loads(Path(f"{out}.json").read_text())


@pytest.fixture(scope="module")
def first(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tables of a call whose time is over after the first network."""
    out = tmp_path_factory.mktemp("first") / "table2"
    assert call(images, out, "--budget", "0") == 0
    return out


@pytest.fixture
def came_back(first: Path, tmp_path: Path) -> Path:
    """Return a copy of those tables without the run files, as they come back from another machine."""
    for ending in ("json", "csv", "md"):
        shutil.copy(f"{first}.{ending}", tmp_path)
    return tmp_path / "table2"


def test_a_call_without_time_ends_after_its_first_network(first: Path) -> None:
    assert [facts["recipe"] for facts in kept(first)["networks"]] == [K3]
    text = Path(f"{first}.md").read_text()
    assert "| cifar10-k2 | 90.4 (90.7) | not yet run | | | |" in text
    assert "| cifar10-k3, on 200 images | 91.7 (92.8) | " in text


def test_given_again_it_goes_on_to_the_end(came_back: Path, images: Path) -> None:
    before = kept(came_back)
    assert call(images, came_back) == 0
    after = kept(came_back)
    assert [facts["recipe"] for facts in after["networks"]] == list(BLOCKS)
    assert after["networks"][0] == before["networks"][0]  # not trained again, though its run file is gone
    assert not (came_back.parent / "table2-runs" / f"{K3}.h5").exists()
    assert all(facts["finished"] and facts["operations"] > 0 for facts in after["networks"])
    table = read_csv(Path(f"{came_back}.csv"), {})
    pd.testing.assert_frame_equal(table, pd.DataFrame(after["rows"]), check_dtype=False)
    check_rows(table)
    text = Path(f"{came_back}.md").read_text()
    assert "not yet run" not in text
    assert "| linear probe, % | depth 0 | depth 1 | depth 2 | depth 3 | depth 4 | depth 5 |" in text


def check_rows(table: pd.DataFrame) -> None:
    """Check that each depth has its rows, that intervals are Wilson's, and where the paper's numbers stand."""
    for name, depth in BLOCKS.items():
        depths = table[table["recipe"] == name].groupby("probe")["depth"].apply(list)
        first = 2 if name == "cifar10-best" else 1  # whose first block is fixed
        assert depths["linear"] == list(range(depth + 1))
        for probe in ("auxiliary", "ensemble", "ensemble-softmax"):
            assert depths[probe] == list(range(first, depth + 1))
    for row in table.itertuples():
        assert (row.ci_low, row.ci_high) == pytest.approx(wilson_interval(row.accuracy, 40))
    assert set(table["n_train"]) == {200} and set(table["n_test"]) == {40}
    papers = table.dropna(subset=["paper"])[["recipe", "probe", "depth", "paper"]].to_numpy().tolist()
    assert papers == [
        [K3, "auxiliary", 4, 0.917], [K3, "ensemble", 4, 0.928],
        ["cifar10-k2", "auxiliary", 4, 0.904], ["cifar10-k2", "ensemble", 4, 0.907],
        ["cifar10-k1", "auxiliary", 5, 0.883], ["cifar10-k1", "ensemble", 5, 0.884],
    ]  # fmt: skip


def test_a_training_that_was_stopped_goes_on_from_its_state(
    images: Path, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save = Checkpoint.save

    def stop_after(self: Checkpoint, *words: Any) -> None:
        save(self, *words)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Checkpoint, "save", stop_after)
        call(images, tmp_path / "table2")
    assert call(images, tmp_path / "table2", "--budget", "0") == 0
    assert "epochs of stage 1 are done" in capsys.readouterr().err
    accuracies = [[row["accuracy"] for row in kept(out)["rows"]] for out in (first, tmp_path / "table2")]
    assert accuracies[0] == accuracies[1]


def test_a_network_that_was_stopped_before_its_linear_probes_is_not_trained_again(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = reproduce.probes.fit

    def stop_at_linear(run: Any, probe: Any, **more: Any) -> pd.DataFrame:
        if probe == "linear":
            raise KeyboardInterrupt
        return fit(run, probe, **more)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(reproduce.probes, "fit", stop_at_linear)
        call(images, tmp_path / "table2")
    (facts,) = kept(tmp_path / "table2")["networks"]
    assert not facts["finished"]
    assert {row["probe"] for row in kept(tmp_path / "table2")["rows"]} == set(reproduce.OWN_CLASSIFIERS)
    assert "| cifar10-k3, on 200 images | 91.7 (92.8) | " in (tmp_path / "table2.md").read_text()
    assert call(images, tmp_path / "table2", "--budget", "0") == 0
    (again,) = kept(tmp_path / "table2")["networks"]
    assert again["finished"] and again["run_id"] == facts["run_id"]
    rows = kept(tmp_path / "table2")["rows"]
    assert len(rows) == len({(row["probe"], row["depth"]) for row in rows}) == 4 * 3 + 5


def test_a_network_that_fails_costs_no_other(
    images: Path, came_back: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*words: Any, **more: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(reproduce, "train_run", fail)
    assert call(images, came_back) == 1
    assert "cifar10-k2, cifar10-k1, cifar10-k3-fast, cifar10-best failed" in capsys.readouterr().out
    assert [facts["recipe"] for facts in kept(came_back)["networks"]] == [K3]


def test_time_is_expected_from_the_operations_and_rates_of_this_device(images: Path, tmp_path: Path) -> None:
    table = reproduce.Table(images, tmp_path / "table2", 440, toy=True)
    assert table.expected(10**15) == 0
    ran = {"device": table.device_name, "finished": True}
    table.networks = {
        "a": ran | {"operations": 2 * 10**15, "training_seconds": 15, "rest_seconds": 20},
        "b": ran | {"operations": 10**15, "training_seconds": 15, "rest_seconds": 30},
        "c": ran | {"operations": 10**15, "training_seconds": 1, "rest_seconds": 90, "device": "another"},
    }
    assert table.expected(10**15) == pytest.approx(1.1 * 10 + 30)


def test_tables_of_another_size_are_refused(images: Path, first: Path) -> None:
    with pytest.raises(UserError, match="table2.json is of toy size and this call of full size. Give another name by"):
        reproduce.Table(images, first, 440, toy=False)


def test_a_run_file_of_another_configuration_is_refused(
    images: Path, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(f"{first}-runs", tmp_path / "table2-runs")
    monkeypatch.setitem(reproduce.TOY, "training.epochs", 2)
    assert call(images, tmp_path / "table2", "--budget", "0") == 1
    assert "cifar10-k3.h5 was trained by another configuration. Move it away" in capsys.readouterr().err


def make_archive(path: Path, images: Path, folders: list[str]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for folder in folders:
            tar.add(images / folder, folder)
    return path


def test_the_part_that_is_missing_is_named(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = tuple({place: 21 if place.startswith("train") else 4 for place in part} for part in cifar10_folder.PARTS)
    monkeypatch.setattr(cifar10_folder, "PARTS", small)
    parts = [make_archive(tmp_path / f"{i}.tar.gz", images, list(part)) for i, part in enumerate(small, start=1)]
    with pytest.raises(UserError, match=r"holds 0 of .* part 1 of 2 \(train/airplane and 5 more\) and part 2 of 2 \("):
        cifar10_folder.require_whole(tmp_path / "data")
    cifar10_folder.unpack(parts[:1], tmp_path / "data")
    with pytest.raises(UserError, match=r"0 test images .* missing is part 2 of 2 \(train/frog and 13 more\). Give"):
        cifar10_folder.require_whole(tmp_path / "data")
    cifar10_folder.unpack(parts[1:], tmp_path / "data")
    cifar10_folder.require_whole(tmp_path / "data")


def test_what_is_not_whole_is_refused_in_one_line(warm: list[str], images: Path, tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "1.tar.gz", images, ["train/airplane"])
    words = ["--data-dir", str(tmp_path / "data"), "--out", str(tmp_path / "table2"), "--archives", str(archive)]
    command = [*warm, "tests/benchmarks/reproduce.py", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {tmp_path / 'data'} holds 21 of 50,000 training and 0 of 10,000 test images")
    assert done.stderr.endswith("Give its archive by --archives; nothing was trained.\n")
    assert len(list((tmp_path / "data" / "train" / "airplane").iterdir())) == 21
    assert not (tmp_path / "table2.json").exists()


def test_archives_that_are_damaged_or_write_elsewhere_are_refused(images: Path, tmp_path: Path) -> None:
    whole = make_archive(tmp_path / "whole.tar.gz", images, ["train/airplane"])
    (tmp_path / "half.tar.gz").write_bytes(whole.read_bytes()[:2000])
    (tmp_path / "none.tar.gz").write_text("no archive")
    with tarfile.open(tmp_path / "outside.tar.gz", "w:gz") as tar:
        tar.add(images / "train" / "airplane" / "00000.png", "../outside.png")
    for name in ("half", "none", "outside", "absent"):
        with pytest.raises(UserError, match=rf"{name}.tar.gz cannot be unpacked into .* Give a whole part of CIFAR-10"):
            cifar10_folder.unpack([tmp_path / f"{name}.tar.gz"], tmp_path / "data")
    assert not (tmp_path / "outside.png").exists()


def test_a_table_of_the_whole_split_shows_accuracy_and_ensemble_beside_the_papers() -> None:
    about = {"recipe": K3, "n_train": 50_000, "training_seconds": 125.9, "device": "NVIDIA H200", "precision": "bf16"}
    found = {"auxiliary": (0.9172, 0.9116, 0.9224), "ensemble": (0.9281, 0.9229, 0.933), "linear": (0.9, 0.894, 0.9057)}
    rows = [
        about | {"depth": 4, "probe": probe, "accuracy": value, "ci_low": low, "ci_high": high}
        for probe, (value, low, high) in found.items()
    ]
    lines = list(reproduce.markdown(rows))
    assert lines[2] == (
        "| cifar10-k3 | 91.7 (92.8) | 91.72 (91.16 to 92.24) | 92.81 (92.29 to 93.30) | 126 s | NVIDIA H200, bf16 |"
    )
    assert lines[-1] == "| cifar10-k3 |  |  |  |  | 90.00 (89.40 to 90.57) |"


def test_the_table_of_the_results_page_is_the_one_that_the_script_makes() -> None:
    assert "\n".join(reproduce.markdown([])) in (ROOT / "docs" / "results.md").read_text()
