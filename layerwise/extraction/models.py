"""Networks built elsewhere, by name: torchvision:NAME, timm:NAME, or path/to/file.py:FACTORY.

The first two are built without weights, which a seed then draws. A factory is the user's own code, and is run.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from layerwise.errors import UsageError, UserError, missing_package, nearest
from layerwise.extraction.forms import Convention
from layerwise.extraction.preprocessing import Preset
from layerwise.model.network import freeze
from layerwise.model.seeds import initialised
from layerwise.model.userfile import function_of, place_of


@dataclass(frozen=True)
class Foreign:
    """A network built elsewhere, frozen.

    name: as figures call it. preset: the preprocessing it asks for, None where it says nothing.
    is_untrained: True where every weight is known to be as it was drawn.
    """

    module: nn.Module
    name: str
    preset: Preset | None
    is_untrained: bool


def build(spec: str, arguments: Mapping[str, Any], seed: int) -> Foreign:
    """Build the network that `spec` names, its weights drawn from `seed`.

    Args:
        spec: "torchvision:resnet18", "timm:vit_tiny_patch16_224", "path/to/file.py:factory".
        arguments: keyword arguments of its constructor, such as num_classes.

    Raises:
        UsageError: a spec of another kind, or a name that is not known, with the nearest.
        UserError: a package, file or factory is missing; building failed.
    """
    source, colon, name = spec.rpartition(":")
    if not colon or not source or not name:
        raise UsageError(
            f"network {spec!r} is not understood; write torchvision:NAME, timm:NAME, or path/to/file.py:FACTORY."
        )
    if source == "torchvision":
        module, preset = _built(spec, _torchvision_builder(name), arguments, seed), _torchvision_preset
    elif source == "timm":
        module, preset = _built(spec, _timm_builder(name), arguments, seed), _timm_preset
    elif source.endswith(".py"):
        module = _built(spec, _factory(Path(source), name), arguments, seed)
        freeze(module)
        return Foreign(module, name, None, is_untrained=False)
    else:
        raise UsageError(
            f"network {spec!r} comes from {source!r}, but torchvision:NAME, timm:NAME, or path/to/file.py:FACTORY is "
            "expected."
        )
    freeze(module)
    return Foreign(module, name, preset(module, name), is_untrained=True)


def convention_of(model: nn.Module, tokens: str, layout: str = "auto") -> Convention:
    """Return how a network orders axes and tokens, as far as torchvision's, timm's and others say it themselves."""
    from torchvision.models import SwinTransformer, VisionTransformer

    prefix = getattr(model, "num_prefix_tokens", None)  # timm's
    if not isinstance(prefix, int):
        registers = getattr(model, "num_register_tokens", 0)  # DINOv2's, which stand behind its class token
        has_token = any(isinstance(getattr(model, name, None), Tensor) for name in ("cls_token", "class_token"))
        prefix = 1 + (registers if isinstance(registers, int) else 0) if has_token else None
    return Convention(
        channels_last=isinstance(model, SwinTransformer) or getattr(model, "output_fmt", None) == "NHWC",
        is_known=type(model).__module__.partition(".")[0] in ("torchvision", "timm"),
        layout=layout,
        prefix=1 if isinstance(model, VisionTransformer) else prefix,
        has_class_token=bool(getattr(model, "has_class_token", True)),  # timm's; register tokens alone are none
        tokens=tokens,
    )


def _built(spec: str, builder: Callable[..., Any], arguments: Mapping[str, Any], seed: int) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of googlenet: that its initialisation will change
            module = initialised(seed, lambda: builder(**arguments))
    except UserError:
        raise
    except Exception as error:  # of any kind: it is somebody else's code
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        raise UserError(
            f"{spec} could not be built{f' with {given}' if given else ''}: {type(error).__name__}: {error} "
            f"({place_of(error)})."
        ) from error
    return module


def _torchvision_builder(name: str) -> Callable[..., nn.Module]:
    import torchvision.models

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise _unknown(f"torchvision:{name}", "torchvision", name, known)
    return lambda **arguments: torchvision.models.get_model(name, weights=None, **arguments)


def _torchvision_preset(model: nn.Module, name: str) -> Preset:
    from torchvision.models import get_model_weights

    own = get_model_weights(name).DEFAULT.transforms()  # a description, which fetches nothing
    (resize,), (crop,) = own.resize_size, own.crop_size
    built_for = getattr(model, "image_size", None)  # a transformer takes one size, set where it is built
    if isinstance(built_for, int) and built_for != crop:
        resize = crop = built_for
    return Preset(
        resize=resize, crop=crop, interpolation=own.interpolation.value, mean=tuple(own.mean), std=tuple(own.std)
    )


def _timm_builder(name: str) -> Callable[..., nn.Module]:
    try:
        import timm
    except ImportError:
        raise missing_package(f"timm:{name}", ["timm"], "timm") from None
    if not timm.is_model(name):
        raise _unknown(f"timm:{name}", "timm", name, timm.list_models())
    return lambda **arguments: timm.create_model(name, pretrained=False, **arguments)


def _timm_preset(model: nn.Module, name: str) -> Preset:
    from timm.data import resolve_model_data_config

    own = resolve_model_data_config(model)
    crop = own["input_size"][1]
    resize = int(crop / own["crop_pct"])  # timm rounds down
    built_for = getattr(getattr(model, "patch_embed", None), "img_size", None)
    if isinstance(built_for, tuple) and built_for[0] != crop:
        resize = crop = built_for[0]
    return Preset(resize=resize, crop=crop, interpolation=own["interpolation"], mean=own["mean"], std=own["std"])


def _unknown(spec: str, package: str, name: str, known: list[str]) -> UsageError:
    return UsageError(
        f"unknown network {spec!r}.{nearest(name, known)} {package} lists {len(known)}, by {package}.list_models()."
    )


def _factory(path: Path, name: str) -> Callable[..., nn.Module]:
    """Return the function `name` of a file, which must return a module when it is called."""
    factory = function_of(path, name)

    def checked(**arguments: Any) -> nn.Module:
        module = factory(**arguments)
        if not isinstance(module, nn.Module):
            raise UserError(f"{path}:{name} returned a {type(module).__name__}, but a torch.nn.Module is needed.")
        return module

    return checked
