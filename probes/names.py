"""Names of the probes and the settings that a user gives them; loads no torch, so that --help is quick."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING

from layerwise.errors import UsageError, unknown

if TYPE_CHECKING:
    import torch


LINEAR = ("linear", "linear-ovr")
NEAREST = ("knn", "ncm")
CODELENGTH = "codelength"
POOLED = (*LINEAR, *NEAREST)  # probes of A x_j
CNN_WIDTHS, CNN_SEEDS, CNN_EPOCHS = "64,128,256", 1, 12
QUICK_EPOCHS = 2  # of --quick: CNN probes of so few epochs are called so wherever they are shown
SOURCES = ("auto", "stored", "recompute", "folder")
POOLS = (1, 2, 4, 8)
FEATURES = ("native", "matched", "input")
TRAINED = ("auxiliary", "ensemble", "ensemble-softmax", "ensemble-uniform")
CHOICES = (*LINEAR, "cnn-1", "cnn-2", "cnn-p for any p", *NEAREST, CODELENGTH, *TRAINED)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of probes, beside their names.

    pools: of the probes of A x_j. features, max_memory (bytes), pixels: of the linear probes. widths M, number of
        seeds, epochs, source of maps: of the CNN probes; seeds of orders of codelength's images too.
    """

    pools: Sequence[int]
    features: str
    widths: Sequence[int]
    seeds: int
    epochs: int
    source: str
    device: torch.device
    max_memory: int | None = None
    pixels: bool = True

    def __post_init__(self) -> None:
        for name in ("seeds", "epochs", "max_memory"):
            if not isinstance(number := getattr(self, name), Integral) and (name, number) != ("max_memory", None):
                raise UsageError(f"{name} is {number!r}; expected a whole number.")
        counts = (
            ("poolings", self.pools), ("probe widths", self.widths), ("number of seeds", [self.seeds]),
            ("epochs", [self.epochs]),
        )  # fmt: skip
        for what, found in counts:
            if not found or any(number < 1 for number in found):
                raise UsageError(f"found {what} {', '.join(map(str, found)) or 'none'}, expected positive integers.")
        if self.source not in SOURCES:
            raise unknown("source", self.source, SOURCES)
        if self.features not in FEATURES:
            raise unknown("kind of features", self.features, FEATURES)
        for side in (side for side in self.pools if side not in POOLS):
            raise unknown("pooling", side, POOLS)
        for name in ("pools", "widths"):  # a value named twice counts once
            object.__setattr__(self, name, tuple(dict.fromkeys(getattr(self, name))))


def whole_numbers(name: str, given: object) -> tuple[int, ...]:
    """Return one whole number, or several, each once, as a tuple; raise UsageError for anything else."""
    found = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
    if not all(isinstance(one, Integral) for one in found):
        raise UsageError(f"{name} is {given!r}; expected a whole number, or several in a list.")
    return tuple(dict.fromkeys(int(one) for one in found))


def hidden_convolutions(name: str) -> int | None:
    """Return p of a probe named "cnn-p", None for the others; raise UsageError for a name that is none."""
    if name in (*LINEAR, *NEAREST, *TRAINED, CODELENGTH):
        return None
    match = re.fullmatch(r"cnn-([1-9][0-9]*)", name)
    if match is None:
        raise unknown("probe", name, CHOICES)
    return int(match[1])
