"""Owns the dump: a network's weights and what each of its depths computes, written to a run file.

Activations are computed in float32 with TF32 off and BatchNorm unfolded, and rounded once, to float16 where the
largest |x_j| over all splits fits it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from layerwise.commandline import progress
from layerwise.datasets import Dataset, Split
from layerwise.hardware import exact_float32
from layerwise.model.blocks import average
from layerwise.model.network import LayerwiseNetwork
from layerwise.runfile import layout
from layerwise.runfile.plan import Plan
from layerwise.runfile.writer import FLOAT16_MAX, POOL_SIDE, RunWriter

DUMP_BATCH = 256
NUMPY: dict[torch.dtype, type] = {torch.float16: np.float16, torch.float32: np.float32}


@torch.no_grad()
def depth_batches(network: LayerwiseNetwork, split: Split) -> Iterator[list[Tensor]]:
    """Yield [x_0, ..., x_J] for each batch of a split in order, each x_j [n, C, H, W] float32."""
    device = network.device
    for images in torch.from_numpy(split.images).split(DUMP_BATCH):
        xs = [network.normalise(images.to(device))]
        for block in network.blocks:
            xs.append(block(xs[-1]))
        yield xs


def magnitude(x: Tensor) -> Tensor:
    """Return the largest |x|, by two reductions that cost far less than the absolute value of everything."""
    return torch.maximum(x.amax(), -x.amin())


def largest_magnitudes(network: LayerwiseNetwork, splits: Mapping[str, Split], tick: Callable[[], None]) -> list[float]:
    """Return the largest |x_j| over all splits for each depth j = 0..J."""
    largest = torch.zeros(len(network.shapes), device=network.device)
    for split in splits.values():
        for xs in depth_batches(network, split):
            largest = torch.maximum(largest, torch.stack([magnitude(x) for x in xs]))
            tick()
    return largest.tolist()


def dump_depths(writer: RunWriter, network: LayerwiseNetwork, dataset: Dataset, storage: Plan) -> None:
    """Write the samples, the images where planned, and every depth of every split.

    Every depth is begun in float16. Should a value not fit it, all depths are written again, when the largest values
    are known.
    """
    batches = sum(-(-len(split.label) // DUMP_BATCH) for split in dataset.splits.values())
    with exact_float32(), progress() as bar:
        task = bar.add_task("dump", total=batches)

        def tick() -> None:
            bar.advance(task)

        for j, shape in enumerate(network.shapes):
            module = "input" if j == 0 else f"blocks.{j}"
            writer.attributes(layout.depth(j), {"module": module, "shape": np.array(shape, dtype=np.int64)})
        for name, split in dataset.splits.items():
            writer.array(layout.labels(name), split.label)
            writer.array(layout.indices(name), split.index)
            if storage.images:
                writer.array(layout.images(name), split.images)
        dtypes = [torch.float16] * len(network.shapes)
        try:
            _dump_splits(writer, network, dataset, dtypes, storage.maps, tick)
        except BeyondFloat16:
            bar.reset(task, total=2 * batches)
            largest = largest_magnitudes(network, dataset.splits, tick)
            dtypes = [torch.float16 if value <= FLOAT16_MAX else torch.float32 for value in largest]
            writer.discard(layout.DEPTHS)
            _dump_splits(writer, network, dataset, dtypes, storage.maps, tick)


class BeyondFloat16(Exception):
    """A value is larger than float16 can hold."""


def _dump_splits(
    writer: RunWriter,
    network: LayerwiseNetwork,
    dataset: Dataset,
    dtypes: Sequence[torch.dtype],
    with_maps: bool,
    tick: Callable[[], None],
) -> None:
    for name, split in dataset.splits.items():
        n = len(split.label)
        pooled, maps = [], []
        for j, ((c, h, w), dtype) in enumerate(zip(network.shapes, dtypes, strict=True)):
            kind = NUMPY[dtype]
            pooled.append(writer.rows(layout.activations(j, name, "pooled"), (n, c, POOL_SIDE, POOL_SIDE), kind))
            if with_maps:
                maps.append(writer.rows(layout.activations(j, name, "maps"), (n, c, h, w), kind))
        for xs in depth_batches(network, split):
            for j, (x, dtype) in enumerate(zip(xs, dtypes, strict=True)):
                if dtype == torch.float16 and not magnitude(x) <= FLOAT16_MAX:  # also where it is no number
                    raise BeyondFloat16
                pooled[j].append(_rounded(average(x, POOL_SIDE), dtype))
                if with_maps:
                    maps[j].append(_rounded(x, dtype))
            tick()


def _rounded(x: Tensor, dtype: torch.dtype) -> np.ndarray:
    return x.to(dtype).contiguous().cpu().numpy()


def dump_module(writer: RunWriter, kind: str, j: int, module: nn.Module, attributes: Mapping[str, float]) -> None:
    """Write the parameters and buffers of block j (kind "blocks") or auxiliary j, with attributes on the group."""
    writer.attributes(layout.module(kind, j), attributes)
    for name, tensor in module.state_dict().items():
        writer.array(layout.weights(kind, j, name), tensor.cpu().numpy())
