"""Tests of analysis/differences.py: two real runs, their depths compared image by image."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import make_run

from analysis.differences import differences
from layerwise.commandline import call
from layerwise.errors import UserError
from layerwise.runfile import RunFile
from probes.cli import probe
from probes.probe import ProbeName
from probes.results.paired_tests import holm, mcnemar, paired_interval
from probes.results.predictions import open_correct


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("differences")
    paths = folder / "one.h5", folder / "other.h5"
    for path, seed in zip(paths, (0, 1), strict=True):
        make_run(path, seed=seed)
        assert call(probe, "probe-depth", [str(path), "--probe", "linear,ncm", "--device", "cpu", "--quiet"]) == 0
    return paths


def test_each_number_is_that_of_the_single_images(runs: tuple[Path, Path]) -> None:
    found = differences(*runs)
    assert list(dict.fromkeys(found["probe"])) == ["linear", "ncm"]
    own = found[(found["probe"] == "linear") & (found["pooling"] == 2)]
    with (
        RunFile(runs[0]) as one, open_correct(one) as read, RunFile(runs[1]) as other, open_correct(other) as read_other
    ):  # fmt: skip
        for row in own.to_dict("records"):
            name = ProbeName(depth=row["depth"], probe="linear")
            before, after = (read_one(name, 1).to_numpy() for read_one in (read, read_other))  # type: ignore[union-attr]
            assert (row["first"], row["second"]) == pytest.approx((before.mean(), after.mean()))
            assert row["difference"] == pytest.approx(after.mean() - before.mean())
            assert (row["ci_low"], row["ci_high"]) == paired_interval(before, after)
            assert row["p"] == mcnemar(before, after)
    assert own["p_holm"].tolist() == pytest.approx(holm(list(own["p"])))


def test_the_other_way_round_the_sign_turns(runs: tuple[Path, Path]) -> None:
    there, back = differences(*runs, probes=["linear"]), differences(*runs[::-1], probes=["linear"])
    assert back["difference"].tolist() == pytest.approx((-there["difference"]).tolist())
    assert back["p"].tolist() == pytest.approx(there["p"].tolist())


def test_no_probe_in_common(runs: tuple[Path, Path]) -> None:
    with pytest.raises(UserError, match=r"have no probe knn with predictions in common. `probe-depth RUN.H5` makes"):
        differences(*runs, probes=["knn"])


def test_runs_of_other_images_are_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    other = make_run(tmp_path / "fewer.h5", **{"data.subset": 500})
    assert call(probe, "probe-depth", [str(other), "--device", "cpu", "--quiet"]) == 0
    with pytest.raises(UserError, match="their train images differ"):
        differences(runs[0], other)
