"""The smallest result of docs/results.md is made again, and lies within the interval that stands in its table."""

from __future__ import annotations

from pathlib import Path

import torch
from test_claims import accuracy_row

import probes
from layerwise.recipes import recipe
from layerwise.runfile import RunFile
from layerwise.runfile.place import Place
from layerwise.settings import set_fields
from layerwise.training.run import train_run


def test_digits_give_the_published_accuracies_again(tmp_path: Path) -> None:
    path = tmp_path / "k2.h5"
    place = Place(out=path, device=torch.device("cpu"), max_size=10**9)
    train_run(set_fields(recipe("digits"), {"network.k": 2}), place)
    rows = probes.fit(path, "linear", depths=[1, 4], pixels=False, quiet=True)
    test = rows[(rows["split"] == "test") & (rows["metric"] == "accuracy") & (rows["refit"] == 1)]
    found = test.set_index("depth")["value"]
    for depth in (1, 4):
        row = accuracy_row("digits", "k2.h5", "linear", depth, 2)
        assert row["ci_low"] <= found[depth] <= row["ci_high"]
    with RunFile(path) as run:
        own = run.scores(4)["test_accuracy"]
    row = accuracy_row("digits", "k2.h5", "auxiliary", 4, 0, 0)
    assert row["ci_low"] <= own <= row["ci_high"]
