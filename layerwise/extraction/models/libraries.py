"""Networks of torchvision and timm by name: who builds them, their weights by name, and how they ask for images.

Weights are fetched by the library itself, into its own cache, and only where they are asked for by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import nn

from layerwise.errors import UsageError, UserError, missing_package, nearest
from layerwise.extraction.preprocessing import Preset

DEFAULT = "DEFAULT"  # torchvision's word for the best weights of a network; here of timm's too
HUB = "hf-hub:"


@dataclass(frozen=True)
class Published:
    """Weights that a library has by name.

    name: its word for them. source: their URL, or the repository of a hub. fetch: how to get the file by hand.
    cached: where the library keeps them once they are fetched; None where it cannot be told.
    """

    name: str
    source: str
    fetch: str
    cached: Callable[[], Path | None]

    def unreachable(self, spec: str, error: BaseException) -> UserError:
        """Return the error for weights that could not be fetched, with its first cause."""
        reason = str(error).strip().partition("\n")[0].rstrip(". ") or type(error).__name__
        return UserError(f"the weights {self.name} of {spec} could not be fetched ({reason}). {self.fetch}")


@dataclass(frozen=True)
class Offer:
    """A network that a library builds: by which function, how it asks for images, with which weights (None: drawn)."""

    builder: Callable[..., nn.Module]
    preset: Callable[[nn.Module], Preset | None]
    published: Published | None


def torchvision_network(name: str, word: str | None) -> Offer:
    """Return what torchvision offers under a name; word: of its weights, such as IMAGENET1K_V1, or DEFAULT."""
    import torchvision.models

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise _unknown(f"torchvision:{name}", "torchvision", name, known)
    enum = torchvision.models.get_model_weights(name)
    chosen, published = None, None
    if word is not None:
        words = [member.name for member in enum]
        if word not in (DEFAULT, *words):
            raise _unknown_weights(f"torchvision:{name}", word, words)
        chosen = enum.DEFAULT if word == DEFAULT else enum[word]
        published = _of_url(chosen.name, chosen.url)
    own = (chosen or enum.DEFAULT).transforms()  # a description, which fetches nothing

    def preset(model: nn.Module) -> Preset:
        (resize,), (crop,) = own.resize_size, own.crop_size
        built_for = getattr(model, "image_size", None)  # a transformer takes one size, set where it is built
        if isinstance(built_for, int) and built_for != crop:
            resize = crop = built_for
        return Preset(
            resize=resize, crop=crop, interpolation=own.interpolation.value, mean=tuple(own.mean), std=tuple(own.std)
        )

    def builder(**arguments: Any) -> nn.Module:
        # As the library's own file says it: the digest in its name is compared with what was fetched.
        return torchvision.models.get_model(name, weights=chosen, **arguments)

    return Offer(builder, preset, published)


def timm_network(name: str, word: str | None) -> Offer:
    """Return what timm offers under a name. A tag in it (resnet18.a1_in1k), or a word, asks for its weights."""
    timm = _timm(f"timm:{name}")
    plain, _, tag = name.partition(".")
    if not timm.is_model(plain):
        raise _unknown(f"timm:{name}", "timm", name, timm.list_models())
    tags = [known.partition(".")[2] for known in timm.list_pretrained() if known.partition(".")[0] == plain]
    if word == DEFAULT and tags:
        tag = tag or str(timm.get_pretrained_cfg(plain).tag)
    elif word is not None:
        tag = word
    if not tag:
        return Offer(lambda **arguments: timm.create_model(plain, pretrained=False, **arguments), timm_preset, None)
    if tag not in tags:
        raise _unknown_weights(f"timm:{plain}", tag, tags)
    full = f"{plain}.{tag}"
    published = _of_config(tag, vars(timm.get_pretrained_cfg(full)))
    return Offer(lambda **arguments: timm.create_model(full, pretrained=True, **arguments), timm_preset, published)


def hub_network(name: str) -> Offer:
    """Return the network of a repository of the Hugging Face hub, as timm builds it, with its weights."""
    timm = _timm(f"{HUB}{name}")
    published = _of_config(name, {"hf_hub_id": name})
    builder = lambda **arguments: timm.create_model(f"{HUB}{name}", pretrained=True, **arguments)  # noqa: E731
    return Offer(builder, timm_preset, published)


def timm_preset(model: nn.Module) -> Preset | None:
    """Return how a network of timm asks for its images; None for any other network."""
    if not isinstance(getattr(model, "pretrained_cfg", None), Mapping):
        return None
    from timm.data import resolve_model_data_config

    own = resolve_model_data_config(model)
    crop = own["input_size"][1]
    resize = int(crop / own["crop_pct"])  # timm rounds down
    built_for = getattr(getattr(model, "patch_embed", None), "img_size", None)
    if isinstance(built_for, tuple) and built_for[0] != crop:
        resize = crop = built_for[0]
    return Preset(resize=resize, crop=crop, interpolation=own["interpolation"], mean=own["mean"], std=own["std"])


def _timm(spec: str) -> Any:
    try:
        import timm
    except ImportError:
        raise missing_package(spec, ["timm"], "timm") from None
    return timm


def _of_url(name: str, url: str) -> Published:
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    fetch = f"Where there is a network, fetch {url} and put it at {file}, or give the file itself by --weights."
    return Published(name, url, fetch, lambda: file if file.is_file() else None)


def _of_config(name: str, config: Mapping[str, Any]) -> Published:
    """Return what timm's configuration of a network says of its weights."""
    hub, url = config.get("hf_hub_id"), config.get("url")
    if not hub:
        return _of_url(name, str(url))
    wanted = [config.get("hf_hub_filename"), "model.safetensors", "pytorch_model.bin"]

    def cached() -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        found = (try_to_load_from_cache(hub, file) for file in wanted if file)
        return next((Path(path) for path in found if isinstance(path, str)), None)

    fetch = f"Where there is a network, `hf download {hub}` fetches them; give the file by --weights."
    return Published(name, f"{HUB}{hub}", fetch, cached)


def _unknown(spec: str, package: str, name: str, known: list[str]) -> UsageError:
    return UsageError(
        f"unknown network {spec!r}.{nearest(name, known)} {package} lists {len(known)}, by {package}.list_models()."
    )


def _unknown_weights(spec: str, word: str, words: list[str]) -> UsageError:
    choices = f"It has {', '.join(words)}" if words else "None are published for it"
    return UsageError(
        f"{spec} has no weights {word!r}, and there is no such file. {choices}; give one of these names, or a file."
    )
