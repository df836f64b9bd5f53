"""Owns which layers of a network become depths: their names, in the order in which they return, and patterns of them.

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
from layerwise.extraction.forms import Axes, Convention, Form, form_of

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
def trace(model: nn.Module, x: Tensor, convention: Convention) -> list[Layer]:
    """Return every layer of `model` in the order of execution (of returning), from one pass of the inputs x [n, ...].

    Raises UserError, with the network's own words, where it cannot take such inputs.
    """
    modules = dict(model.named_modules())
    axes = Axes(convention.channels_last)
    found: list[tuple[Layer, Any]] = []

    def visit(name: str, call: int, inputs: Any, output: Any) -> None:
        own = replace(convention, channels_last=axes.are_last(modules[name], inputs, single_tensor(output)))
        found.append((_layer(name, call, type(modules[name]).__name__, output, len(x), own), output))

    with tapped(model, visit):
        try:
            whole = model(x)
        except Exception as error:  # of any kind: it is somebody else's code
            size = "x".join(map(str, x.shape[1:]))
            raise UserError(
                f"the network cannot take inputs of {size}: {type(error).__name__}: {_first_line(error)}. "
                "Give the size it was built for by --image-size, or build it for this one by --model-arg."
            ) from error
    times = Counter(layer.module for layer, _ in found)
    layers = []
    for layer, output in found:
        name = f"{layer.module}:{layer.call}" if times[layer.module] > 1 else layer.module
        layers.append(replace(layer, name=name, is_output=output is whole))
    return layers


def _layer(name: str, call: int, kind: str, output: Any, n: int, convention: Convention) -> Layer:
    tensor, form, problem = single_tensor(output), None, ""
    if tensor is None:
        parts = f" of {len(output)}" if isinstance(output, (tuple, list, dict)) else ""
        problem = f"returns a {type(output).__name__}{parts}, no single tensor"
    elif not tensor.is_floating_point():
        problem = f"returns {tensor.dtype}, no floating point numbers"
    elif tensor.dim() == 0 or len(tensor) != n:
        problem = f"has a first axis that is not that of the images ({list(tensor.shape)} for {n} images)"
    else:
        try:
            form = form_of(tuple(tensor.shape[1:]), convention)
        except UserError as error:
            problem = str(error)
    shape = None if tensor is None else tuple(tensor.shape[1:])
    return Layer(name, name, call, kind, shape, form, problem, False)


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
