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


SEEDS = 5

# CNN probes of 12 epochs are those of the protocol; the smallest study has 2, to be through in minutes.
BUDGETS = {
    "smoke": Budget(
        Study(
            recipe="digits",
            widths=(8,),
            seeds=SEEDS,
            probes=("linear", "cnn-1"),
            probe_widths=(16,),
            probe_seeds=1,
            probe_epochs=2,
            settings={
                "data.subset": 400,
                "network.depth": 3,
                "network.aux_width": 16,
                "training.epochs": 8,
                "training.lr_every": 3,
                "training.batch_size": 32,
            },
        ),
        operations=5.3e11,
        time="under 5 minutes on two cores",
    ),
    "cpu": Budget(
        Study(
            recipe="separability",
            widths=(24,),
            seeds=SEEDS,
            probes=("linear", "cnn-1"),
            probe_widths=(16,),
            probe_seeds=1,
            probe_epochs=12,
            # In so few epochs one cycle ends higher than drops by steps, and smaller batches take more steps.
            settings={
                "data.dataset": "cifar10",
                "data.subset": 10_000,
                "network.depth": 4,
                "network.aux_width": 24,
                "training.epochs": 6,
                "training.batch_size": 64,
                "training.schedule": "one-cycle",
            },
        ),
        operations=1.5e15,
        time="about 2.5 hours on two cores, estimated",
    ),
    "gpu": Budget(
        Study(
            recipe="separability",
            widths=(64,),
            seeds=SEEDS,
            probe_widths=(64,),
            probe_seeds=1,
            probe_epochs=12,
        ),
        operations=1.4e18,
        time="about 3.5 hours on one H200, estimated",
    ),
    "paper": Budget(
        Study(
            recipe="separability",
            widths=(64, 128, 256),
            seeds=SEEDS,
            probe_widths=(64, 128, 256),
            probe_seeds=3,
            probe_epochs=12,
        ),
        operations=2.3e19,
        time="a cluster",
    ),
}


def asked(name: str, flags: Mapping[str, object], words: Sequence[str], **given: Any) -> Study:
    """Return the study of a budget with what replaces it; None leaves the budget's own.

    Args:
        name: of the budget; UsageError, with the choices, for one that there is not.
        flags: fields of the configuration by dotted path. With other epochs the learning rate drops after the same
            share of them as in the recipe.
        words: key=value, other fields of the configuration; they come last. mode:key=value is of one mode (or
            mode-k1, of one mode and k) alone.
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
    own: dict[str, dict[str, str]] = {}
    for name, value in map(parse_setting, words):
        mode, _, field = name.rpartition(":")
        (own.setdefault(mode, {}) if mode else settings)[field] = value
    return replace(study, **_known(given), settings=settings, own=own)


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
