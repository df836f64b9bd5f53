"""The layers that become depths: what `--layers auto` takes (the output of each stage), and names and patterns."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import nn

from layerwise.errors import UsageError, UserError, nearest
from layerwise.extraction.layers import Layer

# What torchvision calls the nn.Sequential that is the body of a network.
BODIES = ("features", "trunk_output", "layers")


def choose(model: nn.Module, layers: Sequence[Layer], asked: str) -> list[Layer]:
    """Return the layers that `asked` names (see `layers.select`); at "auto" the output of each stage.

    Raises UserError where no stage is found, UsageError for names that are not there.
    """
    if asked != "auto":
        return select(layers, asked, [name for name, _ in model.named_modules() if name])
    found = stages(model, layers)
    if not found:
        raise UserError("no stage of this network could be found. Name --layers; --list-layers shows them.")
    return found


def stages(model: nn.Module, layers: Sequence[Layer]) -> list[Layer]:
    """Return the output of each stage of a network.

    A ResNet's are its stem (`maxpool`) and layer1..4; a vision transformer's its encoder blocks; those of a timm
    network what timm lists. Of a network whose body is one of `BODIES` (VGG, MobileNet, ConvNeXt, Swin, RegNet) they
    are the last part at each size of its maps, up to the body's end. Any other network has its top-level children, but
    for a vector that is the network's own output; a child that is never called itself, such as an nn.ModuleList, is
    opened.
    """
    from torchvision.models import ResNet, VisionTransformer

    by_name = {layer.module: layer for layer in layers if layer.form is not None}
    names = _timm_stages(model)
    if isinstance(model, ResNet):
        names = ["maxpool", "layer1", "layer2", "layer3", "layer4"]
    elif isinstance(model, VisionTransformer):
        names = [f"encoder.layers.{name}" for name, _ in model.encoder.layers.named_children()]
    if found := [by_name[name] for name in names if name in by_name]:
        return found
    called = {layer.module for layer in layers}
    body = next((name for name in BODIES if isinstance(getattr(model, name, None), nn.Sequential)), None)
    if body is not None:
        opened = set(_called_children(model, "", called - {body}))
        inside = [layer for layer in by_name.values() if layer.module in opened]
        places = [place for place, part in enumerate(inside) if part.module.startswith(f"{body}.")]
        if places:  # none where the network holds such a body but never calls it
            parts: list[Layer | None] = [*inside[: places[-1] + 1], None]
            return [part for part, following in pairwise(parts) if part is not None and _ends(part, following)]
    opened = set(_called_children(model, "", called))
    return [x for x in layers if x.module in opened and x.form is not None and not _is_classifier(x)]


def _timm_stages(model: nn.Module) -> list[str]:
    info = getattr(model, "feature_info", None)
    return [entry["module"] for entry in getattr(info, "info", info) or []]


def _ends(part: Layer, following: Layer | None) -> bool:
    """Return whether a part is the last one at the size of its maps."""
    assert part.form is not None
    return following is None or following.form is None or following.form.shape[1:] != part.form.shape[1:]


def _called_children(module: nn.Module, prefix: str, called: set[str]) -> Iterator[str]:
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if path in called:
            yield path
        else:
            yield from _called_children(child, f"{path}.", called)


def _is_classifier(layer: Layer) -> bool:
    return layer.is_output and layer.shape is not None and len(layer.shape) == 1


def select(layers: Sequence[Layer], asked: str, modules: Sequence[str] = ()) -> list[Layer]:
    """Return the layers that `asked` names, in the order of execution.

    Args:
        asked: names and patterns (`layer?`, `blocks.*`, `**.relu`) with commas. The name of a module that is called
            several times means all its calls.
        modules: names of all modules, also of those that are not called.

    Raises:
        UsageError: a name or pattern that matches nothing, with the nearest names, or only layers whose output cannot
            be read.
    """
    chosen: set[str] = set()
    for word in (part.strip() for part in asked.split(",")):
        chosen |= _matching(layers, word, modules)
    return [layer for layer in layers if layer.name in chosen]


def _matching(layers: Sequence[Layer], word: str, modules: Sequence[str]) -> set[str]:
    matched = [layer for layer in layers if matches(layer.name, word) or matches(layer.module, word)]
    if not matched:
        if silent := [name for name in modules if matches(name, word)]:
            raise UsageError(
                f"layer {silent[0]} is never called when the network is run: what holds it uses its weights, or skips "
                "it. Name a layer around it; --list-layers shows those that are called."
            )
        names = list(dict.fromkeys(layer.name for layer in layers))
        raise UsageError(
            f"no layer is named or matches {word!r}.{nearest(word, names)} --list-layers shows all {len(names)}."
        )
    usable = {layer.name for layer in matched if layer.form is not None}
    if not usable or (word == matched[0].module and matched[0].form is None):
        raise UsageError(f"layer {matched[0].name} cannot be read: it {matched[0].problem}. Name another.")
    return usable


def matches(name: str, pattern: str) -> bool:
    """Return whether a dotted name is meant by a pattern, of which * and ? stay within a part, and ** is any parts."""
    return _matches(name.split("."), pattern.split("."))


def _matches(parts: list[str], patterns: list[str]) -> bool:
    if not patterns:
        return not parts
    if patterns[0] == "**":
        return any(_matches(parts[i:], patterns[1:]) for i in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], patterns[0]) and _matches(parts[1:], patterns[1:])
