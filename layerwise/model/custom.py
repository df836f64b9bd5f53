"""A user's own blocks: a function in a file or of a session, or modules; registered in this process under a digest.

A run file holds the name and the SHA-256 of these, and no code: nothing in a run file is ever executed. To compute with
such blocks again they are given again (`--network`, or `register`), and must be the same.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from layerwise.config import NetworkConfig
from layerwise.errors import UsageError, UserError, option
from layerwise.model.seeds import own_random_stream
from layerwise.model.userfile import function_of, place_of
from layerwise.runfile.manifest import file_sha256

Shape = tuple[int, int, int]
Factory = Callable[[], nn.Sequential | Sequence[nn.Module]]
Network = str | Factory | nn.Module | Sequence[nn.Module]

# By the digest of the file and the function's name in it.
_known: dict[tuple[str, str], Callable[[], Any]] = {}


def register(network: Network) -> dict[str, Any]:
    """Register a user's blocks in this process.

    Args:
        network: "path/to/file.py:factory", a file that is run; such a function itself, which takes nothing and returns
            a list of torch.nn.Module, or a Sequential of them; or these, whose training begins with the weights that
            they have, whatever the seed. They are copied, and stay as they are.

    Returns:
        The fields of a configuration, by dotted path, that mean these blocks.

    Raises:
        UsageError: a spec of another kind. UserError: no such file or function, or it does not return blocks.
    """
    factory, make = _of_file(network) if isinstance(network, str) else _of_python(network)
    blocks, again = _made(make, factory), _made(make, factory)
    if len(again) != len(blocks):
        raise UserError(f"{factory} returned {len(again)} blocks, but {len(blocks)} before.")
    if any(first is second for first, second in zip(blocks, again, strict=True)):
        raise UserError(
            f"{factory} returned the same modules twice, so that a second training would begin with the "
            "weights of the first. Build them inside the function."
        )
    digest = (
        file_sha256(Path(network.rpartition(":")[0])) if isinstance(network, str) else _digest(network, factory, blocks)
    )
    _known[digest, factory.rpartition(":")[2]] = make
    return {
        "network.architecture": "custom",
        "network.factory": factory,
        "network.factory_sha256": digest,
        "network.depth": len(blocks),
        "network.width": 0,
        "network.downsample": (),
    }


def _of_file(spec: str) -> tuple[str, Callable[[], Any]]:
    """Return the name of "path/to/file.py:factory" in a configuration, and the function."""
    source, colon, name = spec.rpartition(":")
    if not colon or not name or not source.endswith(".py"):
        raise UsageError(
            f"network {spec!r} is not understood; write path/to/file.py:FACTORY, a function that returns the blocks."
        )
    return f"{Path(source).name}:{name}", function_of(Path(source), name)


def _of_python(network: Factory | nn.Module | Sequence[nn.Module]) -> tuple[str, Callable[[], Any]]:
    """Return the qualified name of a function, or of the classes of modules, and what makes the blocks."""
    if callable(network) and not isinstance(network, nn.Module):
        return f"{network.__module__}:{network.__qualname__}", network
    parts = list(network) if isinstance(network, nn.Sequential | list | tuple) else [network]
    kinds = dict.fromkeys(type(part).__qualname__ for part in parts)
    where = type(parts[0]).__module__ if parts else "python"
    return f"{where}:{'+'.join(kinds)}", lambda: copy.deepcopy(network)


def _digest(network: Any, factory: str, blocks: Sequence[nn.Module]) -> str:
    """Return a SHA-256 of what the blocks are: their structure, the source of what is not PyTorch's, given weights.

    The source of what a notebook or a prompt defines is known while it runs; where it is not, names must do.
    """
    is_factory = callable(network) and not isinstance(network, nn.Module)
    kinds = {type(part) for block in blocks for part in block.modules()}
    own = [kind for kind in kinds if not kind.__module__.startswith("torch.")]
    sources = sorted(_source(one) for one in [*own, *([network] if is_factory else [])])
    digest = hashlib.sha256("\0".join([factory, *map(repr, blocks), *sources]).encode())
    for block in () if is_factory else blocks:
        for name, tensor in block.state_dict().items():
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _source(thing: Any) -> str:
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):
        return f"{thing.__module__}:{thing.__qualname__}"


def make_block(config: NetworkConfig, j: int) -> nn.Module:
    """Return a new block j, its weights drawn from torch's current random stream.

    It reads a copy of its input: the block may begin with an in-place operation, and x_{j-1} is still needed.

    Raises UserError where the factory is not registered in this process, or returns other blocks than before.
    """
    block = _blocks(config)[j - 1]
    block.register_forward_pre_hook(_copy_input)
    return block


def _copy_input(block: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(x.clone() for x in inputs)


def has_batch_norm(config: NetworkConfig) -> bool:
    """Return whether any of the blocks has BatchNorm."""
    return any(isinstance(part, nn.modules.batchnorm._BatchNorm) for b in _blocks(config) for part in b.modules())


@functools.lru_cache
def block_shapes(config: NetworkConfig, image: Shape) -> list[Shape]:
    """Return the shape (C, H, W) of x_0 .. x_J, found by running the blocks on two black images.

    Raises UserError where a block fails on the output of the one before, or returns no maps [n, C, H, W] of 2x2 or
    more.
    """
    found = [image]
    x = torch.zeros(2, *image)
    for j, block in enumerate(_blocks(config), start=1):
        maps = "x".join(map(str, found[-1]))
        try:
            with torch.no_grad(), own_random_stream():
                x = block.eval()(x)
        except Exception as error:  # of any kind: it is the user's code
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(f"block {j} of {config.factory} failed on maps of {maps}: {reason}.") from error
        made = list(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
        if not isinstance(made, list) or len(made) != 4 or made[0] != 2 or min(made[2:]) < 2:
            cure = (
                "Images of another size, or fewer blocks that halve it, may help."
                if isinstance(made, list) and len(made) == 4
                else "Leave out what makes vectors of maps: the classifier of each block is added by itself."
            )
            raise UserError(
                f"block {j} of {config.factory} makes {made} of two maps of {maps}, but [2, C, H, W] is needed, H and "
                f"W at least 2. {cure}"
            )
        found.append((made[1], made[2], made[3]))
    return found


def _blocks(config: NetworkConfig) -> list[nn.Module]:
    _, _, name = config.factory.rpartition(":")
    make = _known.get((config.factory_sha256, name))
    if make is None:
        others = any(known == name for _, known in _known)
        raise UserError(
            f"the blocks are those of {config.factory}, which a run file does not hold"
            f"{', and what was named is another (its SHA-256 differs)' if others else ''}. {_cure(config)} (SHA-256 "
            f"{config.factory_sha256[:12]}...)."
        )
    blocks = _made(make, config.factory)
    if len(blocks) != config.depth:
        raise UserError(f"{config.factory} returned {len(blocks)} blocks, but {config.depth} before.")
    return blocks


def _cure(config: NetworkConfig) -> str:
    if config.factory.rpartition(":")[0].endswith(".py"):
        named = option("network", f"PATH/{config.factory}")
        return f"Name the file that it was trained with: {named} (in Python, of layerwise.open_run)"
    return "Give what it was trained with: layerwise.open_run(path, network=...)"


def _made(make: Callable[[], Any], name: str) -> list[nn.Module]:
    """Call a factory and return its blocks; raise UserError where it fails, or does not return blocks."""
    try:
        with own_random_stream():
            made = make()
    except Exception as error:  # of any kind: it is the user's code
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{name} failed: {reason} ({place_of(error)}).") from error
    blocks = list(made) if isinstance(made, nn.Sequential) else made
    if not isinstance(blocks, (list, tuple)) or not blocks:
        what = "nothing" if isinstance(blocks, (list, tuple)) or blocks is None else f"a {type(made).__name__}"
        raise UserError(
            f"the blocks of {name} are {what}, but a list of torch.nn.Module is needed, one for each block (or a "
            "Sequential of them, or a function that returns such)."
        )
    owners: dict[int, int] = {}
    for j, block in enumerate(blocks, start=1):
        if not isinstance(block, nn.Module):
            raise UserError(f"block {j} of {name} is a {type(block).__name__}, but a torch.nn.Module is needed.")
        if any(is_lazy(tensor) for tensor in (*block.parameters(), *block.buffers())):
            raise UserError(f"block {j} of {name} has a lazy layer, whose shape is not known. Give its size.")
        for tensor in (*block.parameters(), *block.buffers()):
            if (owner := owners.setdefault(id(tensor), j)) != j:
                raise UserError(
                    f"blocks {owner} and {j} of {name} share parameters or buffers, but block {owner} is frozen when "
                    f"block {j} is trained. Give each its own."
                )
    return list(blocks)
