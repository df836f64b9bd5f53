"""Owns the named budgets of the study: one study in four sizes, which differ in numbers and data alone."""

from __future__ import annotations

from dataclasses import dataclass, field

from layerwise.errors import unknown


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How large a study is.

    recipe: of layerwise-train, to start from. settings: its fields that are another, by dotted path.
    ks, widths: k and M of the networks. seeds: how many of each, from 0. modes: trained beside the greedy ones.
    probe_widths, probe_seeds: of the CNN probes. operations: of the networks and their CNN probes, as --dry-run counts
    them, to two digits. time: of the whole study.
    """

    recipe: str
    ks: tuple[int, ...] = (1, 2, 3)
    widths: tuple[int, ...]
    seeds: int
    modes: tuple[str, ...] = ("end-to-end",)
    probes: tuple[str, ...] = ("linear", "linear-ovr", "cnn-1", "cnn-2")
    probe_widths: tuple[int, ...]
    probe_seeds: int
    settings: dict[str, object] = field(default_factory=dict)
    operations: float
    time: str


BUDGETS: dict[str, Budget] = {
    "smoke": Budget(
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
        operations=6.2e11,
        time="under 3 minutes on two cores",
    ),
    "cpu": Budget(
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
        operations=1.4e15,
        time="an hour or two on two cores",
    ),
    "gpu": Budget(
        recipe="separability",
        widths=(64, 128),
        seeds=1,
        probe_widths=(64,),
        probe_seeds=1,
        operations=2.7e17,
        time="about 40 minutes on one H200, estimated",
    ),
    "paper": Budget(
        recipe="separability",
        widths=(64, 128, 256),
        seeds=5,
        probe_widths=(64, 128, 256),
        probe_seeds=3,
        operations=6.0e18,
        time="a cluster",
    ),
}


def budget(name: str) -> Budget:
    """Return the budget of that name; raise UsageError, with the choices, for one that there is not."""
    if name not in BUDGETS:
        raise unknown("budget", name, BUDGETS)
    return BUDGETS[name]
