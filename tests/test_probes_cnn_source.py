"""Which source is chosen, at what cost, and how that is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import make_run

from layerwise.model.counts import count_problems
from layerwise.runfile import RunFile
from probes.cnn import source
from probes.cnn.source import Source, choose_source, describe

CPU = torch.device("cpu")


def cost(name: str, seconds: float, depth: int = 1) -> Source:
    return Source(depth=depth, name=name, nbytes=1000, operations=0, seconds=seconds)


@pytest.mark.parametrize(
    ("stored", "recomputed", "expected"), [(1.0, 0.4, "recompute"), (1.0, 0.6, "stored"), (1.0, 2.0, "stored")]
)
def test_maps_are_recomputed_only_where_that_is_clearly_faster(
    run_path: Path, monkeypatch: pytest.MonkeyPatch, stored: float, recomputed: float, expected: str
) -> None:
    seconds = {"stored": stored, "recompute": recomputed}
    monkeypatch.setattr(source, "_measured", lambda run, depth, maps, device: cost(maps.source, seconds[maps.source]))
    with RunFile(run_path) as run:
        assert choose_source(run, 1, "auto", CPU).name == expected
        assert choose_source(run, 0, "auto", CPU).name == "stored"
        assert choose_source(run, 1, "stored", CPU).name == "stored"
        assert choose_source(run, 1, "recompute", CPU).name == "recompute"


def test_without_maps_there_is_one_way(tmp_path: Path) -> None:
    with RunFile(make_run(tmp_path / "run.h5", **{"training.epochs": 1})) as run:
        found = choose_source(run, 2, "auto", CPU)
        problems = count_problems(run.config.network, (1, 8, 8), 10)  # type: ignore[union-attr]
    assert found.name == "recompute"
    assert found.nbytes == 64  # an 8x8 image
    assert found.operations == sum(problem.block.operations for problem in problems)
    assert found.seconds > 0


def test_stored_maps_cost_their_bytes(run_path: Path) -> None:
    with RunFile(run_path) as run:
        found = choose_source(run, 1, "stored", CPU)
    assert (found.nbytes, found.operations) == (2 * 6 * 8 * 8, 0)


def test_the_choice_and_its_forecast_are_one_line() -> None:
    found = [cost("stored", 1e-3, 0), cost("recompute", 5e-3, 1), cost("recompute", 5e-3, 2)]
    assert describe(found, 1000) == (
        "maps: depths 0 read from the file (1.0 MB, about 1 s a pass); "
        "depths 1, 2 recomputed from images (2.0 MB, about 10 s a pass)"
    )
