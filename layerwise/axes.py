"""Owns where channels stand in what each layer of a network returns: first, [n, C, H, W], or last, [n, H, W, C].

Networks mix the two: ConvNeXt permutes within its blocks, Swin before and behind its stages.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

# Layers that put channels first whatever the network around them does.
CHANNELS_FIRST = (
    nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm, nn.MaxPool2d, nn.AvgPool2d,
    nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d,
)  # fmt: skip


class Axes:
    """Where channels stand in what each layer of one pass returns: as its kind says, else its input, else the network.

    A layer without layers of its own that keeps the shape (an activation, dropout, a scale) keeps the axes; so does one
    that returns what a layer within it returned, as nn.Sequential does.

    Args:
        default: whether the network's other layers, its stages above all, put channels last.
    """

    def __init__(self, default: bool):
        self.default = default
        self._known: dict[int, tuple[Tensor, bool]] = {}  # by id, which the tensor kept beside it holds on to

    def are_last(self, module: nn.Module, inputs: Any, output: Tensor | None) -> bool:
        """Return whether `output` of a module is [n, H, W, C], if it has four axes."""
        if output is None:
            return self.default
        found = _puts_channels_last(module)
        if found is None:
            found = self._of(output)
        if found is None and self._passes(module, inputs, output):
            found = self._of(inputs[0])
        is_last = self.default if found is None else found
        self._known[id(output)] = output, is_last
        return is_last

    def _of(self, tensor: Tensor) -> bool | None:
        return self._known[id(tensor)][1] if id(tensor) in self._known else None

    @staticmethod
    def _passes(module: nn.Module, inputs: Any, output: Tensor) -> bool:
        is_plain = not any(True for _ in module.children())
        return is_plain and bool(inputs) and isinstance(inputs[0], Tensor) and inputs[0].shape == output.shape


def _puts_channels_last(module: nn.Module) -> bool | None:
    """Return whether the 4-dimensional output of a layer of this kind is [n, H, W, C]; None where the kind is mute.

    torchvision's and timm's LayerNorm2d are LayerNorms that permute by themselves.
    """
    from torchvision.ops import Permute

    if isinstance(module, CHANNELS_FIRST):
        return False
    if isinstance(module, nn.LayerNorm):
        return "2d" not in type(module).__name__.lower()
    if isinstance(module, Permute):
        return {(0, 2, 3, 1): True, (0, 3, 1, 2): False}.get(tuple(module.dims))
    return True if isinstance(module, nn.Linear) else None  # which acts on the last axis, whatever it is
