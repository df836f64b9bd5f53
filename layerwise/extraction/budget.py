"""Owns the forecast of an extraction: the bytes of each depth, what of it fits, and the flags that make it fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from layerwise.config import STORES
from layerwise.errors import UserError, unknown
from layerwise.runfile.depths import Depth
from layerwise.runfile.rounding import dtype_of
from layerwise.units import show_size

SAMPLE_BYTES = 16  # label and index, int64


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What an extraction keeps, and its bytes.

    pooled: for each depth, A x_j of every split (with class tokens, where there are any). whole: what whole maps add.
    image_bytes: the uint8 images, where the data are images. maps, images: whether they are kept.
    """

    depths: Mapping[int, Depth]
    counts: Mapping[str, int]
    pooled: Mapping[int, int]
    whole: Mapping[int, int]
    image_bytes: int
    maps: bool
    images: bool

    @property
    def total(self) -> int:
        """Bytes of all datasets of the file, but for its manifest."""
        return self.needed(self.maps) + self.images * self.image_bytes

    def needed(self, maps: bool) -> int:
        """Bytes of all but the images, with or without whole maps."""
        samples = SAMPLE_BYTES * sum(self.counts.values())
        return samples + sum(self.pooled.values()) + maps * sum(self.whole.values())


def plan_extraction(
    depths: Mapping[int, Depth],
    counts: Mapping[str, int],
    image_bytes: int,
    store: str,
    max_size: int,
    in_float32: frozenset[int],
) -> Budget:
    """Decide what is kept within `max_size` bytes: whole maps as `store` says, then images where they fit beside.

    `require_fit` refuses a budget that is over. Raises UsageError for an unknown `store`.
    """
    if store not in STORES:
        raise unknown("store", store, STORES)
    n = sum(counts.values())
    pooled, whole = {}, {}
    for j, depth in depths.items():
        size = dtype_of(j, in_float32).itemsize * n
        kept = {kind: size * int(np.prod(shape)) for kind, shape in depth.kept.items()}
        whole[j] = kept.pop("maps", 0)
        pooled[j] = sum(kept.values())
    alone = Budget(
        depths=depths, counts=counts, pooled=pooled, whole=whole, image_bytes=image_bytes, maps=False, images=False
    )
    maps = store == "maps" or (store == "auto" and alone.needed(True) + image_bytes <= max_size)
    images = bool(image_bytes) and alone.needed(maps) + image_bytes <= max_size
    return Budget(**{**vars(alone), "maps": maps, "images": images})


LIMITS = {"--max-size allows": "a larger --max-size", "the disk has free": "an --out elsewhere"}


def require_fit(budget: Budget, limit: int, what: str) -> None:
    """Raise UserError, with the flags that would make it fit, if the file would take more than `limit` bytes.

    Args:
        what: whose limit that is, one of `LIMITS`.
    """
    if budget.total <= limit:
        return
    flags = []
    if budget.maps and budget.needed(False) <= limit:
        flags.append(f"--store pooled ({show_size(budget.needed(False))})")
    n = sum(budget.counts.values())
    tested = budget.counts["test"]
    fitting = int(limit // max(1, budget.needed(budget.maps) / n)) - tested
    if fitting >= 100 and budget.image_bytes:  # of data sets of images alone
        flags.append(f"--subset {_round_down(fitting)}")
    flags.append("fewer --layers")
    raise UserError(
        f"the run file would take {show_size(budget.total)} ({show_size(_largest(budget))} for its largest depth), but "
        f"{what} {show_size(limit)}. What would make it fit: {', '.join(flags)}, or {LIMITS[what]}."
    )


def _largest(budget: Budget) -> int:
    return max(budget.pooled[j] + budget.maps * budget.whole[j] for j in budget.depths)


def _round_down(number: int) -> int:
    """Return a number with its first two digits kept: 4379 -> 4300."""
    unit = 10 ** max(0, len(str(number)) - 2)
    return number // unit * unit


def describe_budget(budget: Budget) -> Iterator[str]:
    """Yield the table of bytes: a line for each depth, then the sum."""
    sizes = ", ".join(f"{name} {n:,}" for name, n in budget.counts.items())
    yield f"samples: {sizes}"
    width = max(6, *(len(depth.module) for depth in budget.depths.values()))
    yield f"{'depth':>5}  {'module':<{width}}  {'C x H x W':<15}  {'read as':<14}  {'pooled':>9}  {'maps':>9}"
    for j, depth in budget.depths.items():
        shape = " x ".join(map(str, depth.shape))
        maps = show_size(budget.whole[j]) if budget.whole[j] else "= pooled"
        form = depth.facts["form"]
        yield (f"{j:>5}  {depth.module:<{width}}  {shape:<15}  {form:<14}  {show_size(budget.pooled[j]):>9}  {maps:>9}")
    kept = ["pooled features", *(["whole maps"] if budget.maps else []), *(["images"] if budget.images else [])]
    images = f", images {show_size(budget.image_bytes)}" if budget.image_bytes else ""
    yield (
        f"pooled in all {show_size(sum(budget.pooled.values()))}, maps {show_size(sum(budget.whole.values()))}{images}"
        "; as float16 (a depth with values beyond it takes twice as much)"
    )
    yield f"the run file takes {show_size(budget.total)}: {', '.join(kept)}"
