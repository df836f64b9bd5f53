"""Replacement: only the last problem is solved again, and the run is the one that training from scratch gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from conftest import make_run, small_config

from layerwise.commandline import call
from layerwise.commands.train import train
from layerwise.datasets import load_dataset
from layerwise.errors import UserError
from layerwise.runfile import RunFile
from layerwise.runfile.describe import describe_run
from layerwise.runfile.place import Place
from layerwise.runfile.writer import create_run
from layerwise.settings import set_fields
from layerwise.training import checkpoint as state
from layerwise.training import loop as training
from layerwise.training import replacement
from layerwise.training.replacement import describe_replacement, replaced, take_over
from layerwise.training.run import train_run
from layerwise.training.scoring import DepthScores

FIELDS = {"network.depth": 3, "network.k": 3, "network.downsample": (3,), "training.epochs": 2}
PRUNED = FIELDS | {"network.prune_to": 3, "training.finetune_epochs": 1}
KINDS = {"plain": FIELDS, "pruned": PRUNED, "one block": FIELDS | {"network.depth": 1, "network.downsample": ()}}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    return {kind: make_run(folder / f"{kind}.h5", **fields) for kind, fields in KINDS.items()}


def digest(path: Path) -> str:
    with RunFile(path) as run:
        list(run.verify())
        return run.content_digest


def replace_auxiliary(source: Path, out: Path, width: int = 4) -> list[DepthScores]:
    place = Place(out=out, device=torch.device("cpu"), max_size=10**9)
    taken = take_over(source, None)
    return train_run(replaced(taken.config, width, source), place, taken)


def run_train(*words: object) -> int:
    return call(train, "layerwise-train", [str(word) for word in words])


@pytest.mark.parametrize("kind", KINDS)
def test_it_has_the_content_of_a_training_from_scratch_with_that_width(
    kind: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    replace_auxiliary(sources[kind], tmp_path / "replaced.h5")
    scratch = make_run(tmp_path / "scratch.h5", **KINDS[kind] | {"network.last_aux_width": 4})
    assert digest(tmp_path / "replaced.h5") == digest(scratch)
    with RunFile(tmp_path / "replaced.h5") as run, RunFile(sources[kind]) as source:
        assert run.provenance["source_run_id"] == source.run_id
        before, after = source.epoch_seconds(), run.epoch_seconds()
        assert before is not None
        assert after is not None
        rows = len(before) // len(source.depths[1:]) * (len(source.depths) - 2)
        assert np.array_equal(after[:rows], before[:rows])


def test_no_step_is_spent_on_the_blocks_below(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []
    start = training.Report.start

    def noted(self: Any, stage: str, *words: Any, **named: Any) -> None:
        trained.append(stage)
        start(self, stage, *words, **named)

    monkeypatch.setattr(training.Report, "start", noted)
    replace_auxiliary(sources["pruned"], tmp_path / "run.h5")
    assert trained == ["block 3", "fine-tuning of auxiliary 3"]


@pytest.mark.parametrize("kind", ["plain", "pruned"])
def test_killed_it_goes_on_and_ends_the_same(
    kind: str, sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    monkeypatch.setattr(state, "SAVE_EVERY", 0)
    save = state.Checkpoint.save

    def saved(self: state.Checkpoint, *words: Any) -> None:
        save(self, *words)
        raise Killed

    replace_auxiliary(sources[kind], tmp_path / "whole.h5")
    with monkeypatch.context() as patch:
        patch.setattr(state.Checkpoint, "save", saved)
        for _ in range(2):  # after each of two epochs
            with pytest.raises(Killed):
                replace_auxiliary(sources[kind], tmp_path / "run.h5")
    replace_auxiliary(sources[kind], tmp_path / "run.h5")
    assert digest(tmp_path / "run.h5") == digest(tmp_path / "whole.h5")


def test_without_images_in_the_file_they_are_loaded_and_must_be_the_same(
    tmp_path: Path, sources: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = make_run(tmp_path / "bare.h5", max_size=500_000, **FIELDS)
    with RunFile(bare) as run:
        assert run.images("train") is None
    replace_auxiliary(bare, tmp_path / "replaced.h5")
    replace_auxiliary(sources["plain"], tmp_path / "other.h5")
    with RunFile(tmp_path / "replaced.h5") as a, RunFile(tmp_path / "other.h5") as b:
        assert np.array_equal(a.outputs(3, "test"), b.outputs(3, "test"))  # type: ignore[arg-type]
    fewer = load_dataset("digits", holdout=0.1, subset=500)
    monkeypatch.setattr(replacement, "load_configured", lambda *words, **named: fewer)
    with pytest.raises(
        UserError,
        match=r"bare.h5 keeps no images, and those found for digits are not the ones it was trained on "
        r"\(train, validation differ\). Give the folder that was used by --data-dir",
    ):
        take_over(bare, None)


def test_weights_or_a_configuration_that_are_not_there_are_named(sources: dict[str, Path], tmp_path: Path) -> None:
    with RunFile(sources["plain"]) as run:
        text, about = run.config.to_json(), run.dataset  # type: ignore[union-attr]
    for name, attributes, message in (
        ("foreign", {"extraction": "{}"}, "has no configuration: it was not trained by layerwise-train"),
        ("hollow", {"config": text}, "lacks weights of blocks or auxiliaries; take the whole file"),
    ):
        with create_run(tmp_path / f"{name}.h5", force=False) as writer:
            writer.attributes("/", attributes | {"dataset": str(about).replace("'", '"')})
            writer.attributes("provenance", {"run_id": "0"})
        with pytest.raises(UserError, match=f"{name}.h5 {message}"):
            take_over(tmp_path / f"{name}.h5", None)


def test_the_table_sets_both_beside_each_other(sources: dict[str, Path], tmp_path: Path) -> None:
    scores = replace_auxiliary(sources["plain"], tmp_path / "run.h5")
    taken = take_over(sources["plain"], None)
    config = replaced(taken.config, 4, sources["plain"])
    lines = list(describe_replacement(taken, config, scores))
    assert all(len(line) <= 80 for line in lines)
    for line, path, width in zip(lines[1:], (sources["plain"], tmp_path / "run.h5"), (10, 4), strict=True):
        with RunFile(path) as run, h5py.File(path) as file:
            found = run.scores(3)
            told = [found[f"{name}_accuracy"] for name in ("validation", "test", "ensemble_logits_test")]

            def size(*groups: str, file: h5py.File = file) -> int:
                names = ("weight", "bias")
                sizes: list[int] = []
                for group in groups:
                    file[group].visititems(lambda n, d: sizes.append(d.size) if n.endswith(names) else None)
                return sum(sizes)

            auxiliary = size("auxiliaries/03")
            whole = auxiliary + size("blocks")
        assert line.split()[1:] == [str(width), *(f"{v:.2%}" for v in told), f"{auxiliary:,}", f"{whole:,}"]


def test_inspection_names_the_width_of_the_last_auxiliary_where_it_is_another(
    sources: dict[str, Path], tmp_path: Path
) -> None:
    replace_auxiliary(sources["plain"], tmp_path / "run.h5")
    found = []
    for path in (sources["plain"], tmp_path / "run.h5"):
        with RunFile(path) as run:
            found += [line for line in describe_run(run) if line.startswith("network")]
    assert found == [f"network         J = 3, M = 6, k = 3, M~ = 5, {last}BatchNorm on" for last in ("", "M_f = 4, ")]


def test_a_run_of_one_block_without_a_fold_has_dashes_in_its_table(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a.h5", **KINDS["one block"] | {"data.holdout": 0.0})
    scores = replace_auxiliary(path, tmp_path / "b.h5")
    taken = take_over(path, None)
    original, changed = list(describe_replacement(taken, replaced(taken.config, 4, path), scores))[1:]
    assert original.split()[2] == changed.split()[2] == original.split()[4] == "-"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--from", "run.h5"], 2, "--from RUN.H5 and --replace-auxiliary WIDTH belong together; give both"),
        (["--replace-auxiliary", "4"], 2, "--from RUN.H5 and --replace-auxiliary WIDTH belong together"),
        (["digits", "--from", "run.h5", "--replace-auxiliary", "4"], 2, "--from takes the configuration of run.h5, in"),
        (["--from", "run.h5", "--replace-auxiliary", "4", "--width", "8"], 2, "so --width cannot stand beside it"),
        (["--from", "run.h5", "--replace-auxiliary", "4", "--aux-width", "8"], 2, "so --aux-width cannot stand beside"),
        (["--from", "run.h5", "--replace-auxiliary", "4", "--set", "seed=1"], 2, "so --set seed=1 cannot stand beside"),
        (["--from", "run.h5", "--replace-auxiliary", "4", "--dry-run"], 2, "--dry-run forecasts a whole training"),
        (["--from", "run.h5", "--replace-auxiliary", "4", "--out", "run.h5"], 2, "--out is 'run.h5', which is the run"),
        (["--from", "run.h5", "--replace-auxiliary", "0"], 2, "--replace-auxiliary is 0, but must be a number of chan"),
        (["--from", "run.h5", "--replace-auxiliary", "10"], 2, "the last auxiliary of run.h5 is 10 wide already; give"),
        (["--from", "no.h5", "--replace-auxiliary", "4"], 1, "no.h5 does not exist; expected a run file"),
        (
            ["--from", "k1.h5", "--replace-auxiliary", "4"],
            2,
            "k1.h5 was trained at k = 1, whose auxiliaries are linear",
        ),
        (["--from", "e.h5", "--replace-auxiliary", "4"], 2, "e.h5 was trained in mode end-to-end, but --replace-auxil"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str],
    code: int,
    message: str,
    sources: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.h5").symlink_to(sources["plain"])
    if words[1] == "k1.h5":
        make_run(tmp_path / "k1.h5", **{"network.k": 1, "network.depth": 1, "training.epochs": 1})
    if words[1] == "e.h5":
        make_run(tmp_path / "e.h5", mode="end-to-end", **{"network.depth": 1, "training.epochs": 1})
    before = sorted(tmp_path.iterdir())
    capsys.readouterr()
    assert run_train(*(words if "--out" in words else [*words, "--out", "new.h5"]), "--quiet") == code
    err = capsys.readouterr().err.strip()
    assert err.startswith("layerwise-train: ")
    assert message in err
    assert "\n" not in err
    assert sorted(tmp_path.iterdir()) == before


def test_on_real_images_the_command_tells_what_the_smaller_auxiliary_costs(
    tmp_path: Path, some_cifar10: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["cifar10-small", "--dataset", "imagefolder", "--data-dir", some_cifar10, "--subset", "0", "--width", "8"]
    small = ["--aux-width", "8", "--depth", "3", "--epochs", "1", "--device", "cpu", "--quiet"]
    first, second = tmp_path / "first.h5", tmp_path / "second.h5"
    assert run_train(*words, *small, "--out", first) == 0
    capsys.readouterr()
    assert (
        run_train("--from", first, "--replace-auxiliary", 4, "--store", "maps", "--device", "cpu", "--out", second) == 0
    )
    out, err = capsys.readouterr()
    assert "images, labels and splits are those that" in err
    names = [line.split()[:2] for line in out.splitlines() if line.startswith(("original", "replaced"))]
    assert names == [["original", "16"], ["replaced", "4"]]
    with RunFile(second) as run:
        assert run.config == set_fields(take_over(first, None).config, {"network.last_aux_width": 4, "store": "maps"})
        assert run.maps(3, "test") is not None


def test_what_is_replaced_stands_in_the_configuration() -> None:
    config = small_config(**FIELDS)
    assert replaced(config, 4, Path("run.h5")) == small_config(**FIELDS | {"network.last_aux_width": 4})
