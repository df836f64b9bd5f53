"""Owns which probes there are by name, and how each is fitted or scored at a depth."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerwise.errors import UserError, unknown

if TYPE_CHECKING:
    import torch

    from layerwise.runfile import RunFile
    from probes.protocol import Fit
    from probes.results import ProbeName

log = logging.getLogger("layerwise.probes")

LINEAR = ("linear", "linear-ovr")
SOURCES = ("auto", "stored", "recompute")
TRAINED = ("auxiliary", "ensemble", "ensemble-softmax", "ensemble-uniform")
CHOICES = (*LINEAR, "cnn-1", "cnn-2", "cnn-p for any p", *TRAINED)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a user says of the CNN probes: widths M, number of seeds, epochs, source of maps; and the device of all."""

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


def depths_of(run: RunFile, name: str) -> list[int]:
    """Return the depths at which a probe has something to say."""
    from probes.auxiliary import auxiliary_depths

    if name in LINEAR:
        return run.depths
    if name not in TRAINED:
        return _depths_with_maps(run, name)
    depths = auxiliary_depths(run)
    if name != "auxiliary" and len(depths) == 1:
        raise UserError(
            f"{run.path} has one trained auxiliary classifier, at depth {depths[0]}, and so no ensemble. "
            "Use --probe auxiliary."
        )
    return depths


def _depths_with_maps(run: RunFile, name: str) -> list[int]:
    """Return the depths with maps of at least 2x2; a network built elsewhere may also have vectors, say."""
    found = [depth for depth in run.depths if min(run.depth_shape(depth)[1:]) >= 2]
    if not found:
        raise UserError(
            f"{run.path} has no depth with maps of at least 2x2, which {name} averages to. Use --probe linear."
        )
    if left_out := [str(depth) for depth in run.depths if depth not in found]:
        log.warning("%s is not fitted at depth %s, whose maps are smaller than 2x2", name, ", ".join(left_out))
    return found


def fit_at(run: RunFile, depth: int, name: str, settings: Settings) -> list[tuple[ProbeName, list[Fit]]]:
    """Fit the named probe at a depth by the protocol; one entry for each width and seed."""
    from probes.auxiliary import score_auxiliary
    from probes.cnn import Design, probe_cnn
    from probes.linear import probe_linear
    from probes.results import ProbeName

    if name in LINEAR:
        fits = probe_linear(run, depth, name, device=settings.device)
        return [(ProbeName(depth=depth, probe=name), fits)]
    if name in TRAINED:
        return [(ProbeName(depth=depth, probe=name, pooling=0), [score_auxiliary(run, depth, name)])]
    p = hidden_convolutions(name)
    assert p is not None
    designs = [Design(p, width, seed) for width in settings.widths for seed in range(settings.seeds)]
    found = probe_cnn(run, depth, designs, epochs=settings.epochs, source=settings.source, device=settings.device)
    return [
        (ProbeName(depth=depth, probe=name, probe_width=d.width, probe_seed=d.seed, pooling=0), fits)
        for d, fits in found.items()
    ]
