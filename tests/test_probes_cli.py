"""probe-depth as people type it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import make_run

from layerwise.commandline import call
from layerwise.errors import UsageError
from layerwise.runfile import RunFile
from probes.cli import parse_depths, probe


def run_probe(path: Path, *words: str) -> int:
    return call(probe, "probe-depth", [str(path), "--device", "cpu", *words])


def test_linear_probes_of_every_depth_with_a_table_within_80_columns(
    own_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_probe(own_run, "--probe", "linear") == 0
    lines = capsys.readouterr().out.splitlines()
    table = pd.read_csv(own_run.with_name("run.probes.csv"))
    assert set(table.depth) == {0, 1, 2}
    final = table[(table.split == "test") & (table.metric == "accuracy") & (table.refit == 1)]
    final = final.set_index(["depth", "pooling"])
    assert [line.split()[:2] for line in lines[2:6]] == [["0", "2x2"], ["0", "whole"], ["1", "2x2"], ["2", "2x2"]]
    for line in lines[2:6]:
        depth = int(line.split()[0]), 0 if "whole" in line else 2
        assert f"{100 * final.value[depth]:.2f}" in line
        assert f"[{100 * final.ci_low[depth]:.2f}, {100 * final.ci_high[depth]:.2f}]" in line
    assert all(len(line.replace(str(own_run.parent), "")) <= 80 for line in lines)
    assert lines[-1] == f"rows in {own_run.with_name('run.probes.csv')}"


def test_several_probes_widths_and_depths(own_run: Path) -> None:
    words = ["--probe", "linear-ovr,cnn-1", "--probe-width", "4,6", "--depths", "1-2", "--epochs", "1"]
    assert run_probe(own_run, *words, "--probe-seeds", "2") == 0
    table = pd.read_csv(own_run.with_name("run.probes.csv"))
    names = table[["probe", "depth", "probe_width", "probe_seed"]].drop_duplicates().to_numpy().tolist()
    cnn = [["cnn-1", depth, width, seed] for depth in (1, 2) for width in (4, 6) for seed in (0, 1)]
    assert sorted(names) == sorted(cnn + [["linear-ovr", depth, 0, 0] for depth in (1, 2)])


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            ["--probe", "linnear"],
            2,
            "unknown probe 'linnear'. Did you mean 'linear'? Choices: linear, linear-ovr, cnn-1",
        ),
        (["--probe", "cnn-0"], 2, "unknown probe 'cnn-0'."),
        (["--probe", "cnn-1", "--probe-width", "0"], 2, "--probe-width has '0', but takes positive integers"),
        (["--probe", "cnn-1", "--probe-width", "64;128"], 2, "--probe-width has '64;128', but takes positive integers"),
        (["--quick", "--epochs", "3"], 2, "--quick means --epochs 2, so it takes no --epochs. Give one of the two."),
        (["--epochs", "0"], 2, "--epochs has '0', but takes positive integers"),
        (["--probe-seeds", "0"], 2, "--probe-seeds has '0', but takes positive integers"),
        (["--pool", "3"], 2, "unknown --pool '3'. Choices: 1, 2, 4, 8"),
        (["--pool", "x"], 2, "--pool has 'x', but takes positive integers"),
        (["--features", "matches"], 2, "unknown kind of features 'matches'. Did you mean 'matched'? Choices: native"),
        (["--control", "teachers"], 2, "unknown control 'teachers'. Did you mean 'teacher'? Choices: none, permuted"),
        (["--control", "teacher", "--target", "x.csv"], 2, "--control teacher makes labels of its own, so it takes no"),
        (["--probe", "auxiliary", "--control", "permuted"], 2, "--probe auxiliary is what the run trained on its own"),
        (["--epochs", "0"], 2, "--epochs has '0', but takes positive integers"),
        (["--depths", "1,9"], 2, "unknown depth '9'. Choices: 0, 1, 2"),
        (["--depths", "2-1"], 2, "--depths has '2-1', a range that ends before it begins; write 1-2"),
        (["--depths", "0-99999999999999"], 2, "unknown depth '99999999999999'. Choices: 0, 1, 2"),
        (["--source", "disk"], 2, "unknown source 'disk'. Choices: auto, stored, recompute"),
        (["--depths", "one"], 2, "--depths has 'one', but takes depths and ranges such as 0-3 or 1,4"),
        (["--source", "disk", "--probe", "cnn-1"], 2, "unknown source 'disk'. Choices: auto, stored, recompute"),
    ],
)
def test_bad_input_is_one_line(
    own_run: Path, words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_probe(own_run, *words) == code
    err = capsys.readouterr().err.strip()
    assert err.startswith(f"probe-depth: {message}")
    assert "\n" not in err


def test_a_file_that_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.h5"
    path.write_text("no")
    assert run_probe(path) == 1
    assert "is no run file: it is not HDF5" in capsys.readouterr().err
    path = path.rename(tmp_path / "a.npz")
    assert run_probe(path) == 1
    assert f"a.npz is no run file but arrays: `layerwise-extract --from {path}` makes a" in capsys.readouterr().err


def run_several(paths: list[Path], *words: str) -> int:
    return call(probe, "probe-depth", [*map(str, paths), "--device", "cpu", *words])


@pytest.fixture
def three_runs(run_path: Path, tmp_path: Path) -> list[Path]:
    return [Path(shutil.copy(run_path, tmp_path / f"{name}.h5")) for name in ("a", "b", "c")]


def test_several_runs_are_probed_as_each_alone(
    three_runs: list[Path], own_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_probe(own_run, "--depths", "1") == 0
    alone = capsys.readouterr().out
    assert run_several([*three_runs, three_runs[0]], "--depths", "1") == 0
    said = capsys.readouterr().out
    assert said == "".join(alone.replace("/run.", f"/{path.stem}.") for path in three_runs)
    timeless = [pd.read_csv(p.with_suffix(".probes.csv")).drop(columns=["seconds", "digest"]) for p in three_runs]
    expected = read(own_run).drop(columns=["seconds", "digest"])
    for table in timeless:
        pd.testing.assert_frame_equal(table, expected)


def test_a_run_that_fails_is_named_and_the_others_are_kept(
    three_runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    second = three_runs[1]
    second.write_text("no")
    assert run_several(three_runs, "--depths", "1") == 1
    err = capsys.readouterr().err.splitlines()
    assert any(line.startswith(f"{second} failed: {second} is no run file: it is not HDF5") for line in err)
    assert err[-1] == (f"probe-depth: 1 of 3 runs failed: {second}. What was fitted is kept; the same command goes on.")
    assert [path.with_suffix(".probes.csv").exists() for path in three_runs] == [True, False, True]


def test_depths_that_no_run_has_are_wrong_usage_of_all(
    three_runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_several(three_runs, "--depths", "7") == 2
    err = capsys.readouterr().err
    assert f"{three_runs[2]} failed: unknown depth '7'. Choices: 0, 1, 2." in err
    assert "3 of 3 runs failed" in err


def test_a_dry_run_of_several_says_once_that_nothing_was_done(
    three_runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_several(three_runs, "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "to fit" in line] == [f"{path}: linear probe: 4 to fit" for path in three_runs]
    assert [i for i, line in enumerate(lines) if line.startswith("nothing was done: the same")] == [len(lines) - 1]


def test_a_baseline_that_several_runs_share_is_fitted_again_once(three_runs: list[Path], tmp_path: Path) -> None:
    raw = make_run(tmp_path / "raw.h5", mode="untrained")
    for words in ([], ["--force"]):
        assert run_several(three_runs, "--depths", "1", "--baseline", str(raw), *words) == 0
    assert set(pd.read_csv(tmp_path / "raw.probes.csv").test_reads.dropna()) == {2}


def test_depths_are_read_as_lists_and_ranges() -> None:
    assert parse_depths(None, [0, 1, 2]) == [0, 1, 2]
    assert parse_depths("0-1, 3", [0, 1, 2, 3]) == [0, 1, 3]
    with pytest.raises(UsageError, match="unknown depth '4'"):
        parse_depths("4", [0, 1, 2, 3])


def test_neighbours_and_class_means_at_every_depth_and_pooling(
    own_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_probe(own_run, "--probe", "knn,ncm", "--pool", "1,2") == 0
    out = capsys.readouterr().out
    assert " k  train" in out and (" euc " in out or " cos " in out)
    table = read(own_run)
    assert table.groupby("probe")["depth"].nunique().to_dict() == {"knn": 3, "ncm": 3}
    assert table.groupby("probe")["pooling"].unique().map(list).to_dict() == {"knn": [1, 2], "ncm": [1, 2]}
    knn = table[table.probe == "knn"]
    assert knn["neighbors"].notna().all() and set(knn["distance"]) <= {"euclidean", "cosine"}
    assert table.loc[table.probe == "ncm", "neighbors"].isna().all()
    before = own_run.with_name("run.probes.csv").read_bytes()
    assert run_probe(own_run, "--probe", "knn,ncm", "--pool", "1,2") == 0
    assert own_run.with_name("run.probes.csv").read_bytes() == before


def test_a_dry_run_says_what_is_left_and_does_nothing(own_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted(own_run.parent.iterdir())
    words = ["--probe", "cnn-1,knn", "--probe-width", "4,6", "--probe-seeds", "2", "--depths", "1"]
    assert run_probe(own_run, *words, "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{own_run}: CNN probes: 4 to fit"
    assert [line.split()[0] for line in lines[2:5]] == ["1", "2", "all"]  # depth 2 for the learning rate alone
    assert lines[-2] == f"{own_run}: knn probe: 1 to fit"
    assert lines[-1] == "nothing was done: the same command without --dry-run does it"
    assert sorted(own_run.parent.iterdir()) == files


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path.with_name("run.probes.csv"))


def test_what_the_table_holds_is_shown_and_not_fitted_again(own_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_probe(own_run) == 0
    first, before = capsys.readouterr().out, read(own_run)
    assert run_probe(own_run) == 0
    assert capsys.readouterr().out == first
    pd.testing.assert_frame_equal(read(own_run), before)
    assert run_probe(own_run, "--force", "--depths", "1") == 0
    assert "read twice for these probes" in capsys.readouterr().out
    after = read(own_run)
    assert set(after[after.depth == 1].test_reads) == {2}
    assert set(after[after.depth == 2].test_reads) == {1}


def test_raw_pixels_are_left_out_on_request(own_run: Path) -> None:
    assert run_probe(own_run, "--depths", "0", "--no-pixels") == 0
    assert set(read(own_run)["pooling"]) == {2}


def test_other_poolings_stand_beside_each_other(own_run: Path) -> None:
    assert run_probe(own_run, "--pool", "1,4") == 0
    table = read(own_run)
    features = table[["depth", "pooling", "n_features"]].drop_duplicates().to_numpy().tolist()
    expected = [[0, 0, 64], [0, 1, 1], [0, 4, 16], [1, 1, 6], [1, 4, 96], [2, 1, 6], [2, 4, 96]]
    assert features == expected


def test_matched_features_are_ten_draws_of_the_least_width(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_run(tmp_path / "run.h5", **{"network.downsample": "2"})
    assert run_probe(path, "--features", "matched") == 0
    assert "means over 10 projections, whose accuracies deviate by" in capsys.readouterr().out
    table = read(path)
    assert set(table.features) == {"matched"}
    ten = {depth: [*range(10)] for depth in (1, 2)}
    assert table.groupby("depth")["probe_seed"].unique().map(sorted).to_dict() == ten
    assert set(table.n_features) == {24}
    own = table[(table.split == "test") & (table.metric == "accuracy") & (table.refit == 1)]
    spread = own.groupby("depth")["value"].nunique()
    assert spread[1] == 1  # of the least width itself: every projection is a rotation of it
    assert spread[2] > 1


def test_controls_and_targets_stand_apart_from_the_classes(own_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunFile(own_run) as run:
        index = np.concatenate([run.indices(split) for split in run.splits])
        label = np.concatenate([run.labels(split) for split in run.splits])
    parity = own_run.with_name("parity.csv")
    pd.DataFrame({"index": index, "label": np.where(label % 2, "odd", "even")}).to_csv(parity, index=False)
    for words in ([], ["--control", "permuted"], ["--control", "teacher"], ["--target", str(parity)]):
        assert run_probe(own_run, "--depths", "1", *words) == 0
    out = capsys.readouterr().out
    assert "linear probe, control teacher; accuracy in %" in out
    assert "gap: test accuracy on the classes minus that on the teacher's labels" in out
    assert "linear probe, target parity@" in out
    table = read(own_run)
    test = table[(table.split == "test") & (table.refit == 1) & (table.metric == "accuracy")]
    found = test.assign(target=test.target.str.split("@").str[0]).set_index(["control", "target"])
    assert set(found.index) == {("none", "class"), ("permuted", "class"), ("teacher", "class"), ("none", "parity")}
    assert found.loc[("none", "parity"), "n_classes"] == 2
    assert found.loc[("none", "parity"), "value"] > 0.8
    permuted = found.loc[("permuted", "class")]
    assert permuted["value"] < 0.17  # chance, 359 images
    assert permuted["lambda"] == found.loc[("none", "class"), "lambda"]
    assert permuted["selection"] == "control"
    assert "teacher_gap" in set(table.metric)


def test_a_baseline_is_probed_too_and_put_beside(
    own_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = make_run(tmp_path / "raw.h5", mode="untrained")
    assert run_probe(own_run, "--baseline", str(raw)) == 0
    lines = capsys.readouterr().out.splitlines()
    start = lines.index(f"beside {raw}: test accuracy in %, paired over the same images")
    assert [line.split()[0] for line in lines[start + 2 : start + 6]] == ["0", "0", "1", "2"]
    assert set(pd.read_csv(tmp_path / "raw.probes.csv").depth) == {0, 1, 2}


def test_a_baseline_on_other_images_is_refused_before_anything_is_fitted(
    own_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_run(tmp_path / "other.h5", **{"data.subset": 100})
    assert run_probe(own_run, "--baseline", str(other)) == 1
    assert "other.h5 is no baseline of" in capsys.readouterr().err
    assert not own_run.with_suffix(".probes.csv").exists()


def test_a_pooling_finer_than_the_maps_is_refused_with_the_depth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_run(tmp_path / "run.h5", **{"network.downsample": "2", "training.epochs": 1})
    assert run_probe(path, "--pool", "8") == 1
    said = (
        "depth 2 has maps of 4x4, which cannot be averaged to 8x8. Leave this depth out by --depths, or give a smaller"
    )
    assert said in capsys.readouterr().err
    assert set(read(path).depth) == {0, 1}  # what was fitted before it is kept


def test_features_of_the_inputs_number_stand_beside_the_native_ones(
    own_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_probe(own_run) == 0
    assert run_probe(own_run, "--features", "input") == 0
    assert "linear probe, features matched to the input's number; accuracy in %" in capsys.readouterr().out
    table = read(own_run)
    projected = table[table.features == "input"]
    assert set(projected.depth) == {1, 2}
    assert set(projected.n_features) == set(table[(table.depth == 0) & (table.pooling == 2)].n_features) == {4}


def test_quick_probes_have_two_epochs_and_are_called_so(own_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--probe", "cnn-1", "--probe-width", "4", "--depths", "1"]
    assert run_probe(own_run, *words, "--quick") == 0
    assert "CNN probes, quick: 2 epochs are far from enough" in capsys.readouterr().out
    rows = read(own_run)
    assert set(rows["iterations"]) == {2} and set(rows["batch_size"]) == {32} and set(rows["probe_seed"]) == {0}
    assert {(s, m) for s, m in zip(rows["split"], rows["metric"], strict=True) if m.startswith("accuracy_half")} == {
        ("train", "accuracy_half"), ("test", "accuracy_half"),
    }  # fmt: skip
    assert run_probe(own_run, *words, "--dry-run") == 0
    assert capsys.readouterr().out.splitlines()[-2].startswith("12 epochs of ")  # the default
