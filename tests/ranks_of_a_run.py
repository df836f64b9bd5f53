"""What one rank does in tests/test_layerwise_ranks.py: torchrun starts this file in several processes.

Each case writes what rank 0 found into a folder, as case.pt.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from conftest import small_config

from layerwise import ranks, sharing
from layerwise.model.global_norm import make_global
from layerwise.model.network import LayerwiseNetwork
from layerwise.runfile.place import Place
from layerwise.training import checkpoint
from layerwise.training.checkpoint import Checkpoint
from layerwise.training.problem import AuxiliaryProblem
from layerwise.training.run import train_run

CPU = torch.device("cpu")
RUN = {"data.subset": 400, "network.k": 2, "training.epochs": 2, "training.ema_decay": 0.9}
BATCHES = (64, 15, 2, 64)  # shares that differ by one, and at three ranks one that is empty


def problem_of(k: int, block: int, dtype: torch.dtype) -> tuple[LayerwiseNetwork, AuxiliaryProblem]:
    config = small_config(**{"network.k": k, "network.width": 6, "network.aux_width": 8})
    network = LayerwiseNetwork(config.network, (1, 8, 8), 10, (0.5,), (0.3,), seed=3).to(dtype)
    make_global(network, CPU)
    training = replace(config.training, learning_rate=0.05, label_smoothing=0.1)
    return network, AuxiliaryProblem(network.blocks[block], network.auxiliaries[block], training, "fp32")


def steps(k: int, block: int, dtype: torch.dtype) -> dict[str, Any]:
    """Return gradients of the first step, weights and score after some, of one problem on this rank's shares."""
    network, problem = problem_of(k, block, dtype)
    draw = torch.Generator().manual_seed(5)
    problem.start_epoch(0, len(BATCHES))
    found: dict[str, Any] = {}
    for n in BATCHES:
        x = torch.rand(n, 1, 8, 8, generator=draw, dtype=torch.float64).to(dtype)
        y = torch.randint(0, 10, (n,), generator=draw)
        with torch.no_grad():
            for frozen in network.blocks[:block].eval():
                x = frozen(x)
        share = ranks.share(n)
        problem.step(x[share], y[share])
        if not found:
            found["gradients"] = {name: p.grad.clone() for name, p in problem.module.named_parameters()}
    found["weights"] = {name: value.clone() for name, value in problem.module.state_dict().items()}
    score = problem.score("block")
    return found | {"score": (score.loss, score.accuracy, score.n)}


def cases() -> dict[str, tuple[int, int, torch.dtype]]:
    return {
        f"k{k}-block{block}-{str(dtype).removeprefix('torch.')}": (k, block, dtype)
        for k in (1, 2, 3) for block in (0, 1) for dtype in (torch.float32, torch.float64)
    }  # fmt: skip


def load() -> dict[str, Any]:
    """Load what a data set holds: images filled in their place, an array that was not, what is small, a tensor."""
    images = sharing.room((1, 3, 1000, 1000))
    images[:] = np.arange(1000, dtype=np.uint8)
    return {"images": images, "index": np.arange(500_000), "few": np.arange(3), "rank": ranks.rank()}


def held_once(folder: Path) -> dict[str, Any]:
    """Return what the ranks of a machine hold: whether each has it all, and by rank the bytes of files in memory, and
    of those what falls to it where pages are divided by how many processes map them."""
    found = sharing.loaded_once(load)
    whole = found["few"].sum() == 3 and found["index"].sum() == 499_999 * 250_000
    whole &= bool((found["images"] == np.arange(1000, dtype=np.uint8)).all()) and found["rank"] == 0
    kept = sharing.shared_tensor((6, 100_000), torch.bfloat16)
    on_disk = sharing.shared_tensor((6, 10), torch.float32, folder)
    for tensor in (kept, on_disk):
        for row in range(6)[sharing.part(6)]:
            tensor[row] = row
        ranks.all_of(None)
        whole &= bool((tensor == torch.arange(6)[:, None]).all())
    ranks.all_of(None)
    sizes = [mapped("Size"), mapped("Pss")]
    return {"whole": all(ranks.all_of(whole)), "sizes": ranks.all_of(sizes), "left": list(folder.glob(".prefix*"))}


def mapped(what: str) -> int:
    """Return a count of bytes of this process's files in memory, by its name in /proc/self/smaps."""
    total, own = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        own = "memfd:layerwise" in line if not first.endswith(":") else own
        total += 1024 * int(line.split()[1]) if own and first == f"{what}:" else 0
    return total


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with ranks.joined(CPU):
        held = held_once(folder)
        found = {name: steps(*case) for name, case in cases().items()} | {"held": held}
        if ranks.rank() == 0:
            torch.save(found, folder / f"world{ranks.world()}.pt")
        for name in ("first", "second", "killed", "left"):
            place = Place(out=folder / f"world{ranks.world()}-{name}.h5", device=CPU)
            if name in ("killed", "left"):
                until_killed(place, after=3)
            if name != "left":
                train_run(small_config(**RUN), place)
        train_run(small_config(**RUN), Place(out=folder / "given.h5", device=CPU))  # whose state is another's


class Killed(BaseException):
    """Stands for a process that ends here and now."""


def until_killed(place: Place, after: int) -> None:
    """Train until so many epochs are saved: 3 are the first of the second block, 4 are all."""
    save, saves = Checkpoint.save, []

    def saved(self: Checkpoint, *words: Any) -> None:
        save(self, *words)
        saves.append(words)
        if len(saves) == after:
            raise Killed

    every_epoch, killing = mock.patch.object(checkpoint, "SAVE_EVERY", 0), mock.patch.object(Checkpoint, "save", saved)
    with every_epoch, killing, suppress(Killed):
        train_run(small_config(**RUN), place)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
