"""The named budgets of the study: one study in four sizes, which differ in numbers and data alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from figures.study.definition import Study
from layerwise.errors import unknown
from layerwise.recipes import recipe
from layerwise.settings import parse_setting


class Budget(NamedTuple):
    """A study with what it costs.

    operations: of its networks and their CNN probes, as --dry-run counts them, to two digits. time: of all of it.
    """

    study: Study
    operations: float
    time: str


BUDGETS = {
    "smoke": Budget(
        Study(
            recipe="digits",
            widths=(8, 16),
            seeds=2,
            probe_widths=(16,),
            probe_seeds=1,
            settings={
                "data.subset": 400,
                "network.depth": 3,
                "network.aux_width": 16,
                "training.epochs": 8,
                "training.lr_every": 3,
                "training.batch_size": 32,
            },
        ),
        operations=1.8e12,
        time="under 3 minutes on two cores",
    ),
    "cpu": Budget(
        Study(
            recipe="separability",
            widths=(16, 32),
            seeds=2,
            probe_widths=(32,),
            probe_seeds=1,
            settings={
                "data.dataset": "fashion-mnist",
                "data.subset": 10_000,
                "network.depth": 4,
                "network.aux_width": 64,
                "training.epochs": 10,
                "training.lr_every": 3,
            },
        ),
        operations=3.2e15,
        time="an hour or two on two cores",
    ),
    "gpu": Budget(
        Study(recipe="separability", widths=(64, 128), seeds=1, probe_widths=(64,), probe_seeds=1),
        operations=3.0e17,
        time="about 40 minutes on one H200, estimated",
    ),
    "paper": Budget(
        Study(recipe="separability", widths=(64, 128, 256), seeds=5, probe_widths=(64, 128, 256), probe_seeds=3),
        operations=1.7e19,
        time="a cluster",
    ),
}


def asked(name: str, flags: Mapping[str, object], words: Sequence[str], **given: Any) -> Study:
    """Return the study of a budget with what replaces it; None leaves the budget's own.

    Args:
        name: of the budget; UsageError, with the choices, for one that there is not.
        flags: fields of the configuration by dotted path. With other epochs the learning rate drops after the same
            share of them as in the recipe.
        words: key=value, other fields of the configuration; they come last.
        given: fields of the study.
    """
    if name not in BUDGETS:
        raise unknown("budget", name, BUDGETS)
    study = BUDGETS[name].study
    settings = {**study.settings, **_known(flags)}
    epochs = flags.get("training.epochs")
    if isinstance(epochs, int):
        training = recipe(study.recipe).training
        settings["training.lr_every"] = max(1, round(epochs * training.lr_every / training.epochs))
    return replace(study, **_known(given), settings=settings | dict(map(parse_setting, words)))


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
