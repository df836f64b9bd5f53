"""The layers of a network, each call of each module, in the order in which they return.

Each module's output is read by a forward hook. A module that is called several times has a layer for each call,
numbered from 1: `relu:1`, `relu:2`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from layerwise.errors import UserError
from layerwise.extraction.axes import FIRST, LAST, Axes, chosen_axis
from layerwise.extraction.forms import Convention, Form, form_of

Visit = Callable[[str, int, Any, Any], None]


@dataclass(frozen=True)
class Layer:
    """One call of one module.

    name: of the module, with the number of the call where there are several. call: from 1. kind: the module's class.
    shape: of its output for one image; None where that is no single tensor. form: how it becomes x_j; None where it
    cannot, for the reason `problem`. is_output: whether it is what the whole network returns.
    """

    name: str
    module: str
    call: int
    kind: str
    shape: tuple[int, ...] | None
    form: Form | None
    problem: str
    is_output: bool


@contextmanager
def tapped(model: nn.Module, visit: Visit, names: set[str] | None = None) -> Iterator[None]:
    """Call visit(module name, call, inputs, output) whenever a module (one of `names`) returns, until the block ends.

    An output is to be read at once: a later module may write into it, as nn.ReLU(inplace=True) does.
    """
    calls: Counter[str] = Counter()
    handles = [model.register_forward_pre_hook(lambda module, args: calls.clear())]

    def listen(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            calls[name] += 1
            visit(name, calls[name], args, output)

        return hook

    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):  # takes no hooks, and neither do its parts
            continue
        if name and (names is None or name in names):
            handles.append(module.register_forward_hook(listen(name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def single_tensor(output: Any) -> Tensor | None:
    """Return the one tensor that an output is or holds beside Nones; None where there is none, or several."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, (tuple, list)):
        tensors = [part for part in output if part is not None]
        if len(tensors) == 1 and isinstance(tensors[0], Tensor):
            return tensors[0]
    return None


@torch.no_grad()
def trace(
    model: nn.Module, x: Tensor, convention: Convention, *, is_image: bool = False, beside: Visit | None = None
) -> list[Layer]:
    """Return every layer of `model` in the order of execution (of returning), from one pass of the inputs x [n, ...].

    Args:
        is_image: whether x is known to be [n, C, H, W]. beside: called beside, as `tapped` calls it.

    Raises UserError, with the network's own words, where it cannot take such inputs, or has no layers to be read.
    """
    modules = dict(model.named_modules())
    axes = Axes(convention.channels_last, convention.layout)
    if is_image:
        axes.know(x, FIRST)
    found: list[tuple[str, int, Any]] = []

    def visit(name: str, call: int, inputs: Any, output: Any) -> None:
        if (tensor := single_tensor(output)) is not None:
            axes.see(modules[name], inputs, tensor)
        found.append((name, call, output))
        if beside is not None:
            beside(name, call, inputs, output)

    with tapped(model, visit):
        whole = run_once(model, x)
    if not found:
        raise UserError(
            "no layer of this network can be read: it is one piece. Give the nn.Module it was made of, with a module "
            "for each layer that is to be read."
        )
    axes.settle()
    convention = replace(convention, grids=_grids(found, x, axes, convention.grids))
    times = Counter(name for name, _, _ in found)
    return [
        replace(
            _layer(modules[name], name, call, output, len(x), axes, convention),
            name=f"{name}:{call}" if times[name] > 1 else name,
            is_output=output is whole,
        )
        for name, call, output in found
    ]


def run_once(model: nn.Module, x: Tensor) -> Any:
    """Return what a network makes of inputs; raise UserError, with its own words, where it cannot take them."""
    try:
        return model(x)
    except Exception as error:  # of any kind: it is somebody else's code
        size, words = "x".join(map(str, x.shape[1:])), f"{type(error).__name__}: {_first_line(error)}"
        if x.dtype != torch.float32:
            raise UserError(
                f"the network cannot take inputs of {x.dtype}: {words}. Give float32, as networks of images take it: "
                "x.float() / 255 of uint8 images, or ToTensor in the data set."
            ) from error
        raise UserError(
            f"the network cannot take inputs of {size}: {words}. "
            "Give the size it was built for by --image-size, or build it for this one by --model-arg."
        ) from error


def _grids(
    found: list[tuple[str, int, Any]], x: Tensor, axes: Axes, known: tuple[tuple[int, int], ...]
) -> tuple[tuple[int, int], ...]:
    """Return the sizes of a network's maps, the last ones first, and then the `known` ones.

    The maps before a transformer's first block are its patches, whatever the number of tokens looks like.
    """
    sizes: dict[tuple[int, int], None] = {}
    for _, _, output in reversed(found):
        tensor = single_tensor(output)
        if tensor is not None and tensor.dim() == 4 and len(tensor) == len(x) and (axis := axes.of(tensor)) is not None:
            height, width = tensor.shape[1:3] if axis == LAST else tensor.shape[2:]
            sizes[height, width] = None
    return tuple(dict.fromkeys([*sizes, *known]))


def _layer(module: nn.Module, name: str, call: int, output: Any, n: int, axes: Axes, convention: Convention) -> Layer:
    tensor, form, problem = single_tensor(output), None, ""
    if tensor is None:
        parts = f" of {len(output)}" if isinstance(output, (tuple, list, dict)) else ""
        problem = f"returns a {type(output).__name__}{parts}, no single tensor"
    elif not tensor.is_floating_point():
        problem = f"returns {tensor.dtype}, no floating point numbers"
    elif tensor.layout != torch.strided or tensor.is_nested:
        problem = "returns a sparse or nested tensor, no dense one"
    elif tensor.dim() == 0 or len(tensor) != n:
        problem = f"has a first axis that is not that of the images ({list(tensor.shape)} for {n} images)"
    else:
        try:
            form = _form(module, tensor, axes, convention)
        except UserError as error:
            problem = str(error)
    shape = None if tensor is None else tuple(tensor.shape[1:])
    return Layer(name, name, call, type(module).__name__, shape, form, problem, False)


def _form(module: nn.Module, tensor: Tensor, axes: Axes, convention: Convention) -> Form:
    if tensor.dim() not in (3, 4):
        return form_of(tuple(tensor.shape[1:]), convention)
    axis, is_guess = chosen_axis(axes, module, tensor, convention.grids)
    own = replace(convention, channels_last=axis == LAST, width_first=axis == FIRST)
    return replace(form_of(tuple(tensor.shape[1:]), own), is_guess=is_guess and not convention.is_known)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0].rstrip(".")


def describe_layers(layers: Sequence[Layer], chosen: Sequence[Layer]) -> Iterator[str]:
    """Yield a line for each layer: its name, kind, output for one image, and how that becomes x_j; * marks `chosen`."""
    width = max(len(layer.name) for layer in layers)
    kind_width = max(len(layer.kind) for layer in layers)
    yield f"  {'name':<{width}}  {'kind':<{kind_width}}  {'output':<15}  read as"
    for layer in layers:
        shape = " x ".join(map(str, layer.shape)) if layer.shape is not None else "-"
        read = layer.problem if layer.form is None else layer.form.kind
        mark = "*" if layer in chosen else " "
        yield f"{mark} {layer.name:<{width}}  {layer.kind:<{kind_width}}  {shape:<15}  {read}"
