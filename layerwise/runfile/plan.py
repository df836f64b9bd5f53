"""What a run file will hold, and the bytes of it: decided before the first row is computed, from shapes alone."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from layerwise import launch
from layerwise.config import STORES
from layerwise.errors import UserError, option, unknown
from layerwise.runfile.depths import Depth
from layerwise.runfile.rounding import dtype_of
from layerwise.units import show_size

SAMPLE_BYTES = 16  # label and index, int64
# Fewer training images than this are not advised: no probe says much of them.
LEAST_SUBSET = 100


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run file will hold, and its bytes.

    counts: number of samples of each split.
    pooled: for each depth, A x_j of all splits (with class tokens, where there are any). whole: what whole maps add.
    image_bytes: of all uint8 images; 0 where the data are no images. weight_bytes: of all parameters, buffers and
        outputs. history_bytes: of the rows of all epochs.
    maps, images: whether they are kept. file_bytes: of what names the files that the images come from.
    """

    depths: Mapping[int, Depth]
    counts: Mapping[str, int]
    pooled: Mapping[int, int]
    whole: Mapping[int, int]
    image_bytes: int
    weight_bytes: int
    history_bytes: int
    maps: bool = False
    images: bool = False
    file_bytes: int = 0

    @property
    def depth_bytes(self) -> tuple[int, ...]:
        """Bytes of each depth, as it is kept."""
        return tuple(self.pooled[j] + (self.whole[j] if self.maps else 0) for j in self.depths)

    @property
    def sample_bytes(self) -> int:
        """Bytes of the label and index of every sample, and of what names its file."""
        return SAMPLE_BYTES * sum(self.counts.values()) + self.file_bytes

    @property
    def total(self) -> int:
        """Bytes of all datasets of the file, but for its manifest."""
        return self.needed + (self.image_bytes if self.images else 0)

    @property
    def needed(self) -> int:
        """Bytes of all but the images, which are left out where they do not fit."""
        return sum(self.depth_bytes) + self.sample_bytes + self.weight_bytes + self.history_bytes


def plan(
    depths: Mapping[int, Depth],
    counts: Mapping[str, int],
    *,
    store: str,
    max_size: int,
    image_bytes: int = 0,
    weight_bytes: int = 0,
    history_bytes: int = 0,
    file_bytes: int = 0,
    in_float32: frozenset[int] = frozenset(),
) -> Plan:
    """Decide what is kept within `max_size` bytes: whole maps as `store` says, then images where they fit beside.

    `require_room` refuses a plan that is over.

    Args:
        store: "pooled", "maps", or "auto" (maps where they fit).
        image_bytes, weight_bytes, history_bytes, file_bytes: as of `Plan`.
        in_float32: depths of four bytes a value; the others have two.

    Raises UsageError for an unknown `store`.
    """
    if store not in STORES:
        raise unknown("store", store, STORES)
    n = sum(counts.values())
    pooled, whole = {}, {}
    for j, depth in depths.items():
        kept = {kind: n * dtype_of(j, in_float32).itemsize * prod(shape) for kind, shape in depth.kept.items()}
        whole[j] = kept.pop("maps", 0)
        pooled[j] = sum(kept.values())
    alone = Plan(
        depths=depths,
        counts=counts,
        pooled=pooled,
        whole=whole,
        image_bytes=image_bytes,
        weight_bytes=weight_bytes,
        history_bytes=history_bytes,
        file_bytes=file_bytes,
    )
    with_maps = replace(alone, maps=True)
    fits = with_maps.needed + image_bytes <= max_size
    chosen = with_maps if store == "maps" or (store == "auto" and fits) else alone
    return replace(chosen, images=bool(image_bytes) and chosen.needed + image_bytes <= max_size)


def require_room(plan: Plan, max_size: int, out: Path | None = None, *, ways: Sequence[str] = ()) -> None:
    """Raise UserError where the file takes more than `max_size` bytes, or than the disk that will hold `out` has free.

    ways: what else, beside what every run can do, would make it fit.
    """
    _require_fit(plan, max_size, f"{option('max_size')} allows", [*ways, f"a larger {option('max_size')}"])
    if out is not None and out.parent.is_dir():
        ways = [*ways, f"an {option('out')} elsewhere"]
        if twice := shards_bytes(plan):
            free, ways = max(0, free_bytes(out) - twice), [*ways, "a single process"]
            whose = f"beside the {show_size(twice)} that ranks need for a moment the disk has free"
            _require_fit(plan, free, whose, ways)
        else:
            _require_fit(plan, free_bytes(out), "the disk has free", ways)


def shards_bytes(plan: Plan) -> int:
    """Return the bytes that stand twice on the disk when ranks lay their rows together: the largest part; else 0."""
    return max([*plan.depth_bytes, plan.image_bytes * plan.images]) if launch.several() else 0


def _require_fit(plan: Plan, limit: int, whose: str, ways: Sequence[str]) -> None:
    if plan.total <= limit:
        return
    flags = []
    pooled = replace(plan, maps=False, images=False).total
    if plan.maps and pooled <= limit:
        flags.append(f"{option('store', 'pooled')} ({show_size(pooled)})")
    if (subset := _fitting_subset(plan, limit)) >= LEAST_SUBSET and plan.image_bytes:
        flags.append(option("subset", str(subset)))
    flags += ways
    raise UserError(
        f"the run file would take {show_size(plan.total)} ({show_size(max(plan.depth_bytes))} for its largest depth), "
        f"but {whose} {show_size(limit)}. What would make it fit: {', '.join(flags[:-1])}{', or ' * (len(flags) > 1)}"
        f"{flags[-1]}."
    )


def _fitting_subset(plan: Plan, limit: int) -> int:
    """Return how many training images fit beside the whole test split, its first two digits kept: 4379 -> 4300."""
    fixed = plan.weight_bytes + plan.history_bytes
    each = (plan.needed - fixed) / sum(plan.counts.values())
    number = int((limit - fixed) // max(1, each)) - plan.counts["test"]
    unit = 10 ** max(0, len(str(number)) - 2)
    return number // unit * unit


def free_bytes(path: Path) -> int:
    """Return the bytes free on the disk that will hold `path`."""
    return shutil.disk_usage(path.parent).free
