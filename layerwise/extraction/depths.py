"""Owns the writing of depths as a stream: each batch of each depth goes to the file at once, and none is kept.

Values are float32 and are rounded once, to float16 where the largest |x_j| of all splits fits it. Nearly every depth
does, so float16 is written at first while the largest is measured; where it turns out not to fit, the file is given up
before it is published, and written anew with those depths in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerwise.errors import UserError
from layerwise.extraction.forms import GRID, MEAN, Form
from layerwise.runfile import layout
from layerwise.runfile.writer import FLOAT16_MAX, RowWriter, RunWriter

# For each split the rows of a batch that belong to it: all of them, or positions in ascending order.
Routes = Mapping[str, slice | np.ndarray]


@dataclass(frozen=True)
class Depth:
    """A depth to be written: the name of its module, the module's own output for one image, its way to x_j."""

    module: str
    source_shape: tuple[int, ...]
    form: Form


class TooLargeError(Exception):
    """Depths, by number, whose values do not fit float16."""

    def __init__(self, depths: set[int]):
        super().__init__(f"depths {sorted(depths)} do not fit float16")
        self.depths = depths


class DepthStream:
    """Takes what each depth computes, batch by batch, and writes it row by row.

    Args:
        depths: by number j.
        counts: number of samples of each split.
        maps: whether whole maps are kept beside A x_j, where they differ from it.
        in_float32: the depths that are kept in float32.
    """

    def __init__(
        self,
        writer: RunWriter,
        depths: Mapping[int, Depth],
        counts: Mapping[str, int],
        *,
        maps: bool,
        in_float32: set[int],
    ):
        self._depths, self._in_float32 = depths, in_float32
        self._seen = dict.fromkeys(counts, 0)
        self._too_large: set[int] = set()
        self._rows: dict[tuple[int, str, str], RowWriter] = {}
        for j, depth in depths.items():
            writer.attributes(layout.depth(j), _attributes(depth))
            for split, n in counts.items():
                for kind, shape in stored_shapes(depth.form, maps=maps).items():
                    path = layout.activations(j, split, kind)
                    self._rows[j, split, kind] = writer.rows(path, (n, *shape), dtype_of(j, in_float32))

    def start_batch(self, routes: Routes, n: int) -> None:
        """Begin a batch of n samples: the next `take` of every depth speaks of these."""
        self._routes = routes
        self._starts = dict(self._seen)
        for split, rows in routes.items():
            self._seen[split] += n if isinstance(rows, slice) else len(rows)

    def take(self, j: int, output: Tensor) -> None:
        """Write the rows of depth j of this batch from the layer's output [n, ...], which is left as it is.

        Raises UserError where a value is NaN or infinite.
        """
        form = self._depths[j].form
        output = output.detach().to(torch.float32)
        largest = float(output.abs().max()) if output.numel() else 0.0
        if not np.isfinite(largest):
            self._refuse(j, output)
        if largest > FLOAT16_MAX and j not in self._in_float32:
            self._too_large.add(j)
        if self._too_large:  # what is written from here on is given up
            return
        maps = form.maps(output)
        self._append(j, "pooled", form.pooled(maps))
        self._append(j, "maps", maps)
        if form.has_class_token:
            self._append(j, "class_token", form.class_token(output))

    def finish(self) -> None:
        """Raise TooLargeError if any depth did not fit the type it was written in."""
        if self._too_large:
            raise TooLargeError(self._too_large)

    def _append(self, j: int, kind: str, values: Tensor) -> None:
        kept: np.ndarray | None = None
        for split, rows in self._routes.items():
            if (writer := self._rows.get((j, split, kind))) is not None:
                kept = values.cpu().numpy() if kept is None else kept
                writer.append(kept[rows])

    def _refuse(self, j: int, output: Tensor) -> None:
        bad = (~torch.isfinite(output)).flatten(1).any(1).cpu().numpy()
        for split, rows in self._routes.items():
            found = np.flatnonzero(bad[rows])
            if len(found):
                raise UserError(
                    f"layer {self._depths[j].module} (depth {j}) has NaN or infinity for sample "
                    f"{self._starts[split] + int(found[0])} of the {split} split. Leave it out by --layers, or mend "
                    "what computes it."
                )


def dtype_of(j: int, in_float32: set[int]) -> type[np.float16] | type[np.float32]:
    """Return the type in which depth j is kept."""
    return np.float32 if j in in_float32 else np.float16


def stored_shapes(form: Form, *, maps: bool) -> dict[str, tuple[int, ...]]:
    """Return what is kept of a depth, by name, with the shape for one sample."""
    kept: dict[str, tuple[int, ...]] = {"pooled": form.pooled_shape}
    if maps and not form.is_its_own_average:
        kept["maps"] = form.shape
    if form.has_class_token:
        kept["class_token"] = (form.shape[0],)
    return kept


def _attributes(depth: Depth) -> dict[str, Any]:
    shapes = {"shape": depth.form.shape, "source_shape": depth.source_shape}
    found: dict[str, Any] = {name: np.array(shape, dtype=np.int64) for name, shape in shapes.items()}
    found |= {"module": depth.module, "form": depth.form.kind}
    if depth.form.kind in (GRID, MEAN):
        found["prefix_tokens"] = np.int64(depth.form.prefix)
    return found
