"""The estimate of peak memory, from shapes alone.

Counted, on the device that trains: the images and labels of every split; all parameters and buffers; the output of the
frozen blocks where it is kept (in other memory or on the disk if it does not fit); for the phase that needs most,
either one training step (gradients, momentum, maps kept for backward, and two gradients of the largest maps) or one
batch without gradients. Not counted: Python and its libraries, the workspace of convolutions, and memory that the
allocator holds in reserve.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from layerwise.config import RunConfig
from layerwise.datasets import Sizes
from layerwise.model.counts import FLOAT_BYTES, count_problems
from layerwise.model.maps import Maps, MeasuredMaps, maps_of, rows_within
from layerwise.training.batches import EVALUATION_BATCH
from layerwise.training.dump import DUMP_BATCH
from layerwise.training.prefix import AT_ONCE
from layerwise.training.stage_batches import kept_bytes

LABEL_BYTES = 16  # label and index of an image, both int64


@dataclass(frozen=True)
class Memory:
    """Peak memory in bytes: of the data set, of all weights, and for each phase what it adds.

    kept: bytes of the frozen blocks' output; 0 where it is recomputed.
    """

    data: int
    weights: int
    phases: dict[str, int]
    kept: int = 0

    @property
    def phase(self) -> str:
        """The phase that needs most."""
        return max(self.phases, key=self.phases.__getitem__)

    @property
    def total(self) -> int:
        """Bytes of data set, weights, what is kept, and the phase that needs most."""
        return self.data + self.weights + self.kept + self.phases[self.phase]


def forecast_memory(config: RunConfig, sizes: Sizes, *, streamed: bool = False) -> Memory:
    """Return the estimate for a run; streamed: whether its images stay in their files, but for those read ahead."""
    maps = maps_of(config.network, sizes.image, sizes.n_classes)
    depth, most = config.network.depth, max(sizes.counts.values())
    phases = _training(config, maps, sizes.train)
    evaluated = rows_within(min(EVALUATION_BATCH, most), maps.forward(depth))
    phases["evaluation"] = FLOAT_BYTES * evaluated * maps.forward(depth)
    phases["the dump"] = FLOAT_BYTES * rows_within(min(DUMP_BATCH, most), maps.dumped) * maps.dumped
    # Read ahead are two of the largest batches, and one is used.
    images = 3 * max(evaluated, config.training.batch_size) if streamed else sizes.total
    data = images * prod(sizes.image) + sizes.total * LABEL_BYTES
    weights = sum(p.block.nbytes + p.auxiliary.nbytes for p in maps.problems)
    if config.network.prune_to:  # the weights before pruning are kept until they are scored
        pruned = count_problems(config.network, sizes.image, sizes.n_classes)
        weights += sum(p.block.nbytes + p.auxiliary.nbytes for p in pruned)
    kept = kept_bytes(config, sizes) if config.training.prefix == "cache" else 0
    return Memory(data, weights, phases, kept)


def _training(config: RunConfig, maps: Maps | MeasuredMaps, n_train: int) -> dict[str, int]:
    """Return the bytes of a training step for each auxiliary problem that the mode solves."""
    if config.mode == "untrained":
        return {}
    first_trained = config.network.first_trained
    every = range(first_trained, config.network.depth + 1)
    cfg = config.training
    batch = min(cfg.batch_size, n_train)
    is_adamw = cfg.optimizer == "adamw"
    # Beside each weight: its gradient, the gradient's running mean, adamw's running square, the averaged weight.
    states = sum([True, is_adamw or cfg.momentum > 0, is_adamw, cfg.averages])
    map_bytes = FLOAT_BYTES // 2 if config.precision == "bf16" else FLOAT_BYTES
    spans = [(first_trained, config.network.depth)] if config.mode == "end-to-end" else [(j, j) for j in every]
    found = {}
    # x_0 of the batches that are made at once, in float32 twice while it is made.
    made = 2 * FLOAT_BYTES * max(batch * maps.volumes[0], min(AT_ONCE, n_train * maps.volumes[0]))
    for first, last in spans:
        # In parallel training all problems have optimizers at once, but activations one after another.
        blocks = every if config.mode == "parallel" else range(first, last + 1)
        learned = sum(maps.problems[j - 1].block.parameters for j in blocks)
        auxiliaries = every if config.mode == "parallel" else (last,)
        learned += sum(maps.problems[j - 1].auxiliary.parameters for j in auxiliaries)
        step = maps.kept(first, last) + 2 * maps.largest(first, last)
        kept = map_bytes * batch * max(step, maps.forward(last))
        found[f"training block {last}"] = FLOAT_BYTES * states * learned + kept + made
        if config.network.prune_to:  # in float32; fine-tuning takes less than training did
            found[f"pruning block {last}"] = FLOAT_BYTES * batch * max(step, maps.forward(last))
    return found
