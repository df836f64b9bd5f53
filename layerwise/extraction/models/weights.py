"""Loads saved weights into a network built elsewhere: every value, or none with the reason and what to do.

Names are compared as the network itself calls its parts, whatever wrapped it when it was saved or wraps it now. What
is left out of a file, because it is no weight, is said.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor, nn

from layerwise.errors import UserError, option
from layerwise.extraction.models.weight_files import read_state, some

log = logging.getLogger("layerwise.weights")

# Parts of names that wrappers add: DataParallel and AveragedModel, torch.compile, FSDP, checkpointed activations.
WRAPPING = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# Counters of AveragedModel and of the profiler thop, which stand among weights and are none.
COUNTERS = ("n_averaged", "total_ops", "total_params")
# A counter of training batches: files of before PyTorch 1.0 and networks with frozen norms lack it, and eval mode never
# reads it.
UNREAD = "num_batches_tracked"
# 8 bits need scales, which stand elsewhere, so that the numbers alone are not the weights.
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a user says of a file of weights.

    key: where the state dict stands within a checkpoint, with dots: "ema.model". strip_prefix: what names begin with,
    which is taken off; others are not read. allow_missing: names and patterns that the file may lack, as of a head.
    """

    key: str = ""
    strip_prefix: str = ""
    allow_missing: tuple[str, ...] = ()

    def allows(self, name: str) -> bool:
        """Return whether the file may lack a parameter: by its name, a pattern, or the module it is in."""
        return any(fnmatchcase(name, p) or fnmatchcase(name, f"{p}.*") for p in self.allow_missing)


AS_IT_IS = Reading()


def load_weights(model: nn.Module, path: Path, reading: Reading = AS_IT_IS) -> list[str]:
    """Load a state dict, saved by torch.save or as .safetensors, into the parameters and buffers of `model`.

    The state dict may stand in a checkpoint under any name, and its names may bear what DataParallel, torch.compile,
    AveragedModel or Lightning add.

    Returns:
        The names that the file lacks, by leave of `reading`; they stay as they were drawn.

    Raises:
        UserError: the file is missing, damaged, or a pickle of more than weights (which is not run); names, shapes or
            number types that are not the network's.
    """
    own = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    plain = _plain(own)
    state = _fitted(_below(read_state(path, reading.key), reading.strip_prefix, path), plain)
    _require_numbers(state, plain, path)
    missing = [name for name in plain if name not in state and not name.endswith(UNREAD) and reading.allows(name)]
    _compare(state, {name: value for name, value in plain.items() if name not in missing}, path)
    names = dict(zip(plain, own, strict=True))
    model.load_state_dict({names[name]: value for name, value in state.items() if name in names}, strict=False)
    if missing:
        log.info("%s lacks %s, as allowed: they stay as they were drawn", path, some(missing))
    return missing


def _below(state: dict[str, Tensor], prefix: str, path: Path) -> dict[str, Tensor]:
    """Return what stands below a prefix of names, without it."""
    if not prefix:
        return state
    prefix = prefix if prefix.endswith(".") else f"{prefix}."
    found = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    if not found:
        raise UserError(
            f"no name in {path} begins with {prefix!r}, as {option('strip_prefix')} says. They begin with "
            f"{some(sorted(_tops(state)))}."
        )
    if others := [name for name in state if not name.startswith(prefix)]:
        log.info("not below %r, and so not read: %s", prefix, some(others))
    return found


def _fitted(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take out of a state dict the counters and what stands before all names, as far as `own` has no such thing."""
    state = _plain(state)
    counters = [name for name in state if name not in own and name.rpartition(".")[2] in COUNTERS]
    if counters := [name for name in counters if state[name].numel() == 1]:
        log.info("left out of the weights, being counters: %s", some(counters))
    state = {name: value for name, value in state.items() if name not in counters}
    first = next(iter(state), "").partition(".")[0] + "."
    if state and all(name.startswith(first) for name in state) and not any(name.startswith(first) for name in own):
        log.info("the names of the weights begin with %r, which is taken off", first)
        return _fitted({name.removeprefix(first): value for name, value in state.items()}, own)
    return state


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict without the parts of names that wrappers add, unless two names would become one."""
    plain = {".".join(part for part in name.split(".") if part not in WRAPPING): value for name, value in state.items()}
    return plain if len(plain) == len(state) and "" not in plain else dict(state)


def _require_numbers(state: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path) -> None:
    """Raise UserError for values that are no weights as they stand: quantised, sparse, absent, or of another kind."""
    for name, value in state.items():
        found = _kind(value)
        if name in own and not name.endswith(UNREAD) and found != (needed := _kind(own[name])):
            raise UserError(
                f"the weights in {path} cannot be taken: {name} has {found} ({value.dtype}), but {needed} are needed. "
                "Save the state dict of the network as it was trained, dense and before any quantisation."
            )


def _kind(value: Tensor) -> str:
    """Return what a tensor holds, in words; real numbers only where they are the values themselves."""
    if value.is_meta:
        return "no values (device meta)"
    if value.layout != torch.strided:
        return "sparse values"
    if value.is_quantized or (value.is_floating_point() and value.dtype not in FLOATS):
        return "quantised numbers"
    if value.dtype == torch.bool:
        return "truth values"
    if value.is_complex():
        return "complex numbers"
    return "real numbers" if value.is_floating_point() else "integers"


def _compare(state: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path) -> None:
    """Raise UserError, with what to do, where names or shapes are not the network's."""
    missing = [name for name in own if name not in state and not name.endswith(UNREAD)]
    unexpected = [name for name in state if name not in own and not name.endswith(UNREAD)]
    shapes = [name for name in own if name in state and state[name].shape != own[name].shape]
    differing = [f"{name} ({_shape(state[name])}, the network's is {_shape(own[name])})" for name in shapes]
    parts = [
        f"{what} {some(names)}"
        for what, names in (("it lacks", missing), ("the network has no", unexpected), ("shapes differ:", differing))
        if names
    ]
    if parts:
        advice = _advice(missing, unexpected, shapes, state, own)
        raise UserError(f"the weights in {path} are not this network's: {'; '.join(parts)}. {advice}")


def _advice(
    missing: list[str], unexpected: list[str], shapes: list[str], state: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> str:
    """Return what to do about weights that do not fit."""
    last = next((name.rpartition(".")[0] for name in reversed(list(own)) if own[name].dim() > 1), "")
    if not (missing or unexpected) and all(name.rpartition(".")[0] == last for name in shapes):
        count = len(state[shapes[0]])
        return (
            f"The file's last layer is for {count} classes: build the network so, by --model-arg num_classes={count}."
        )
    if prefix := _prefix_of(own, state):
        return (
            f"All that the network has stands below {prefix!r} in the file: give "
            f"{option('strip_prefix', prefix.rstrip('.'))}."
        )
    lacking = _tops(missing)
    is_whole = lacking.isdisjoint(_tops(name for name in own if name in state))
    is_deeper = len(unexpected) > 1 and _tops(unexpected) <= _tops(own)  # more of the parts that the network has
    if shapes or not is_whole or lacking == _tops(own) or is_deeper:
        return "Name the network they were saved of, built by --model-arg with the arguments it had then."
    advice = []
    if unexpected:
        advice.append(f"Save them without {some(sorted(_tops(unexpected) - _tops(own) or unexpected))}.")
    if missing:
        advice.append(
            f"They come without {some(sorted(lacking))}: where that is the classifier, which no probe needs, give "
            f"{option('allow_missing', ','.join(sorted(lacking)))}."
        )
    return " ".join(advice)


def _tops(names: Iterable[str]) -> set[str]:
    """Return the parts of the network, by the first part of names."""
    return {name.partition(".")[0] for name in names}


def _prefix_of(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Return what stands before the network's names in a state dict of more than it; "" where they are not there."""
    needed = [name for name in own if not name.endswith(UNREAD)]
    candidates = {name.removesuffix(needed[0]) for name in state if name.endswith(f".{needed[0]}")} if needed else set()
    fitting = [p for p in candidates if all(p + n in state and state[p + n].shape == own[n].shape for n in needed)]
    return fitting[0] if len(fitting) == 1 else ""


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
