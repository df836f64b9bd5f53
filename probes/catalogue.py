"""Owns which probes there are by name, and which families fit the probes that a user names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerwise.errors import UsageError, unknown

if TYPE_CHECKING:
    import torch

    from layerwise.runfile import RunFile
    from probes.family import Family
    from probes.task import Task

LINEAR = ("linear", "linear-ovr")
SOURCES = ("auto", "stored", "recompute")
FEATURES = ("native", "matched")
TRAINED = ("auxiliary", "ensemble", "ensemble-softmax", "ensemble-uniform")
CHOICES = (*LINEAR, "cnn-1", "cnn-2", "cnn-p for any p", *TRAINED)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a user says of the probes beside their names.

    pools, features: of the linear probes. widths M, number of seeds, epochs, source of maps: of the CNN probes.
    """

    pools: Sequence[int]
    features: str
    widths: Sequence[int]
    seeds: int
    epochs: int
    source: str
    device: torch.device


def hidden_convolutions(name: str) -> int | None:
    """Return p of a probe named "cnn-p", None for the others; raise UsageError for a name that is none."""
    if name in LINEAR or name in TRAINED:
        return None
    match = re.fullmatch(r"cnn-([1-9][0-9]*)", name)
    if match is None:
        raise unknown("probe", name, CHOICES)
    return int(match[1])


def families(run: RunFile, task: Task, names: Sequence[str], settings: Settings) -> list[Family]:
    """Return the families that fit the named probes of a run, in the order of the names; all CNN probes are one."""
    from probes.auxiliary import TrainedFamily
    from probes.cnn import CnnFamily
    from probes.linear import LinearFamily

    found: dict[str, Family] = {}
    for name in names:
        if name in LINEAR:
            found[name] = LinearFamily(
                run, task, name, pools=settings.pools, features=settings.features, device=settings.device
            )
        elif name in TRAINED:
            _require_plain(task, name)
            found[name] = TrainedFamily(run, name)
        elif "cnn" not in found:
            ps = list(dict.fromkeys(p for other in names if (p := hidden_convolutions(other))))
            found["cnn"] = CnnFamily(
                run, task, ps=ps, widths=settings.widths, seeds=settings.seeds, epochs=settings.epochs,
                source=settings.source, device=settings.device,
            )  # fmt: skip
    return list(found.values())


def _require_plain(task: Task, name: str) -> None:
    if task.control != "none" or task.target != "class":
        raise UsageError(
            f"--probe {name} is what the run trained on its own classes, so it has no control and no other target. "
            "Use --probe linear or cnn-1 for those."
        )
