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

from layerwise.config import NetworkConfig, RunConfig
from layerwise.datasets import Sizes
from layerwise.model.architectures import Shape, network_shapes
from layerwise.model.counts import FLOAT_BYTES, count_problems, measure
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


class Maps:
    """Values of the maps of one image: volumes[j] of x_j, trained[j] of x_j before block j is pruned."""

    def __init__(self, network: NetworkConfig, image: Shape, n_classes: int):
        self.network = network
        self.n_classes = n_classes
        self.problems = [problem.trained for problem in count_problems(network, image, n_classes)]
        self.volumes = [prod(s) for s in network_shapes(network, image)]
        self.trained = [self.volumes[0], *(prod(problem.shape) for problem in self.problems)]
        # A convolution's output is kept beside relu's where BatchNorm stands between them.
        self.copies = 2 if network.has_batch_norm else 1

    def kept(self, first: int, last: int) -> int:
        """Return the values kept for backward by blocks first..last with auxiliary `last`."""
        blocks = range(first, last + 1)
        unshuffled = sum(self.volumes[j - 1] for j in blocks if j in self.network.downsample and j > first)
        maps = self.volumes[first - 1] + unshuffled + self.copies * sum(self.trained[j] for j in blocks)
        hidden = (self.network.k - 1) * self.copies * self.auxiliary_volume(last)
        if self.network.aux_halving:  # x_j averaged
            hidden += self.trained[last] // 4
        return maps + hidden + self.copies * self._features(last) + self.n_classes

    def auxiliary_volume(self, j: int) -> int:
        """Return the values of one hidden layer of auxiliary j."""
        problem = self.problems[j - 1]
        height, width = (side // 2 if self.network.aux_halving else side for side in problem.shape[1:])
        return problem.aux_width * height * width

    def _features(self, j: int) -> int:
        problem = self.problems[j - 1]
        channels = problem.aux_width if self.network.k > 1 else problem.shape[0]
        return channels * self.network.average**2

    def largest(self, first: int, last: int) -> int:
        """Return the values of the largest maps that blocks first..last and auxiliary `last` compute."""
        hidden = [self.auxiliary_volume(last)] if self.network.k > 1 else []
        return max(self.trained[first : last + 1] + hidden)

    def forward(self, last: int) -> int:
        """Return the most values alive at once while blocks 1..last and their auxiliaries run without gradients."""
        layers = [(self.volumes[j - 1], self.trained[j]) for j in range(1, last + 1)]
        if self.network.k > 1:
            layers += [(self.trained[j], self.auxiliary_volume(j)) for j in range(1, last + 1)]
        return max(before + (self.copies + 1) * after for before, after in layers)


class MeasuredMaps:
    """The same for blocks without a formula, by what autograd saves of them (layerwise.model.counts)."""

    copies = 2

    def __init__(self, network: NetworkConfig, image: Shape, n_classes: int):
        self.problems = count_problems(network, image, n_classes)
        self.volumes = [prod(shape) for shape in network_shapes(network, image)]
        self._counts = measure(network, image, n_classes)

    def kept(self, first: int, last: int) -> int:
        """Return the values kept for backward by blocks first..last with auxiliary `last`."""
        blocks = sum(block.saved for block, _ in self._counts[first - 1 : last])
        return blocks + self._counts[last - 1][1].saved

    def largest(self, first: int, last: int) -> int:
        """Return the values of the largest maps that blocks first..last and auxiliary `last` compute."""
        blocks = [block.largest for block, _ in self._counts[first - 1 : last]]
        return max(*blocks, self._counts[last - 1][1].largest)

    def forward(self, last: int) -> int:
        """Return the most values alive at once while blocks 1..last and their auxiliaries run without gradients."""
        return max((self.copies + 1) * self.largest(j, j) for j in range(1, last + 1))


def forecast_memory(config: RunConfig, sizes: Sizes, *, streamed: bool = False) -> Memory:
    """Return the estimate for a run; streamed: whether its images stay in their files, but for those read ahead."""
    kind = Maps if config.network.architecture == "plain" else MeasuredMaps
    maps: Maps | MeasuredMaps = kind(config.network, sizes.image, sizes.n_classes)
    depth, most = config.network.depth, max(sizes.counts.values())
    phases = _training(config, maps, sizes.train)
    phases["evaluation"] = FLOAT_BYTES * min(EVALUATION_BATCH, most) * maps.forward(depth)
    at_once = sum(maps.volumes) + maps.copies * max(maps.volumes)
    phases["the dump"] = FLOAT_BYTES * min(DUMP_BATCH, most) * at_once
    # Read ahead are two of the largest batches, and one is used.
    images = 3 * min(EVALUATION_BATCH, most) if streamed else sizes.total
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
