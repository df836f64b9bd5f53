"""The maps of one image, counted in values: what a pass takes of memory, and how many images therefore make a batch."""

from __future__ import annotations

from math import prod

from layerwise.config import NetworkConfig
from layerwise.model.architectures import Shape, network_shapes
from layerwise.model.counts import FLOAT_BYTES, count_problems, measure

# Most that the maps of a batch without gradients take. The published networks on CIFAR-10 take up to 1.9 GB of 512
# images, and their batches are to stay as they were: in another size of batch convolutions may round otherwise, and
# then every digest would be another. Those of ImageNet took 20 to 23 GB, which is what this bounds.
BATCH_BYTES = 2 * 10**9


def rows_within(most: int, values: int) -> int:
    """Return how many images a batch has: `most`, or fewer, whose maps of so many float32 values fit BATCH_BYTES."""
    return max(1, min(most, BATCH_BYTES // (FLOAT_BYTES * max(1, values))))


def maps_of(network: NetworkConfig, image: Shape, n_classes: int) -> Maps | MeasuredMaps:
    """Return the maps that a network makes of images of shape (C, H, W)."""
    return (Maps if network.architecture == "plain" else MeasuredMaps)(network, image, n_classes)


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

    @property
    def dumped(self) -> int:
        """The values alive at once while all of x_0 .. x_J are computed and kept."""
        return sum(self.volumes) + self.copies * max(self.volumes)


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

    @property
    def dumped(self) -> int:
        """The values alive at once while all of x_0 .. x_J are computed and kept."""
        return sum(self.volumes) + self.copies * max(self.volumes)
