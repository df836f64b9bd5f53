"""Whether a network gives an image values of its own, found by running one image again, alone.

BatchNorm that was told to track no statistics uses those of the batch, in eval mode too; dropout called as a function
may never be switched off. Then an activation depends on what shares the batch, or on chance, and no number computed
from it could be found again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from layerwise.errors import UserError
from layerwise.extraction.layers import Layer, run_once, single_tensor, tapped

# Of the largest value of a layer. Batches of other sizes are computed by other kernels, which differ by about 1e-6 of
# it, and by 1e-5 behind a hundred layers; a batch's statistics differ by whole parts.
TOLERANCE = 1e-3


class FirstRow:
    """What each layer gives the first image of a pass: `keep` is to be called as `layers.tapped` calls it."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, int], Tensor] = {}

    def keep(self, name: str, call: int, inputs: Any, output: Any) -> None:
        """Copy the first image's values, before a later module writes into them."""
        tensor = single_tensor(output)
        if tensor is not None and tensor.dim() and len(tensor) and tensor.is_floating_point():
            self.rows[name, call] = tensor[0].detach().clone()

    @classmethod
    @torch.no_grad()
    def of(cls, model: nn.Module, x: Tensor) -> FirstRow:
        """Return what each layer gives the first of some images."""
        kept = cls()
        with tapped(model, kept.keep):
            run_once(model, x)
        return kept


def two_images(x: Tensor) -> Tensor:
    """Return the first image of a batch and one that differs from it, if there is one: equal ones would hide much."""
    others = (x != x[:1]).flatten(1).any(1).nonzero()
    return x[[0, int(others[0])]] if len(others) else x[:2]


def require_own_values(
    model: nn.Module, x: Tensor, first: FirstRow, layers: Sequence[Layer], chosen: Sequence[Layer]
) -> None:
    """Raise UserError, with the module's name, where a chosen layer gives an image other values when it comes alone.

    Args:
        first: what each layer gave the first image of x [n, ...] among the others.
    """
    alone = FirstRow.of(model, x[:1])
    differing = [layer for layer in layers if _differs(first, alone, layer)]
    if not (affected := [layer.name for layer in chosen if layer in differing]):
        return
    cause = differing[0]
    why = "draws at random or changes from call to call"
    if not _differs(alone, FirstRow.of(model, x[:1]), cause):
        why = "depends on the other images of its batch"
    raise UserError(
        f"layer {cause.name} ({cause.kind}), or what comes just before it, {why}, in eval mode too: it gives one image "
        f"two values, and so do {', '.join(affected[:3])}{' and others' if len(affected) > 3 else ''}. "
        f"{_remedy(model.get_submodule(cause.module))} Or choose layers before it."
    )


def _differs(one: FirstRow, other: FirstRow, layer: Layer) -> bool:
    key = layer.module, layer.call
    a, b = one.rows.get(key), other.rows.get(key)
    if a is None or b is None or a.shape != b.shape:
        return (a is None) != (b is None) or a is not None
    scale = float(a.abs().nan_to_num(0).max()) if a.numel() else 0.0
    return not torch.allclose(a, b, rtol=0, atol=TOLERANCE * scale, equal_nan=True)


def _remedy(module: nn.Module) -> str:
    if getattr(module, "track_running_stats", True) is False:
        return "Build it with track_running_stats=True, and train it so."
    if module.training:
        return "It stays in training mode when eval() is called: let it follow."
    return "Mend it so that eval() switches that off (F.dropout and F.batch_norm take training=self.training)."
