"""A user's own blocks: a function in a file, registered in this process under the digest of that file.

A run file holds the function's name and the SHA-256 of its file, and no code: nothing in a run file is ever executed.
To compute with such blocks again the file is named again (`--network`, or `register`), and it must be the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from layerwise.config import NetworkConfig
from layerwise.errors import UsageError, UserError
from layerwise.model.seeds import own_random_stream
from layerwise.model.userfile import function_of, place_of
from layerwise.runfile.manifest import sha256

Shape = tuple[int, int, int]

# By the digest of the file and the function's name in it.
_known: dict[tuple[str, str], Callable[[], Any]] = {}


def register(spec: str) -> dict[str, Any]:
    """Register the blocks of "path/to/file.py:factory" in this process.

    The file is run. The function takes nothing and returns a list of torch.nn.Module, or a Sequential of them.

    Returns:
        The fields of a configuration, by dotted path, that mean these blocks.

    Raises:
        UsageError: a spec of another kind. UserError: no such file or function, or it does not return blocks.
    """
    source, colon, name = spec.rpartition(":")
    if not colon or not name or not source.endswith(".py"):
        raise UsageError(
            f"network {spec!r} is not understood; write path/to/file.py:FACTORY, a function that returns the blocks."
        )
    path = Path(source)
    make = function_of(path, name)
    digest = sha256(path.read_bytes())
    blocks = _made(make, f"{path.name}:{name}")
    again = _made(make, f"{path.name}:{name}")
    if len(again) != len(blocks):
        raise UserError(f"{path.name}:{name} returned {len(again)} blocks, but {len(blocks)} before.")
    if any(first is second for first, second in zip(blocks, again, strict=True)):
        raise UserError(
            f"{path.name}:{name} returned the same modules twice, so that a second training would begin with the "
            "weights of the first. Build them inside the function."
        )
    _known[digest, name] = make
    return {
        "network.architecture": "custom",
        "network.factory": f"{path.name}:{name}",
        "network.factory_sha256": digest,
        "network.depth": len(blocks),
        "network.width": 0,
        "network.downsample": (),
    }


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
            raise UserError(
                f"block {j} of {config.factory} makes {made} of two maps of {maps}, but [2, C, H, W] is needed, H and "
                "W at least 2. Images of another size, or fewer blocks that halve it, may help."
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
            f"{', and the file that was named is another (its SHA-256 differs)' if others else ''}. Name the file that "
            f"it was trained with: --network PATH/{config.factory} (SHA-256 {config.factory_sha256[:12]}...)."
        )
    blocks = _made(make, config.factory)
    if len(blocks) != config.depth:
        raise UserError(f"{config.factory} returned {len(blocks)} blocks, but {config.depth} before.")
    return blocks


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
        what = f"a {type(made).__name__}" if blocks else "nothing"
        raise UserError(f"{name} returned {what}, but a list of torch.nn.Module is needed, one for each block.")
    owners: dict[int, int] = {}
    for j, block in enumerate(blocks, start=1):
        if not isinstance(block, nn.Module):
            raise UserError(f"{name} returned a {type(block).__name__} as block {j}, but a torch.nn.Module is needed.")
        for tensor in (*block.parameters(), *block.buffers()):
            if (owner := owners.setdefault(id(tensor), j)) != j:
                raise UserError(
                    f"blocks {owner} and {j} of {name} share parameters or buffers, but block {owner} is frozen when "
                    f"block {j} is trained. Give each its own."
                )
    return list(blocks)
