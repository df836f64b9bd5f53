"""An extraction from its plan of bytes to its published file, whatever the activations come from."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from math import prod
from pathlib import Path
from types import MappingProxyType

import numpy as np

from layerwise import ranks
from layerwise.config import DTYPES
from layerwise.datasets.split import SplitFiles
from layerwise.datasets.survey import folder_facts
from layerwise.errors import UserError, option, unknown
from layerwise.extraction.origins import Origin
from layerwise.hardware import exact_float32
from layerwise.locks import held
from layerwise.publication import refuse_existing, remove_leftovers
from layerwise.runfile import layout
from layerwise.runfile.depths import Depth, DepthStream, publish_run
from layerwise.runfile.place import Place
from layerwise.runfile.plan import Plan, plan, require_room
from layerwise.runfile.provenance import provenance
from layerwise.runfile.rounding import asked_in_float32
from layerwise.runfile.writer import RunWriter
from layerwise.units import show_size

log = logging.getLogger("layerwise.extract")


class Extraction:
    """Activations of every depth of some samples, to be written: of a network (networks.py), or arrays (arrays.py).

    A kind of extraction sets these, and says how they are computed:

    origin: where the activations come from. dataset: the root attribute of that name.
    depths: by number j. labels, index: int64 [n] of each split. image_shape: of uint8 images, where the data are such,
    and kept: where these are, as `Dataset.kept`; files: which they were, of each split, where they came from such.
    """

    origin: Origin
    dataset: str
    depths: Mapping[int, Depth]
    labels: Mapping[str, np.ndarray]
    index: Mapping[str, np.ndarray]
    image_shape: tuple[int, ...] | None = None
    kept: str | None = None
    files: Mapping[str, SplitFiles] = MappingProxyType({})

    def prepare(self) -> None:
        """Do what comes before the first row is computed."""

    def run(self, writer: RunWriter, stream: DepthStream, images: bool) -> None:
        """Compute everything once, giving each batch of each depth to the stream; write the images where asked."""
        raise NotImplementedError

    @property
    def counts(self) -> dict[str, int]:
        """Number of samples of each split."""
        return {name: len(label) for name, label in self.labels.items()}

    def plan(self, store: str, max_size: int, in_float32: frozenset[int] = frozenset(), dtype: str = "auto") -> Plan:
        """Return what would be kept within `max_size` bytes; store: "pooled", "maps", or "auto"."""
        in_float32 = in_float32 or asked_in_float32(self.depths, dtype)
        images = 0 if self.image_shape is None else prod(self.image_shape) * sum(self.counts.values())
        return plan(
            self.depths, self.counts, store=store, max_size=max_size, image_bytes=images, in_float32=in_float32,
            file_bytes=sum(files.nbytes for files in self.files.values()),
        )  # fmt: skip

    def write(self, place: Place, store: str, dtype: str = "auto") -> Plan:
        """Compute everything once, or twice where depths need float32, and publish the file; return what it holds.

        dtype: number type of what is kept: "float16", "float32", or "auto", float16 where it loses nothing.
        """
        if dtype not in DTYPES:
            raise unknown("dtype", dtype, DTYPES)
        ranks.by_first(lambda: refuse_existing(place.out, place.force))
        ranks.by_first(lambda: refuse_too_large(self.plan(store, place.max_size, dtype=dtype), place))
        with ExitStack() as stack:
            ranks.by_first(lambda: stack.enter_context(_alone_at(place.out)))
            return self._write(place, store, dtype)

    def _write(self, place: Place, store: str, dtype: str) -> Plan:
        start = time.perf_counter()

        def write(writer: RunWriter, in_float32: frozenset[int]) -> Plan:
            kept = self.plan(store, place.max_size, in_float32)
            ranks.by_first(lambda: refuse_too_large(kept, place))
            log.info("%s", list(describe_plan(kept))[-1])
            writer.attributes(layout.ROOT, {"dataset": self.dataset, "extraction": self.origin.to_json()})
            for split, label in self.labels.items():
                writer.samples(split, label, self.index[split], self.files.get(split))
            stream = DepthStream(writer, kept.depths, self.counts, maps=kept.maps, in_float32=in_float32, dtype=dtype)
            self.run(writer, stream, kept.images)
            stream.finish()
            seconds = {"extract": time.perf_counter() - start}
            machine = provenance(place.device, place.data_dir, seconds) | {"ranks": ranks.world()}
            machine |= folder_facts(self.files.get("train")) | ({"images": self.kept} if self.kept else {})
            writer.attributes(layout.PROVENANCE, machine)
            return kept

        with exact_float32():
            self.prepare()
            return publish_run(
                place.out, force=place.force, write=write, in_float32=asked_in_float32(self.depths, dtype)
            )


@contextmanager
def _alone_at(out: Path) -> Iterator[None]:
    """Hold an output against other processes, and remove what killed ones left of it.

    The lock is that of a training of the same output, in run.h5.state/, since each removes leftovers of the other; what
    a stopped training has there stays.
    """
    folder = out.with_name(out.name + ".state")
    lock = folder / "lock"
    with held(lock, f"command is working on {out}", wait=False, in_own_folder=True):
        remove_leftovers(out)
        try:
            yield
        finally:
            remove_leftovers(out)  # of a rank that was killed
            if os.listdir(folder) == [lock.name]:
                with suppress(OSError):
                    lock.unlink()
                    folder.rmdir()


def refuse_too_large(plan: Plan, place: Place) -> None:
    """Raise UserError, after the table of bytes, where a run file does not fit its limit or the disk."""
    try:
        require_room(plan, place.max_size, place.out, ways=ways())
    except UserError:
        for line in describe_plan(plan):
            log.warning("%s", line)
        raise


def ways() -> list[str]:
    """Return what makes the file of an extraction smaller, beside what makes any run file so."""
    return [f"fewer {option('layers')}"]


def describe_plan(plan: Plan) -> Iterator[str]:
    """Yield the table of bytes: a line for each depth, then the sum."""
    sizes = ", ".join(f"{name} {n:,}" for name, n in plan.counts.items())
    yield f"samples: {sizes}"
    width = max(6, *(len(depth.module) for depth in plan.depths.values()))
    yield f"{'depth':>5}  {'module':<{width}}  {'C x H x W':<15}  {'read as':<14}  {'pooled':>9}  {'maps':>9}"
    for j, depth in plan.depths.items():
        shape, form = " x ".join(map(str, depth.shape)), depth.facts["form"]
        maps = show_size(plan.whole[j]) if plan.whole[j] else "= pooled"
        yield f"{j:>5}  {depth.module:<{width}}  {shape:<15}  {form:<14}  {show_size(plan.pooled[j]):>9}  {maps:>9}"
    kept = ["pooled features", *(["whole maps"] if plan.maps else []), *(["images"] if plan.images else [])]
    images = f", images {show_size(plan.image_bytes)}" if plan.image_bytes else ""
    yield (
        f"pooled in all {show_size(sum(plan.pooled.values()))}, maps {show_size(sum(plan.whole.values()))}{images}"
        "; as float16 (a depth with values beyond it takes twice as much)"
    )
    yield f"the run file takes {show_size(plan.total)}: {', '.join(kept)}"
