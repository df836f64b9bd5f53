"""Owns what a layer's output is as x_j: maps [n, C, H, W], whatever axes the layer itself uses.

Maps stay as they are. Tokens x width become maps of the patch tokens where those form a square grid, and their mean
where they do not; the class token is taken apart. A vector is a map of one pixel, and so its own average A x_j.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from layerwise.errors import UserError
from layerwise.runfile.depths import Depth
from layerwise.runfile.layout import POOL_SIDE

TOKENS = ("patch", "class")
# What a file says of each depth.
MAPS, CHANNELS_LAST, GRID, MEAN, CLASS, VECTOR = (
    "maps", "maps, channels last", "patch tokens", "mean of tokens", "class token", "vector",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Convention:
    """How a network orders its axes and tokens.

    channels_last: whether its 4-dimensional outputs are [n, H, W, C], but for layers whose kind says otherwise.
    prefix: how many tokens stand before the patch tokens, the class token first among them; None where that is not
        known: then none if the number of tokens is a square, one class token if it is a square and one.
    has_class_token: whether the first of those tokens is a class token.
    tokens: "patch", or "class" to take the class token as x_j.
    """

    channels_last: bool = False
    prefix: int | None = None
    has_class_token: bool = True
    tokens: str = "patch"


@dataclass(frozen=True, kw_only=True)
class Form:
    """One layer's way to x_j.

    kind: what the file calls it; shape: (C, H, W) of x_j; prefix: tokens before the patch tokens; has_class_token:
    whether a class token is kept apart from x_j.
    """

    kind: str
    shape: tuple[int, int, int]
    prefix: int = 0
    has_class_token: bool = False

    @property
    def pooled_shape(self) -> tuple[int, int, int]:
        """Shape of A x_j: [C, 2, 2], but a side of one pixel stays one pixel."""
        channels, height, width = self.shape
        return channels, min(POOL_SIDE, height), min(POOL_SIDE, width)

    @property
    def is_its_own_average(self) -> bool:
        """Whether A changes nothing, so that whole maps need not be kept beside A x_j."""
        return self.pooled_shape == self.shape

    def maps(self, output: Tensor) -> Tensor:
        """Return x_j [n, C, H, W] of the layer's output for n images."""
        if self.kind == MAPS:
            return output
        if self.kind == CHANNELS_LAST:
            return output.permute(0, 3, 1, 2)
        if self.kind == GRID:
            return output[:, self.prefix :].transpose(1, 2).reshape(len(output), *self.shape)
        if self.kind == MEAN:
            return output[:, self.prefix :].mean(1)[:, :, None, None]
        if self.kind == CLASS:
            return output[:, 0][:, :, None, None]
        return output[:, :, None, None]

    def class_token(self, output: Tensor) -> Tensor | None:
        """Return the class token [n, C] that is kept apart, if there is one."""
        return output[:, 0] if self.has_class_token else None

    def depth(self, module: str, source_shape: tuple[int, ...]) -> Depth:
        """Return what a run file holds of this layer, whose own output for one sample has `source_shape`."""
        kept: dict[str, tuple[int, ...]] = {"pooled": self.pooled_shape}
        if not self.is_its_own_average:
            kept["maps"] = self.shape
        if self.has_class_token:
            kept["class_token"] = (self.shape[0],)
        facts: dict[str, Any] = {"form": self.kind, "source_shape": np.array(source_shape, dtype=np.int64)}
        if self.kind in (GRID, MEAN):
            facts["prefix_tokens"] = np.int64(self.prefix)
        return Depth(module=module, shape=self.shape, kept=kept, facts=facts)


def form_of(shape: tuple[int, ...], convention: Convention) -> Form:
    """Return the form of an output whose shape, without the first axis of n images, is `shape`.

    Raises UserError for a shape that is none of maps, tokens x width and vector, or that lacks a class token asked for.
    """
    if not 1 <= len(shape) <= 3 or 0 in shape:
        raise UserError(
            f"has an output of n x {' x '.join(map(str, shape)) or '(nothing)'}, but maps (n x C x H x W), tokens "
            "(n x tokens x width) or a vector (n x d) are needed"
        )
    if len(shape) == 3:
        height, width, channels = shape if convention.channels_last else (*shape[1:], shape[0])
        return Form(kind=CHANNELS_LAST if convention.channels_last else MAPS, shape=(channels, height, width))
    if len(shape) == 1:
        return Form(kind=VECTOR, shape=(shape[0], 1, 1))
    return _form_of_tokens(shape[0], shape[1], convention)


def _form_of_tokens(count: int, width: int, convention: Convention) -> Form:
    prefix = convention.prefix
    if prefix and _is_square(count) and not _is_square(count - prefix):
        prefix = 0  # a layer before the class token joins
    if prefix is None:
        prefix = int(not _is_square(count) and _is_square(count - 1))
    has_class_token = convention.has_class_token and 0 < prefix <= count
    if convention.tokens == "class":
        if not has_class_token:
            raise UserError(f"has {count} tokens and no class token among them, as --tokens class needs")
        return Form(kind=CLASS, shape=(width, 1, 1))
    patches = count - prefix
    if patches < 1:
        raise UserError(f"has {count} tokens, all of them before the patch tokens; --tokens class reads the first")
    if _is_square(patches):
        side = math.isqrt(patches)
        return Form(kind=GRID, shape=(width, side, side), prefix=prefix, has_class_token=has_class_token)
    return Form(kind=MEAN, shape=(width, 1, 1), prefix=prefix, has_class_token=has_class_token)


def _is_square(number: int) -> bool:
    return number > 0 and math.isqrt(number) ** 2 == number


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
