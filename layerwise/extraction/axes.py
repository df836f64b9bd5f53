"""Where channels stand in what each layer of one pass returns, found from what the layers around it say.

A convolution has its channels on axis 1, whatever the network around it does; a LayerNorm over one axis has them last.
Most other modules say nothing of themselves. What they return is then followed: through views (a permutation keeps the
stride of the channels), through copies of permutations, and to the layer that reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

FIRST, LAST = 1, -1  # the axis of channels
# Layers that put channels first whatever the network around them does.
CHANNELS_FIRST = (
    nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.InstanceNorm1d,
    nn.InstanceNorm2d, nn.GroupNorm, nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.PixelShuffle, nn.PixelUnshuffle,
)  # fmt: skip
ORDERS = {4: ((0, 2, 3, 1), (0, 3, 1, 2)), 3: ((0, 2, 1),)}


class Axes:
    """The axis of channels of what the layers of one pass return, as far as it can be known.

    Args:
        default: whether the network's stages put channels last, where nothing else tells.
        layout: "auto", or what a user says of all layers but those that can only be otherwise.
    """

    def __init__(self, default: bool, layout: str = "auto"):
        self.default, self.layout = default, layout
        # Each holds on to the tensors, so that the id and the memory of one are never those of another.
        self._seen: list[tuple[nn.Module, Tensor | None, Tensor]] = []
        self._known: dict[int, tuple[Tensor, int]] = {}
        self._by_memory: dict[int, list[Tensor]] = {}

    def know(self, x: Tensor, axis: int) -> None:
        """Take the axis of channels of a tensor, such as the network's input, for known."""
        self._known[id(x)] = x, axis
        self._by_memory.setdefault(x.data_ptr(), []).append(x)

    def are_last(self, module: nn.Module, inputs: Any, output: Tensor | None) -> bool:
        """Return whether `output` of a module has its channels last, as far as the pass tells until now."""
        if output is None:
            return self.default
        self.see(module, inputs, output)
        axis = self.of(output)
        return self.default if axis is None else axis == LAST

    def see(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        """Take note of what a module returned: it may tell its own axes, and those of what it read."""
        x = inputs[0] if inputs and isinstance(inputs[0], Tensor) else None
        if x is not None and self.of(x) is None and (asked := _asked_of_input(module, x)) is not None:
            self.know(x, asked)
        before = None if x is None else self.of(x)
        axis = _own_axis(module, before, output)
        if axis is None:
            axis = self.of(output)
        if axis is None and x is not None and before is not None:
            axis = _after(module, x, before, output)
        if axis is None:
            axis = self._of_parts(module, before, output)
        self._seen.append((module, x, output))
        if axis is not None:
            self.know(output, axis)

    def settle(self) -> None:
        """After a pass, let what keeps its shape have the axes of what it read, and the other way round."""
        for order in (list(self._seen), self._seen[::-1]):
            for _, x, output in order:
                if x is None or x.shape != output.shape:
                    continue
                before, after = self.of(x), self.of(output)
                if after is None and before is not None:
                    self.know(output, before)
                if before is None and after is not None:
                    self.know(x, after)

    def of(self, tensor: Tensor) -> int | None:
        """Return the axis of channels of a tensor of this pass, FIRST or LAST; None where nothing tells."""
        if id(tensor) in self._known:
            return self._known[id(tensor)][1]
        for known in reversed(self._by_memory.get(tensor.data_ptr(), ())):
            if known.numel() == tensor.numel() > 0:
                return _axis_in_view(known, self._known[id(known)][1], tensor)
        return None

    def _of_parts(self, module: nn.Module, before: int | None, output: Tensor) -> int | None:
        """Return the axis of the last part of a module that returned something of the shape of its output.

        Where several such parts differ, the module's input decides: a residual sum has the axes of what it adds to.
        """
        parts = set(module.modules()) - {module}
        like = [y for part, _, y in self._seen if part in parts and y.shape == output.shape]
        told = [axis for axis in map(self.of, like) if axis is not None]
        if before in told:
            return before
        return told[-1] if told else None


def chosen_axis(axes: Axes, module: nn.Module, output: Tensor, grids: Sequence[tuple[int, int]]) -> tuple[int, bool]:
    """Return the axis of channels of an output, and whether that is a guess.

    A user's layout comes before all but what a layer's kind leaves no choice in. Where nothing tells, sides that are
    those of an image's maps do, and at last the network's habit.

    Args:
        grids: height and width that maps of this network may have; () where nothing is known.
    """
    own, told = _own_axis(module, None, output), axes.of(output)
    if axes.layout != "auto" and output.dim() == 4 and not isinstance(module, CHANNELS_FIRST):
        return (LAST if axes.layout == "channels-last" else FIRST), False
    if axes.layout != "auto" and output.dim() == 3 and told is None:
        return (LAST if axes.layout == "channels-last" else FIRST), False
    if told is not None or own is not None:
        return told or own or FIRST, False
    if output.dim() == 3:
        return LAST, True
    by_sides = axis_by_sides(tuple(output.shape[1:]), grids) if output.dim() == 4 else None
    return (LAST if axes.default else FIRST, True) if by_sides is None else (by_sides, False)


def axis_by_sides(shape: Sequence[int], grids: Sequence[tuple[int, int]]) -> int | None:
    """Return the axis of channels of maps [a, b, c] of which either a x b or b x c can be height and width.

    Where no grid is known, only equal sides can be: few maps are of 7 x 512 pixels.
    """
    known = set(grids)
    first, last = ((a, b) in known if known else a == b for a, b in (shape[1:], shape[:2]))
    if first == last:
        return None
    return FIRST if first else LAST


def _own_axis(module: nn.Module, before: int | None, output: Tensor) -> int | None:
    """Return the axis of channels that a layer of this kind has whatever stands before it; None where it is open."""
    from torchvision.ops import Permute

    if isinstance(module, CHANNELS_FIRST):
        return FIRST
    if isinstance(module, Permute):
        return {(0, 2, 3, 1): LAST, (0, 3, 1, 2): FIRST}.get(tuple(module.dims))
    if isinstance(module, nn.Linear):  # acts on the last axis, whatever it is
        return LAST if before is None else before
    if isinstance(module, nn.MultiheadAttention) and module.batch_first:
        return LAST
    return _axis_of_norm(module, output)


def _axis_of_norm(module: nn.Module, output: Tensor) -> int | None:
    """Return the axis of channels of a LayerNorm, or of what calls its widths as one does; None for other modules.

    torchvision's and timm's LayerNorm2d normalise axis 1 by permuting by themselves; the shape tells where it can.
    """
    widths = getattr(module, "normalized_shape", None)
    if not isinstance(widths, (tuple, list, int)) or output.dim() not in (3, 4):
        return None
    widths = (widths,) if isinstance(widths, int) else tuple(widths)
    if type(module) is nn.LayerNorm:  # over the last axes, which are channels where it is one
        return LAST if len(widths) == 1 else FIRST if len(widths) == output.dim() - 2 else None
    first, last = output.shape[1] == widths[0], output.shape[-1] == widths[0]
    if first != last:
        return FIRST if first else LAST
    says_first = "2d" in type(module).__name__.lower() or getattr(module, "data_format", "") == "channels_first"
    return FIRST if says_first else LAST


def _asked_of_input(module: nn.Module, x: Tensor) -> int | None:
    """Return where a layer of this kind needs the channels of what it reads; None where it does not tell."""
    if x.dim() not in (3, 4):
        return None
    return FIRST if isinstance(module, CHANNELS_FIRST) else _own_axis(module, None, x)


def _after(module: nn.Module, x: Tensor, before: int, output: Tensor) -> int | None:
    """Return the axis of channels behind a module that only moves axes, or that has no parts and keeps the shape."""
    if x.dim() == output.dim() and not (x.shape == output.shape and torch.equal(x, output)):
        for order in ORDERS.get(x.dim(), ()):
            moved = x.permute(order)
            if output.shape == moved.shape and torch.equal(output, moved):
                return _named(order.index(before % x.dim()), output)
    is_plain = not any(True for _ in module.children())
    return before if is_plain and x.shape == output.shape else None


def _axis_in_view(known: Tensor, axis: int, view: Tensor) -> int | None:
    """Return the axis of a view of all of a tensor that has the stride and size of its axis of channels."""
    wanted = known.shape[axis], known.stride(axis)
    found = [place for place in range(1, view.dim()) if (view.shape[place], view.stride(place)) == wanted]
    if len(found) != 1 or view.dim() not in (3, 4):
        return None
    return _named(found[0], view)


def _named(place: int, tensor: Tensor) -> int | None:
    return FIRST if place == FIRST else LAST if place == tensor.dim() - 1 else None
