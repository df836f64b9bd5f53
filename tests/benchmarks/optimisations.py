"""What each optimisation of training is worth on this CPU: the step of each block with one of them taken back.

    PYTHONPATH=. python3 tests/benchmarks/optimisations.py [--width 64] [--batches 9]

One line for each variant, each measured in a process of its own: milliseconds for a whole step of block 1 to 4 (images,
prefix, forward, backward, optimizer), the median over batches of 128 images of 32x32.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from layerwise.commandline import keep_freed_memory
from layerwise.model.network import LayerwiseNetwork, freeze
from layerwise.recipes import recipe
from layerwise.settings import set_fields
from layerwise.training.batches import DeviceSplit
from layerwise.training.prefix import FrozenPrefix
from layerwise.training.problem import AuxiliaryProblem, autocast
from layerwise.training.stage_batches import Kept, Recomputed
from tests.benchmarks.gpu import made_images

CPU = torch.device("cpu")
VARIANTS = ("all", "memory given back", "channels first", "float32", "prefix not folded", "prefix kept", "none")


class Unfolded(FrozenPrefix):
    """The blocks as they are, under autocast."""

    @torch.no_grad()
    def advance(self, x: Tensor) -> Tensor:
        """Return x_depth from x_0."""
        with autocast("bf16" if self.dtype == torch.bfloat16 else "fp32", CPU):
            return self.network.advance(x.to(torch.float32), 0, self.depth)


def measure(variant: str, width: int, batches: int) -> list[float]:
    """Return the milliseconds of a step of blocks 1 to 4."""
    plain = variant == "none"
    if variant != "memory given back" and not plain:
        keep_freed_memory()
    precision = "fp32" if plain or variant == "float32" else "bf16"
    still = {"training.crop_padding": 0, "training.flip": False, "training.prefix": "cache"}
    fields = {"network.width": width, "network.aux_width": width, "precision": precision}
    config = set_fields(recipe("cifar10-small"), fields | (still if variant == "prefix kept" else {}))
    data = made_images(128 * (batches + 2), 10)
    net = LayerwiseNetwork(config.network, data.image_shape, 10, data.mean, data.std, 0)
    if plain or variant == "channels first":
        net.to(memory_format=torch.contiguous_format)
    splits, found = {"train": DeviceSplit(data.splits["train"], CPU)}, []
    for j in range(1, 5):
        prefix = (Unfolded if plain or variant == "prefix not folded" else FrozenPrefix)(net, j - 1, precision)
        if variant == "prefix kept" and j > 1:
            source: Recomputed = Kept(splits, prefix, config, j, folder=None)
        else:
            source = Recomputed(splits, prefix, config, j)
        problem = AuxiliaryProblem(net.blocks[j - 1], net.auxiliaries[j - 1], config.training, precision)
        layout = torch.contiguous_format if plain or variant == "channels first" else torch.channels_last
        found.append(1e3 * median_step(problem, source, layout))
        freeze(nn.ModuleList([net.blocks[j - 1], net.auxiliaries[j - 1]]))
    return found


def median_step(problem: AuxiliaryProblem, source: Recomputed, layout: torch.memory_format) -> float:
    """Return the median seconds of a step after two to warm up."""
    problem.start_epoch(0, 1000)
    clock: list[float] = []
    for batch in source.batches(0):
        x, y = source.fetch(*batch)
        problem.step(x.contiguous(memory_format=layout), y)
        clock.append(time.perf_counter())
    return statistics.median(b - a for a, b in pairwise(clock[1:]))


def main() -> None:
    """Measure every variant and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batches", type=int, default=9)
    parser.add_argument("--variant", choices=VARIANTS)
    given = parser.parse_args()
    if given.variant:
        print(json.dumps(measure(given.variant, given.width, given.batches)))
        return
    print("| variant | block 1 | block 2 | block 3 | block 4 |\n| --- | --- | --- | --- | --- |")
    for variant in VARIANTS:
        words = ["--width", str(given.width), "--batches", str(given.batches), "--variant", variant]
        environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
        done = subprocess.run(
            [sys.executable, Path(__file__), *words], env=environment, capture_output=True, text=True, check=True
        )
        cells = " | ".join(f"{ms:.0f}" for ms in json.loads(done.stdout.splitlines()[-1]))
        print(f"| {variant} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
