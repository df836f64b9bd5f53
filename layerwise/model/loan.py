"""A user's network on loan: in eval mode while it is read, and given back as it was, on its own device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn

from layerwise.errors import UserError
from layerwise.model.seeds import own_random_stream


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the network within torch.compile and data parallelism, whose layers have the names it gave them."""
    while True:
        if isinstance(model, torch._dynamo.OptimizedModule):
            model = model._orig_mod
        elif isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        else:
            return model


@contextmanager
def on_loan(model: nn.Module, *, settles: bool) -> Iterator[nn.Module]:
    """Yield a network in eval mode; afterwards modes, device, buffers and random streams are as before.

    It may be in the middle of its training: gradients stay where they are, and no parameter is touched.

    Args:
        settles: whether its buffers may keep what the block writes into them, as those of an untrained BatchNorm do.
    """
    modes = [(part, part.training) for part in model.modules()]
    kept = {} if settles else {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    homes = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    try:
        with own_random_stream():
            yield model.eval()
    finally:
        if len(homes) == 1:
            model.to(homes.pop())
        for part, mode in modes:
            part.training = mode
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                if name in kept and not torch.equal(buffer, kept[name]):
                    buffer.copy_(kept[name])


def require_readable(model: nn.Module, *, settles: bool = False) -> None:
    """Raise UserError for a network that cannot be read as it is: TorchScript, without values, or not in float32.

    settles: whether its buffers are to be written.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise UserError(
            "the network is TorchScript, whose parts Python does not see. Give the nn.Module that it was made of."
        )
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    if empty := [name for name, tensor in tensors.items() if tensor.is_meta]:
        raise UserError(f"the network has no values yet: {empty[0]} is on the device meta. Build it on another.")
    if settles and (fixed := [name for name, buffer in model.named_buffers() if buffer.is_inference()]):
        raise UserError(
            f"{fixed[0]} was made within torch.inference_mode, so BatchNorm cannot take its statistics. Build the "
            "network outside of it."
        )
    others = {p.dtype for p in _drawn(model) if p.is_floating_point() or p.is_complex()} - {torch.float32}
    if others:
        found = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in others))
        raise UserError(
            f"the network has parameters of {found}, but activations are computed in float32. Give it in float32: "
            "network.float() changes no value of half precision."
        )


def _drawn(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that have a shape already; those of lazy modules get theirs in the first pass."""
    return [p for p in model.parameters() if not isinstance(p, nn.parameter.UninitializedParameter)]


def eagerly() -> AbstractContextManager[Any]:
    """Return a context in which nothing is compiled: a compiled part calls no module that could be read."""
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance
