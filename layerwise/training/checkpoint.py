"""Resuming: the state of a training in run.h5.state/, saved whole and atomically after epochs, and inside long ones.

Every random choice of a training follows from the run's seed, the stage and the epoch (layerwise.model.seeds), so the
position (stage, epoch, step) is all that has to be saved of random generators; a user's own blocks, which may draw
numbers in each step, are the exception. Weights, buffers, the tensors of optimizer and average, and
the history are saved with it, all as HDF5.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import torch

from layerwise import ranks
from layerwise.config import RunConfig
from layerwise.errors import UserError
from layerwise.locks import held
from layerwise.model.narrowing import narrow_all
from layerwise.publication import refuse_existing, remove_leftovers
from layerwise.runfile import RunFile
from layerwise.runfile.sealed import SealedFormat, create_sealed, open_sealed
from layerwise.settings import by_path
from layerwise.training.history import Epoch, from_rows, to_rows
from layerwise.training.pruning import Pruned, accuracies_of, accuracy_attributes

if TYPE_CHECKING:
    from torch import nn

    from layerwise.model.network import LayerwiseNetwork
    from layerwise.training.problem import AuxiliaryProblem

log = logging.getLogger("layerwise.state")

STATE = "state.h5"
# Seconds between two saves after epochs; the last epoch of a stage is always saved. A killed process loses at most so
# much training, and the epoch in progress. A save takes 0.08 s, and an epoch of cifar10-k3 on a GPU less than a second:
# saving each of its 200 epochs would take 15 s of two minutes (docs/performance.md).
SAVE_EVERY = 5.0
# Seconds between two saves where epochs are longer than that: one waits for the device and reads all of its state.
SAVE_INSIDE = 300.0


class Checkpoint:
    """Where a training stands, and the file in which it is kept.

    stage: number of the stage in progress, from 0. history: the epochs done. pruned: what pruning did, by block.
    step: batches done of the epoch in progress. seconds: what these took. Of several ranks rank 0 alone has a file
    (path is None elsewhere): it writes for all, and tells them what it read, so that any number of ranks can go on.
    """

    def __init__(self, path: Path | None, config: RunConfig, fingerprint: dict[str, str]):
        self.path, self.config, self.fingerprint = path, config, fingerprint
        self.stage, self.epochs_done, self.step, self.seconds = 0, 0, 0, 0.0
        self.history: list[Epoch] = []
        self.pruned: dict[int, Pruned] = {}
        self._problems: list[dict[str, np.ndarray]] = []
        self._noise: dict[str, np.ndarray] = {}
        self._saved, self._began = -math.inf, time.monotonic()

    @property
    def folder(self) -> Path | None:
        """The folder of the state, removed when the run is published."""
        return self.path and self.path.parent

    def load(self, network: LayerwiseNetwork) -> bool:
        """Load what an earlier process saved: weights into the network, position and history here, on all ranks.

        Returns whether anything was saved.

        Raises UserError, naming the field, if it was saved under another configuration or with other data.
        """
        found = ranks.by_first(lambda: vars(self) if self._read(network) else None)
        if found is None:
            return False
        if ranks.rank() > 0:
            vars(self).update(found | {"path": None})
            narrow_all(network, self.pruned)
        return True

    def _read(self, network: LayerwiseNetwork) -> bool:
        if self.path is None or not self.path.exists():
            return False
        with open_sealed(self.path, state_format(self.path.parent)) as file:
            self._refuse_other(file)
            self.pruned = _read_pruned(file)
            narrow_all(network, self.pruned)
            for name, module in _parts(network):
                if module.state_dict():  # a whitening stem has no classifier, so nothing of it is in the file
                    _load_module(module, file[f"modules/{name}"])
            self._problems = [_arrays(file[f"problems/{i}"]) for i in range(len(file["problems"]))]
            self.stage, self.epochs_done = int(file.attrs["stage"]), int(file.attrs["epochs_done"])
            self.step, self.seconds = int(file.attrs.get("step", 0)), float(file.attrs.get("seconds", 0))
            self.history = from_rows(file["history"][:])
            self._noise = _arrays(file["noise"]) if "noise" in file else {}
        inside = f", and {self.step} steps of the next" if self.step else ""
        log.info(
            "resuming from %s: %d epochs of stage %d are done%s",
            self.path.parent, self.epochs_done, self.stage + 1, inside,
        )  # fmt: skip
        return True

    def resume(self, stage: int, problems: Sequence[AuxiliaryProblem]) -> tuple[int, int]:
        """Restore the problems of a stage; return how many of its epochs are done, and how many steps of the next."""
        if stage != self.stage or not self._problems:
            return 0, 0
        for problem, state in zip(problems, self._problems, strict=True):
            problem.restore(state)
        return self.epochs_done, self.step

    def restore_noise(self, device: torch.device) -> None:
        """Set torch's random generators as they were at the step from which the training goes on."""
        torch.set_rng_state(torch.from_numpy(self._noise["cpu"]))
        if device.type == "cuda":
            torch.cuda.set_rng_state(torch.from_numpy(self._noise["cuda"]), device)

    def is_due(self) -> bool:
        """Return whether the state is to be saved although an epoch is in progress; all ranks ask at once."""
        waited = time.monotonic() - max(self._saved, self._began)
        return ranks.agreed(self.path is not None and waited >= SAVE_INSIDE)

    def save(
        self,
        stage: int,
        epochs_done: int,
        network: LayerwiseNetwork,
        problems: Sequence[AuxiliaryProblem],
        step: int = 0,
        seconds: float = 0.0,
    ) -> None:
        """Save everything, if it is due; a process killed now or at any later moment goes on from here.

        step: batches done of the epoch in progress, 0 between epochs. seconds: what they took.
        """
        is_last = epochs_done == problems[0].config.epochs
        if not step and not ranks.agreed(is_last or time.monotonic() - self._saved >= SAVE_EVERY):
            return
        states = [problem.state() for problem in problems]
        if self.path is None:
            return
        with create_sealed(self.path, state_format(self.path.parent)) as file:
            file.attrs.update({"stage": stage, "epochs_done": epochs_done, "step": step, "seconds": seconds})
            if step and self.config.network.architecture == "custom":
                file["noise/cpu"] = torch.get_rng_state().numpy()
                if network.device.type == "cuda":
                    file["noise/cuda"] = torch.cuda.get_rng_state(network.device).numpy()
            file.attrs["config"] = self.config.to_json()
            file.attrs["fingerprint"] = json.dumps(self.fingerprint, sort_keys=True)
            for name, module in _parts(network):
                for key, tensor in module.state_dict().items():
                    file[f"modules/{name}/{key}"] = tensor.cpu().numpy()
            for i, state in enumerate(states):
                group = file.create_group(f"problems/{i}")
                for key, array in state.items():
                    group[key] = array
            file["history"] = to_rows(self.history)
            _write_pruned(file, self.pruned)
        self._saved = time.monotonic()

    def _refuse_other(self, file: h5py.File) -> None:
        # An earlier version's fields are completed, so that what it did not say compares as what it did.
        saved, asked = (by_path(asdict(c)) for c in (RunConfig.from_json(file.attrs["config"]), self.config))
        # The prefix last: what "auto" becomes may follow from another field, and the message should name that one.
        for field in sorted(saved.keys() | asked.keys(), key=lambda name: (name == "training.prefix", name)):
            if saved.get(field) != asked.get(field) and field == "network.factory_sha256":
                raise UserError(
                    f"{self.path and self.path.parent} was begun with other blocks: the code, the layers or the first "
                    f"weights of {self.config.network.factory} have changed since. Bring them back to go on, or delete "
                    "that folder to train from the start."
                )
            if saved.get(field) != asked.get(field):
                raise UserError(
                    f"{self.path and self.path.parent} was begun with {field} = {saved.get(field)!r}, and now it is "
                    f"{asked.get(field)!r}. Give the same to go on, or delete that folder to train from the start."
                )
        if json.loads(file.attrs["fingerprint"]) != self.fingerprint:
            raise UserError(
                f"{self.path and self.path.parent} was begun with other data: the images of {self.config.data.dataset} "
                "have changed. Bring them back to go on, or delete that folder to train from the start."
            )


def state_format(folder: Path) -> SealedFormat:
    """Return what the state in a folder is, and what to do where it is damaged."""
    advice = f"It cannot be resumed from: delete {folder} to train from the start."
    return SealedFormat("layerwise-state", 3, "state of a training", "layerwise-train", advice, oldest=2)


def prefix_begun_with(out: Path) -> str | None:
    """Return training.prefix of the stopped training of a run file; None where there is none that can be read.

    "auto" was decided by the memory that was free then, and a resumed training keeps to it.
    """
    try:
        with open_sealed(_folder(out) / STATE, state_format(_folder(out))) as file:
            return str(json.loads(file.attrs["config"])["training"]["prefix"])
    except UserError:  # Checkpoint.load says what is wrong with it
        return None


@contextmanager
def open_checkpoint(out: Path, config: RunConfig, fingerprint: dict[str, str]) -> Iterator[Checkpoint]:
    """Yield the checkpoint beside a run file, locked against other runs; it is removed when the block succeeds.

    Of several ranks rank 0 holds the lock and the file for all.
    """
    folder = _folder(out)
    with ExitStack() as stack:
        ranks.by_first(lambda: stack.enter_context(_alone(folder, out)))
        yield Checkpoint(folder / STATE if ranks.rank() == 0 else None, config, fingerprint)
        if ranks.rank() == 0:
            shutil.rmtree(folder)


def refuse_existing_run(out: Path, force: bool) -> None:
    """Raise UserError if a run file cannot be written at `out`, as `refuse_existing` says it.

    Where it exists, what a training left that published it and was killed before it could clear up is removed. A state
    of another configuration, or one that is younger than the run file, is of a training that is to replace it: kept.
    """
    folder = _folder(out)
    if not force and folder.is_dir() and out.is_file():
        with suppress(UserError), _alone(folder, out):  # a training that is at work, or damage: not to be touched
            if _is_finished(folder / STATE, out):
                shutil.rmtree(folder)
    refuse_existing(out, force)


def _is_finished(state: Path, out: Path) -> bool:
    """Return whether the training of a state, if there is one, is that which published a run file."""
    if not state.exists():
        return True
    if state.stat().st_mtime_ns > out.stat().st_mtime_ns:
        return False
    with RunFile(out) as run, open_sealed(state, state_format(state.parent)) as file:
        return run.config is not None and file.attrs["config"] == run.config.to_json()


@contextmanager
def _alone(folder: Path, out: Path) -> Iterator[None]:
    """Hold the lock of an output and remove temporary files that killed processes left of it."""
    with held(folder / "lock", f"layerwise-train is working on {out}", wait=False, in_own_folder=True):
        remove_leftovers(out)
        try:
            yield
        finally:
            remove_leftovers(out)  # of a rank that was killed


def _folder(out: Path) -> Path:
    return out.with_name(out.name + ".state")


def _parts(network: LayerwiseNetwork) -> Iterator[tuple[str, nn.Module]]:
    for kind, modules in (("blocks", network.blocks), ("auxiliaries", network.auxiliaries)):
        for j, module in enumerate(modules, start=1):
            yield f"{kind}/{j:02d}", module


def _load_module(module: nn.Module, group: h5py.Group) -> None:
    module.load_state_dict({name: torch.from_numpy(np.array(group[name])) for name in module.state_dict()})


def _write_pruned(file: h5py.File, pruned: Mapping[int, Pruned]) -> None:
    for j, record in pruned.items():
        group = file.create_group(f"compression/{j:02d}")
        group.attrs.update(accuracy_attributes(record))
        group["kept"], group["saliency"] = record.kept, record.saliency
        for name, array in record.before.items():
            group[f"before/{name}"] = array


def _read_pruned(file: h5py.File) -> dict[int, Pruned]:
    found = {}
    for name, group in file.get("compression", {}).items():
        before = _arrays(group["before"]) if "before" in group else {}
        found[int(name)] = Pruned(group["kept"][:], group["saliency"][:], before, accuracies_of(group.attrs))
    return found


def _arrays(group: h5py.Group) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    group.visititems(
        lambda name, item: found.update({name: np.array(item)}) if isinstance(item, h5py.Dataset) else None
    )
    return found
