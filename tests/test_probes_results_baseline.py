"""A run beside another: paired over the same images, and refused where the images are not the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import make_run
from test_probes_results_comparisons import put

from layerwise.errors import UserError
from layerwise.runfile import RunFile
from probes.probe import ProbeName
from probes.results.baseline import beside, require_same_images


def test_probes_that_both_runs_have_are_paired(own_run: Path, tmp_path: Path) -> None:
    names = [ProbeName(depth=depth, probe="linear") for depth in (1, 2)]
    with RunFile(own_run) as run, RunFile(make_run(tmp_path / "raw.h5", mode="untrained")) as other:
        require_same_images(run, other)
        put(run, {1: slice(0, 10), 2: slice(0, 10)})
        put(other, {1: slice(0, 40)})
        (found,) = beside(run, other, names)
        n = len(run.labels("test"))
    assert found.name.depth == 1
    assert (found.run, found.baseline) == pytest.approx((1 - 10 / n, 1 - 40 / n))
    assert found.low < 30 / n < found.high
    assert found.low > 0


class OnOtherImages(RunFile):
    """A run whose test split has another fingerprint."""

    @property
    def dataset(self) -> dict[str, Any]:
        found = super().dataset
        return found | {"fingerprint": found["fingerprint"] | {"test": "another"}}


def test_a_baseline_on_other_images_is_refused(run_path: Path) -> None:
    with (
        RunFile(run_path) as run,
        OnOtherImages(run_path) as second,
        pytest.raises(UserError, match=r"run.h5 is no baseline of .*run.h5: their test images differ \(digits and"),
    ):
        require_same_images(run, second)


class WithoutFold(OnOtherImages):
    """A network built elsewhere that has seen all of train, so that there is no validation fold."""

    splits = ("train", "test")

    @property
    def extraction(self) -> dict[str, Any]:
        return {"kind": "network"}


def test_the_refusal_says_how_a_baseline_is_made(run_path: Path) -> None:
    with (
        WithoutFold(run_path) as run,
        RunFile(run_path) as second,
        pytest.raises(UserError, match=r"Extract .* `layerwise-extract` .* has no validation fold, so --holdout 0.$"),
    ):
        require_same_images(run, second)
