"""The dump: a network's weights and what each of its depths computes, written to a run file.

Activations are computed in float32 with TF32 off and BatchNorm unfolded, since anybody must be able to compute them
again from the weights in the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from layerwise import ranks
from layerwise.commandline import progress
from layerwise.datasets import Dataset, Split
from layerwise.hardware import exact_float32
from layerwise.model.maps import maps_of, rows_within
from layerwise.model.network import LayerwiseNetwork
from layerwise.runfile import layout
from layerwise.runfile.depths import Depth, DepthStream
from layerwise.runfile.layout import POOL_SIDE
from layerwise.runfile.plan import Plan
from layerwise.runfile.writer import RunWriter

# All of x_0 .. x_J of a batch are held at once, where scoring (512 images) holds one of them.
DUMP_BATCH = 256


def dump_batch(network: LayerwiseNetwork) -> int:
    """Return how many images are dumped at once: DUMP_BATCH, or of large images what memory is given to."""
    maps = maps_of(network.config, network.shapes[0], network.n_classes)
    return rows_within(DUMP_BATCH, maps.dumped)


@torch.no_grad()
def depth_batches(network: LayerwiseNetwork, split: Split) -> Iterator[tuple[np.ndarray, list[Tensor]]]:
    """Yield the uint8 images of each batch of a split in order, and [x_0, ..., x_J], each x_j [n, C, H, W] float32.

    Of several ranks each has its stretch of the batches, which are those of one process: to the bit what that computes.
    """
    size = dump_batch(network)
    parts = [slice(start, start + size) for start in range(0, len(split.label), size)]
    for images in split.stream(parts[ranks.stretch(len(parts))]):
        xs = [network.normalise(torch.from_numpy(images).to(network.device))]
        for block in network.blocks:
            xs.append(block(xs[-1]))
        yield images, xs


def depths_of(shapes: Sequence[tuple[int, int, int]]) -> dict[int, Depth]:
    """Return what a run file holds of each depth: A x_j, and whole maps where they are kept.

    shapes: (C, H, W) of x_0 .. x_J.
    """
    return {
        j: Depth(
            module=f"blocks.{j}" if j else "input",
            shape=shape,
            kept={"pooled": (shape[0], POOL_SIDE, POOL_SIDE), "maps": shape},
        )
        for j, shape in enumerate(shapes)
    }


def dump_depths(
    writer: RunWriter,
    network: LayerwiseNetwork,
    dataset: Dataset,
    storage: Plan,
    in_float32: frozenset[int] = frozenset(),
    dtype: str = "auto",
) -> None:
    """Write the samples, the images where planned, and every depth of every split.

    Raises NeedsFloat32, after all batches, where depths beside `in_float32` need it.
    """
    splits, kept, size = dataset.splits, {}, dump_batch(network)
    for name, split in splits.items():
        writer.samples(name, split.label, split.index, split.files)
        if storage.images:
            kept[name] = writer.rows(layout.images(name), (len(split.label), *split.shape), np.uint8)
    counts = {name: len(split.label) for name, split in splits.items()}
    stream = DepthStream(writer, storage.depths, counts, maps=storage.maps, in_float32=in_float32, dtype=dtype)
    with exact_float32(), progress() as bar:
        task = bar.add_task("dump", total=sum(counts.values()))
        for name, split in splits.items():
            stream.begin_at(name, size * ranks.stretch(-(-len(split.label) // size)).start)
            for images, xs in depth_batches(network, split):
                if name in kept:
                    kept[name].append(images)
                stream.start_batch({name: slice(None)}, len(xs[0]))
                for j, x in enumerate(xs):
                    stream.take(j, x)
                bar.advance(task, len(xs[0]))
    stream.finish()


def dump_module(writer: RunWriter, kind: str, j: int, module: nn.Module, attributes: Mapping[str, float]) -> None:
    """Write the parameters and buffers of block j (kind "blocks") or auxiliary j, with attributes on the group."""
    writer.attributes(layout.module(kind, j), attributes)
    for name, tensor in module.state_dict().items():
        writer.array(layout.weights(kind, j, name), tensor.cpu().numpy())
