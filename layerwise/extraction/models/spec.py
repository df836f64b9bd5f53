"""Networks built elsewhere, by name: torchvision:NAME, timm:NAME, hf-hub:OWNER/NAME, or path/to/file.py:FACTORY.

Without weights by name a seed draws them. A factory is the user's own code, and is run.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from layerwise.errors import UsageError, UserError
from layerwise.extraction.forms import Convention
from layerwise.extraction.models.libraries import HUB, Offer, Published, hub_network, timm_network, torchvision_network
from layerwise.extraction.preprocessing import Preset
from layerwise.model.network import freeze
from layerwise.model.seeds import initialised
from layerwise.model.userfile import function_of, place_of
from layerwise.runfile.manifest import file_sha256

log = logging.getLogger("layerwise.extract")


@dataclass(frozen=True)
class Foreign:
    """A network built elsewhere, frozen.

    name: as figures call it. preset: the preprocessing it asks for, None where it says nothing.
    is_untrained: True where every weight is known to be as it was drawn. weights: what a file says of weights that were
    asked for by name.
    """

    module: nn.Module
    name: str
    preset: Preset | None
    is_untrained: bool
    weights: Mapping[str, Any] | None = None


def build(spec: str, arguments: Mapping[str, Any], seed: int, word: str | None = None) -> Foreign:
    """Build the network that `spec` names, its weights drawn from `seed` or fetched by name.

    Args:
        spec: "torchvision:resnet18", "timm:vit_tiny_patch16_224", "timm:resnet18.a1_in1k" (with the weights of that
            tag), "hf-hub:timm/resnet18.a1_in1k" (a repository, by timm), "path/to/file.py:factory".
        arguments: keyword arguments of its constructor, such as num_classes.
        word: the library's name of its weights, such as IMAGENET1K_V1 or DEFAULT.

    Raises:
        UsageError: a spec of another kind, or a name that is not known, with the nearest.
        UserError: a package, file or factory is missing; building failed; weights cannot be fetched.
    """
    source, colon, name = spec.partition(":") if spec.startswith(HUB) else spec.rpartition(":")
    if not colon or not source or not name:
        raise UsageError(f"network {spec!r} is not understood; write {_SPECS}.")
    if source.endswith(".py"):
        module = _built(spec, _factory(Path(source), name), arguments, seed)
        freeze(module)
        return Foreign(module, name, None, is_untrained=False)
    if source not in _OFFERS:
        raise UsageError(f"network {spec!r} comes from {source!r}, but {_SPECS} is expected.")
    offer = _OFFERS[source](name, word)
    module = _built(spec, offer.builder, arguments, seed, offer.published)
    freeze(module)
    weights = None if offer.published is None else _facts(offer.published)
    return Foreign(module, name, offer.preset(module), is_untrained=weights is None, weights=weights)


_SPECS = "torchvision:NAME, timm:NAME, hf-hub:OWNER/NAME, or path/to/file.py:FACTORY"
_OFFERS: dict[str, Callable[[str, str | None], Offer]] = {
    "torchvision": torchvision_network,
    "timm": timm_network,
    "hf-hub": lambda name, word: hub_network(name),
}


def _facts(published: Published) -> dict[str, Any]:
    file = published.cached()
    return {"name": published.name, "source": published.source, "sha256": None if file is None else file_sha256(file)}


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


def _built(
    spec: str,
    builder: Callable[..., Any],
    arguments: Mapping[str, Any],
    seed: int,
    published: Published | None = None,
) -> nn.Module:
    hub = logging.getLogger("huggingface_hub")  # which warns of each of its tries
    if published is not None and published.cached() is None:  # else silent for as long as the library tries
        log.info("%s: fetching the weights %s from %s", spec, published.name, published.source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of googlenet: that its initialisation will change
            hub.setLevel(logging.ERROR)
            module = initialised(seed, lambda: builder(**arguments))
    except UserError:
        raise
    except Exception as error:  # of any kind: it is somebody else's code
        if published is not None and (cause := _of_network(error)) is not None:
            raise published.unreachable(spec, cause) from error
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        raise UserError(
            f"{spec} could not be built{f' with {given}' if given else ''}: {type(error).__name__}: {error} "
            f"({place_of(error)})."
        ) from error
    finally:
        hub.setLevel(logging.NOTSET)
    return module


def _of_network(error: BaseException) -> BaseException | None:
    """Return the first cause of an error where it is of fetching, of which libraries have many kinds; else None."""
    cause = error.__cause__ or error.__context__
    found = None if cause is None else _of_network(cause)
    is_own = isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _FETCHERS
    return found or (error if is_own else None)


_FETCHERS = ("urllib", "http", "requests", "httpx", "httpcore", "huggingface_hub")


def _factory(path: Path, name: str) -> Callable[..., nn.Module]:
    """Return the function `name` of a file, which must return a module when it is called."""
    factory = function_of(path, name)

    def checked(**arguments: Any) -> nn.Module:
        module = factory(**arguments)
        if not isinstance(module, nn.Module):
            raise UserError(f"{path}:{name} returned a {type(module).__name__}, but a torch.nn.Module is needed.")
        return module

    return checked
