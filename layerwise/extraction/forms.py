"""A layer's output as x_j: maps [n, C, H, W], whatever axes the layer itself uses.

Maps stay as they are. Tokens x width become maps of the patch tokens where their grid is known, and their mean where it
is not; the class token is taken apart. A vector is a map of one pixel, and so its own average A x_j.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from layerwise.errors import UserError, option, unknown
from layerwise.extraction.axes import LAST, axis_by_sides
from layerwise.runfile.depths import Depth
from layerwise.runfile.layout import POOL_SIDE

TOKENS = ("patch", "class", "mean")
LAYOUTS = ("auto", "channels-first", "channels-last")
EXPLICIT = re.compile(r"(\d+)\+(\d+)x(\d+)")  # 1+14x16: a class token, then 14 x 16 patches
# What a file says of each depth.
MAPS, CHANNELS_LAST, GRID, MEAN, CLASS, VECTOR = (
    "maps", "maps, channels last", "patch tokens", "mean of tokens", "class token", "vector",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Convention:
    """How a network orders its axes and tokens.

    channels_last: whether its 4-dimensional outputs are [n, H, W, C], but for layers that say otherwise. is_known:
        whether that is what its makers say, and no guess. width_first: whether a 3-dimensional output is
        [n, width, tokens]. layout: "auto", or what a user says of all layers.
    prefix: how many tokens stand before the patch tokens, the class token first among them; None where that is not
        known: then none or a class token, whichever leaves a grid.
    has_class_token: whether the first of those tokens is a class token.
    tokens: "patch", "class" to take the class token as x_j, "mean" for the mean of the patches, or "K+HxW": K tokens,
        then patches on a grid of H x W.
    grids: heights and widths that patches may form, the likeliest first; () where no image is known, and then any
        square.
    """

    channels_last: bool = False
    is_known: bool = False
    width_first: bool = False
    layout: str = "auto"
    prefix: int | None = None
    has_class_token: bool = True
    tokens: str = "patch"
    grids: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Form:
    """One layer's way to x_j.

    kind: what the file calls it; shape: (C, H, W) of x_j; prefix: tokens before the patch tokens; has_class_token:
    whether a class token is kept apart from x_j. is_guess: whether nothing told where channels stand.
    """

    kind: str
    shape: tuple[int, int, int]
    prefix: int = 0
    has_class_token: bool = False
    is_guess: bool = False

    @property
    def reading(self) -> str:
        """What was taken for channels, tokens and grid, in words."""
        channels, height, width = self.shape
        guess = ", a guess" if self.is_guess else ""
        if self.kind in (MAPS, CHANNELS_LAST):
            return f"channels {'last' if self.kind == CHANNELS_LAST else 'first'}{guess}"
        before = f"{self.prefix} token{'s' * (self.prefix != 1)}, the class token first, + " if self.prefix else ""
        if not self.has_class_token:
            before = before.replace(", the class token first,", "")
        if self.kind == GRID:
            return f"{before}{height} x {width} patches of width {channels}"
        if self.kind == MEAN:
            return f"{before}the mean of tokens of width {channels}"
        return f"{self.kind} of width {channels}"

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
            return output if output.dim() == 4 else output.reshape(len(output), *self.shape)
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
    if convention.width_first:  # a map of one row, or one that was flattened
        height, width = next((grid for grid in convention.grids if grid[0] * grid[1] == shape[1]), (1, shape[1]))
        return Form(kind=MAPS, shape=(shape[0], height, width))
    return _form_of_tokens(shape[0], shape[1], convention)


def form_of_array(shape: tuple[int, ...], convention: Convention) -> Form:
    """Return the form of an array made elsewhere, of which only its shape for one sample is known."""
    if len(shape) == 2 and convention.layout == "channels-first":
        return form_of(shape, replace(convention, width_first=True))
    if len(shape) != 3 or 0 in shape:
        return form_of(shape, convention)
    axis = axis_by_sides(shape, convention.grids)
    is_last = convention.layout == "channels-last" or (convention.layout == "auto" and axis == LAST)
    form = form_of(shape, replace(convention, channels_last=is_last))
    return replace(form, is_guess=axis is None and convention.layout == "auto")


def check_reading(tokens: str, layout: str) -> None:
    """Raise UsageError unless the words say how tokens and axes are read."""
    if tokens not in TOKENS and not EXPLICIT.fullmatch(tokens):
        raise unknown(option("tokens"), tokens, (*TOKENS, "K+HxW (K tokens before H x W patches, such as 1+14x16)"))
    if layout not in LAYOUTS:
        raise unknown(option("layout"), layout, LAYOUTS)


def grids_of(height: int, width: int) -> tuple[tuple[int, int], ...]:
    """Return the grids of patches, or sizes of maps, that divide an image, the largest first."""
    divisors = [side for side in range(1, math.gcd(height, width) + 1) if height % side == width % side == 0]
    return tuple((height // side, width // side) for side in divisors)


def _form_of_tokens(count: int, width: int, convention: Convention) -> Form:
    prefix, grid = next(_readings(count, convention), (convention.prefix or 0, None))
    has_class_token = convention.has_class_token and 0 < prefix <= count
    if convention.tokens == "class":
        if not has_class_token:
            raise UserError(f"has {count} tokens and no class token among them, as {option('tokens', 'class')} needs")
        return Form(kind=CLASS, shape=(width, 1, 1))
    if count - prefix < 1:
        raise UserError(
            f"has {count} tokens, all of them before the patch tokens; {option('tokens', 'class')} reads the first"
        )
    if grid is None or convention.tokens == "mean":
        return Form(kind=MEAN, shape=(width, 1, 1), prefix=prefix, has_class_token=has_class_token)
    return Form(kind=GRID, shape=(width, *grid), prefix=prefix, has_class_token=has_class_token)


def _readings(count: int, convention: Convention) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield how many tokens may stand before which grid of patches, the likeliest first.

    The number of tokens alone does not tell: a class token and 3 x 5 patches are as many as 4 x 4. So grids of the
    network's own maps and image come first, and squares only where no image, or a square one, is known.
    """
    # Before the class token joins, a layer has none of the tokens that the network says it has.
    prefixes = (0, 1) if convention.prefix is None else dict.fromkeys((convention.prefix, 0))
    if told := EXPLICIT.fullmatch(convention.tokens):
        before, height, width = map(int, told.groups())
        yield from ((prefix, (height, width)) for prefix in (before, 0) if count - prefix == height * width)
    for grid in convention.grids:
        yield from ((prefix, grid) for prefix in prefixes if count - prefix == grid[0] * grid[1])
    if all(height == width for height, width in convention.grids):
        for prefix in prefixes:
            side = math.isqrt(max(0, count - prefix))
            if side and side**2 == count - prefix:
                yield prefix, (side, side)


def describe_readings(forms: Iterable[tuple[str, Form]]) -> Iterator[str]:
    """Yield what was taken for channels, tokens and grid, with the names of the layers that are read so."""
    alike: dict[str, list[str]] = {}
    for name, form in forms:
        alike.setdefault(form.reading, []).append(name)
    for reading, names in alike.items():
        overruled = f" ({option('layout')} overrules it)" if reading.endswith("a guess") else ""
        yield f"{reading}{overruled}: {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
