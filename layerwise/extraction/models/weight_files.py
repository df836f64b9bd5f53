"""Reads a file of saved weights into a state dict; no code in it is run.

A state dict may lie in a checkpoint beside epochs and optimizers, under any name. What is no state dict is refused with
what it seems to be, and how the weights come out of it.
"""

from __future__ import annotations

import logging
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from layerwise.errors import UserError, missing_package, no_file, option

log = logging.getLogger("layerwise.weights")

# Where training scripts put the state dict, the likeliest first: a checkpoint may hold the averaged weights as well.
WRAPPERS = ("state_dict", "model_state_dict", "model")
SAVE = "torch.save(model.state_dict(), FILE)"
HEAD_BYTES = 512
WEIGHT_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".tar", ".safetensors")


def read_state(path: Path, key: str = "") -> dict[str, Tensor]:
    """Return the state dict that a file of torch.save or a .safetensors file holds.

    key: where it stands within a checkpoint, with dots; empty where it is to be found.

    Raises UserError for a file that is missing, damaged, of another kind, or a pickle of more than weights (not run).
    """
    if not path.is_file():
        raise no_file(path, "a file of weights")
    _require_kind(path)
    found = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    return unwrapped(_under(found, key, path), path)


def _under(found: Any, key: str, path: Path) -> Any:
    """Return what stands under a key of a checkpoint; a key may itself have dots."""
    while key:
        names = [str(name) for name in found] if isinstance(found, Mapping) else []
        taken = max((name for name in names if key == name or key.startswith(f"{name}.")), key=len, default=None)
        if taken is None:
            there = f"has {some(names, 8)}" if names else f"is a {type(found).__name__}"
            raise UserError(
                f"{path} has nothing under {key!r}, as {option('weights_key')} says; what is there {there}."
            )
        found, key = found[taken], key[len(taken) + 1 :]
    return found


def some(names: Iterable[str], most: int = 3) -> str:
    """Return the first names with commas, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def _require_kind(path: Path) -> None:
    """Raise UserError for a file that its first bytes show to be no weights of PyTorch, whatever it is called."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    is_safetensors = head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size
    if head.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a pointer of Git LFS, and not the weights themselves; fetch them by: git lfs pull")
    if path.suffix == ".safetensors":
        _require_safetensors(path, head)
        return
    if is_safetensors:
        raise UserError(f"{path} is a safetensors file; give it a name that ends in .safetensors.")
    if head.startswith(b"\x89HDF"):
        raise UserError(
            f"{path} is an HDF5 file (of Keras, or a run), but weights of PyTorch are needed. Write them by {SAVE}."
        )
    if text := re.match(rb"\s*([\x20-\x7e]{12,}[\x20-\x7e\s]*)", head):
        start = " ".join(text[1].decode().split())[:40]
        raise UserError(
            f"{path} is text and no weights (it begins {start!r}), as a download that failed leaves it. Take "
            "the file itself."
        )
    if _is_torchscript(path):
        raise UserError(
            f"{path} is a TorchScript archive, which holds code. Save its weights alone where you trust it: "
            "torch.save(torch.jit.load(OLD).state_dict(), NEW)."
        )


def _require_safetensors(path: Path, head: bytes) -> None:
    if find_spec("safetensors") is None:
        raise missing_package(path.name, ["safetensors"], "safetensors")
    if head.startswith((b"PK\x03\x04", b"\x80")):
        raise UserError(f"{path} is a file of torch.save and no safetensors; give it a name that ends in .pt.")


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


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
            f"({reason}). Save the weights alone: {SAVE}, or as .safetensors. If you trust who made it, "
            "torch.load(OLD, weights_only=False) reads it, and the state dict in it can be saved by itself."
        ) from None
    except Exception as error:  # of any kind: torch's reader follows what a damaged file tells it
        raise UserError(
            f"{path} cannot be read as weights ({type(error).__name__}): expected a state dict written by torch.save, "
            "or a name that ends in .safetensors. Take an intact copy."
        ) from None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read as safetensors ({error}). Take an intact copy.") from None


def unwrapped(found: Any, path: Path) -> dict[str, Tensor]:
    """Return the state dict itself, from under the names it was saved by.

    Where several state dicts lie side by side, only the names of `WRAPPERS` are taken without being asked.
    """
    held = _inner(found)
    if held is not None:
        name, inner = held
        others = _states({key: value for key, value in found.items() if key != name})
        unread = f" (not read: {some(others)}; {option('weights_key', others[0])} would read it)" if others else ""
        log.info("the weights stand under %r in %s%s", name, path, unread)
        return unwrapped(inner, path)
    if isinstance(found, Mapping) and found and all(isinstance(value, Tensor) for value in found.values()):
        return {str(name): value for name, value in found.items()}
    raise UserError(f"{path} holds {_described(found)}")


def _inner(found: Any) -> tuple[str, Any] | None:
    """Return name and content of the dictionary that holds the weights within a checkpoint; None if there is none."""
    if not isinstance(found, Mapping):
        return None
    for name in WRAPPERS:
        if isinstance(found.get(name), Mapping):
            return name, found[name]
    if "param_groups" in found:  # an optimizer's
        return None
    states = [(str(name), value) for name, value in found.items() if _is_state(value) or _inner(value) is not None]
    return states[0] if len(states) == 1 else None


def _states(found: Mapping[Any, Any]) -> list[str]:
    """Return where state dicts stand in a checkpoint, themselves or one level below, such as ema.model."""
    names = []
    for name, value in found.items():
        if _is_state(value):
            names.append(str(name))
        elif isinstance(value, Mapping) and "param_groups" not in value:
            names += [f"{name}.{part}" for part, inner in value.items() if _is_state(inner)]
    return names


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(name, str) and isinstance(part, Tensor) for name, part in value.items())
    )


def _described(found: Any) -> str:
    """Return what was found in the place of a state dict, what is needed, and what to do."""
    needed = "but a state dict (names with tensors) is needed"
    if not isinstance(found, Mapping):
        return f"a {type(found).__name__}, {needed}. Write one by {SAVE}."
    if not found:
        return f"an empty dictionary, {needed}. Write one by {SAVE}."
    if "param_groups" in found:
        return f"the state of an optimizer, {needed}. Write one by {SAVE}."
    if states := _states(found):
        return (
            f"{len(states)} state dicts, under {some(states)}, and one is needed. Say which: "
            f"{option('weights_key', states[0])}."
        )
    others = [f"{name} ({type(value).__name__})" for name, value in found.items() if not isinstance(value, Tensor)]
    if len(others) < len(found):
        return f"a state dict with more than tensors in it: {some(others)}. Save it without these."
    return (
        f"a dictionary with {some(map(str, found))}, {needed}, by itself or under {', '.join(WRAPPERS)}. Write one by "
        f"{SAVE}."
    )
