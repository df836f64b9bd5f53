"""Owns the loading of saved weights into a network built elsewhere: no code is run, and nothing is left out quietly."""

from __future__ import annotations

import logging
import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from layerwise.errors import UserError, missing_package, no_file

log = logging.getLogger("layerwise.weights")

WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.", "model.")  # of DataParallel, torch.compile, Lightning
# A counter of training batches, which files of before PyTorch 1.0 lack, and which eval mode never reads.
UNREAD = "num_batches_tracked"


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a state dict, saved by torch.save or as .safetensors, into every parameter and buffer of `model`.

    The state dict may stand under one of `WRAPPERS`, and all of its names may begin with one of `PREFIXES`.

    Raises:
        UserError: the file is missing, damaged, or a pickle of more than weights (which is not run); names or shapes
            that are not the network's.
    """
    if not path.is_file():
        raise no_file(path, "a file of weights")
    found = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    own = model.state_dict()
    state = _without_prefix(_unwrapped(found, path), own)
    _compare(state, own, path)
    model.load_state_dict({name: value for name, value in state.items() if name in own}, strict=False)


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # a plain pickle, refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it asks for {asked[1]}" if asked else "torch's safe reader does not know what stands in it"
        raise UserError(
            f"{path} is refused, and nothing in it was run: it is no plain state dict but a pickle that may run code "
            f"({reason}). Save the weights alone: torch.save(model.state_dict(), FILE), or as .safetensors."
        ) from None
    except Exception as error:  # of any kind: torch's reader follows what a damaged file tells it
        raise UserError(
            f"{path} cannot be read as weights ({type(error).__name__}): expected a state dict written by torch.save, "
            "or a name that ends in .safetensors. Take an intact copy."
        ) from None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise missing_package(path.name, ["safetensors"], "safetensors") from None
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read as safetensors ({error}). Take an intact copy.") from None


def _unwrapped(found: Any, path: Path) -> dict[str, Tensor]:
    """Return the state dict itself, from under the name it was saved by."""
    if isinstance(found, Mapping):
        for name in WRAPPERS:
            if isinstance(found.get(name), Mapping):
                log.info("the weights stand under %r in %s", name, path)
                found = found[name]
                break
    if not isinstance(found, Mapping) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        what = f"a {type(found).__name__}"
        if isinstance(found, Mapping):
            what = f"a dictionary with {_some(map(str, found))}" if found else "an empty dictionary"
        raise UserError(
            f"{path} holds {what}, but a state dict (names with tensors) is needed, by itself or under "
            f"{', '.join(WRAPPERS)}. Write one by torch.save(model.state_dict(), FILE)."
        )
    return {str(name): value for name, value in found.items()}


def _without_prefix(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take off what wrappers put before every name, where the network's own names do not begin so."""
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state) and not any(name.startswith(prefix) for name in own):
            log.info("the names of the weights begin with %r, which is taken off", prefix)
            return _without_prefix({name.removeprefix(prefix): value for name, value in state.items()}, own)
    return state


def _compare(state: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path) -> None:
    missing = [name for name in own if name not in state and not name.endswith(UNREAD)]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"{name} ({_shape(state[name])}, the network's is {_shape(own[name])})"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    parts = [
        f"{what} {_some(names)}"
        for what, names in (("it lacks", missing), ("the network has no", unexpected), ("shapes differ:", shapes))
        if names
    ]
    if parts:
        hint = " A last layer for other classes is made by --model-arg num_classes=N." if shapes else ""
        raise UserError(f"the weights in {path} are not this network's: {'; '.join(parts)}.{hint}")


def _some(names: Iterable[str], most: int = 3) -> str:
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
