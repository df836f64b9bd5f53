"""The depths of a run file, written batch by batch: no split is ever held in memory.

Values are computed in float32 and rounded once. Every depth is begun in float16, while rounding.py looks at the values;
if one of them needs float32, the file is given up before it is published and written anew. So most runs are computed
once, the others twice, and the file is the same as if the types had been known before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from layerwise import ranks
from layerwise.errors import UserError, option
from layerwise.runfile import layout
from layerwise.runfile.rounding import Float16Check, dtype_of
from layerwise.runfile.shards import created
from layerwise.runfile.writer import RowWriter, RunWriter

log = logging.getLogger("layerwise.run")

T = TypeVar("T")
NUMPY_TYPES: dict[torch.dtype, type] = {torch.float16: np.float16, torch.float32: np.float32}

# For each split the rows of a batch that belong to it: all of them, or positions in ascending order.
Routes = Mapping[str, slice | np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Depth:
    """What a run file holds of one depth.

    module: name of the module whose output it is. shape: (C, H, W) of x_j.
    kept: the shape for one sample of each kind of rows: "pooled" (A x_j); "maps" (x_j), unless A changes nothing and
        they are never kept; "class_token", where there is one.
    facts: what else the file says of it, by attribute.
    """

    module: str
    shape: tuple[int, int, int]
    kept: Mapping[str, tuple[int, ...]]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def stored(self, maps: bool) -> dict[str, tuple[int, ...]]:
        """Return what of `kept` is written, with or without whole maps."""
        return {kind: shape for kind, shape in self.kept.items() if maps or kind != "maps"}

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the depth's group."""
        return {"module": self.module, "shape": np.array(self.shape, dtype=np.int64), **self.facts}


class NeedsFloat32(Exception):
    """Depths that float16 does not hold: by number, what it would lose."""

    def __init__(self, losses: Mapping[int, str]):
        super().__init__("; ".join(f"depth {j}: {loss}" for j, loss in sorted(losses.items())))
        self.depths = frozenset(losses)


class DepthStream:
    """Takes what each depth computes, batch by batch, and writes it row by row.

    Args:
        depths: by number j.
        counts: number of samples of each split.
        maps: whether whole maps are kept beside A x_j.
        in_float32: the depths that are kept in float32.
        dtype: "float16" keeps all others in float16 whatever it loses, with a warning; "auto" raises NeedsFloat32.
    """

    def __init__(
        self,
        writer: RunWriter,
        depths: Mapping[int, Depth],
        counts: Mapping[str, int],
        *,
        maps: bool,
        in_float32: frozenset[int],
        dtype: str = "auto",
    ):
        self._depths, self._in_float32, self._dtype = depths, in_float32, dtype
        self._seen = dict.fromkeys(counts, 0)
        self._checks = {j: Float16Check() for j in depths}
        self._too_large: set[int] = set()
        self._rows: dict[tuple[int, str, str], RowWriter] = {}
        self._kinds = {j: set(depth.stored(maps)) for j, depth in depths.items()}
        for j, depth in depths.items():
            writer.attributes(layout.depth(j), depth.attributes())
            for kind, shape in depth.stored(maps).items():
                for split, n in counts.items():
                    path = layout.activations(j, split, kind)
                    self._rows[j, split, kind] = writer.rows(path, (n, *shape), NUMPY_TYPES[dtype_of(j, in_float32)])

    def begin_at(self, split: str, row: int) -> None:
        """Say that the first row of a split that this process takes is not its first: another rank has those before."""
        self._seen[split] = row

    def start_batch(self, routes: Routes, n: int) -> None:
        """Begin a batch of n samples: the next `take` of every depth speaks of these."""
        self._routes = routes
        self._starts = dict(self._seen)
        for split, rows in routes.items():
            self._seen[split] += n if isinstance(rows, slice) else len(rows)

    def take(self, j: int, x: Tensor, class_token: Tensor | None = None) -> None:
        """Write this batch's rows of depth j: x_j [n, C, H, W], and class tokens [n, C] where they are kept apart.

        Raises UserError where a value is NaN or infinite.
        """
        kinds = {"maps": x.detach().to(torch.float32)}
        if class_token is not None:
            kinds["class_token"] = class_token.detach().to(torch.float32)
        for values in kinds.values():
            self._checks[j].look(values)
        if not np.isfinite(self._checks[j].largest):
            self._refuse(j, kinds)
        if j not in self._in_float32 and not self._checks[j].fits:
            self._too_large.add(j)
        if self._too_large:  # what is written from here on is given up
            return
        kinds["pooled"] = pooled(kinds["maps"], self._depths[j].kept["pooled"])
        for kind, values in kinds.items():
            if j not in self._in_float32 and kind in self._kinds[j]:
                self._checks[j].compare(kind, values)
            self._append(j, kind, values)

    def finish(self) -> None:
        """Raise NeedsFloat32 if float16 did not hold every depth that was written in it, by any rank.

        With dtype "float16", raise UserError where values are beyond its range, and warn of what else it loses.
        """
        if ranks.world() > 1:
            every = ranks.all_of(self._checks)
            self._checks = {j: Float16Check.of_all([checks[j] for checks in every]) for j in self._depths}
            self._too_large |= {j for j in self._depths if j not in self._in_float32 and not self._checks[j].fits}
        losses = {j: loss for j in self._depths if j not in self._in_float32 and (loss := self._checks[j].loss())}
        if not losses:
            return
        if self._dtype == "auto":
            raise NeedsFloat32(losses)
        said = str(NeedsFloat32(losses))
        if self._too_large:
            raise UserError(f"float16 cannot hold {said}. Give {option('dtype', 'float32')}, or auto.")
        log.warning("float16 was asked for, and loses of %s", said)

    def _append(self, j: int, kind: str, values: Tensor) -> None:
        kept: np.ndarray | None = None
        for split, rows in self._routes.items():
            if (writer := self._rows.get((j, split, kind))) is not None:
                if kept is None:  # rounded where it was computed: half the bytes come from a GPU
                    kept = values.to(dtype_of(j, self._in_float32)).contiguous().cpu().numpy()
                writer.append(kept[rows])

    def _refuse(self, j: int, kinds: Mapping[str, Tensor]) -> None:
        bad = torch.stack([(~torch.isfinite(values)).flatten(1).any(1) for values in kinds.values()]).any(0)
        for split, rows in self._routes.items():
            found = np.flatnonzero(bad.cpu().numpy()[rows])
            if len(found):
                raise UserError(
                    f"layer {self._depths[j].module} (depth {j}) has NaN or infinity for sample "
                    f"{self._starts[split] + int(found[0])} of the {split} split. Mend what computes it, or, of an "
                    "extraction, choose layers without it."
                )


def pooled(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return A x [n, *shape] of x [n, C, H, W]: each map averaged over a grid of regions, two a side as a rule."""
    _, height, width = shape
    return F.adaptive_avg_pool2d(x, (height, width))


def publish_run(
    path: Path,
    *,
    force: bool,
    write: Callable[[RunWriter, frozenset[int]], T],
    in_float32: frozenset[int] = frozenset(),
) -> T:
    """Publish the run file that `write` writes, and return what it returns.

    It writes once, or again where depths turn out to need float32.

    Args:
        write: takes the writer of a new file, and the depths to be kept in float32; calls `DepthStream.finish`.
        in_float32: the depths of which that is known before.
    """
    while True:
        try:
            with created(path, force=force) as writer:
                return write(writer, in_float32)
        except NeedsFloat32 as more:
            in_float32 |= more.depths
            log.info("float16 would lose of %s; float32 is kept there, in a second pass", more)
