"""One side of the comparison in test_bench_training, in a process of its own: prints as JSON what it measured.

Each side is begun as its user begins it: ours keeps freed memory as the command does, the published loop leaves the
allocator as Python made it. What else the command sets, OMP_WAIT_POLICY=PASSIVE, test_bench_training sets for both.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import nn

from layerwise.commandline import keep_freed_memory
from layerwise.config import RunConfig
from layerwise.datasets import Dataset, Split, load_dataset
from layerwise.datasets.split import channel_statistics
from layerwise.hardware import has_bfloat16, products
from layerwise.model.counts import count_problems
from layerwise.model.network import LayerwiseNetwork, freeze
from layerwise.recipes import recipe
from layerwise.runfile import RunFile
from layerwise.runfile.place import Place
from layerwise.settings import set_fields
from layerwise.training.batches import DeviceSplit
from layerwise.training.checkpoint import Checkpoint
from layerwise.training.loop import train_stage
from layerwise.training.report import Report
from layerwise.training.run import train_run
from layerwise.training.stages import stages
from tests.benchmarks import published
from tests.benchmarks.gpu import loaded, made_images

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Work:
    """What both sides do: train `sizes` on n_train images, evaluated on n_held after every epoch."""

    sizes: published.Sizes
    n_train: int
    n_held: int
    images: Path

    def dataset(self) -> Dataset:
        """Return the images that `gather` kept, of which the held ones are both validation fold and test split."""
        with np.load(self.images) as kept:
            splits = {
                name: Split(kept[f"{name}_images"], kept[f"{name}_label"], np.arange(len(kept[f"{name}_label"])))
                for name in ("train", "held")
            }
        mean, std = channel_statistics(splits["train"].images)
        three = {"train": splits["train"], "validation": splits["held"], "test": splits["held"]}
        return Dataset("CIFAR-10 or made", tuple("0123456789"), three, mean, std)

    def config(self, precision: str, **fields: Any) -> RunConfig:
        """Return the same work as a configuration."""
        s = self.sizes
        return set_fields(
            recipe("cifar10-small"),
            {
                "data.subset": 0, "network.depth": s.depth, "network.width": s.width, "network.aux_width": s.aux_width,
                "network.k": s.k, "network.downsample": s.downsample, "training.epochs": s.epochs,
                "training.batch_size": s.batch, "training.lr_every": 15, "precision": precision,
            } | fields,
        )  # fmt: skip


def gather(work: Work) -> dict[str, Any]:
    """Keep the images for all sides: CIFAR-10's where LAYERWISE_DATA has them, else made."""
    folder = Path(os.environ.get("LAYERWISE_DATA", "."))
    if (folder / "cifar-10-batches-py").is_dir():
        whole = load_dataset("cifar10", holdout=0.0, subset=work.n_train, data_dir=folder)
    elif (folder / "train" / "airplane").is_dir():
        whole = load_dataset("imagefolder", holdout=0.0, subset=work.n_train, data_dir=folder)
    else:
        whole = made_images(work.n_train, 10 * work.n_held)
    train, test = whole.splits["train"], whole.splits["test"]
    rows = np.arange(0, len(test.label), len(test.label) // work.n_held)[: work.n_held]
    np.savez(
        work.images, train_images=train.images, train_label=train.label, held_images=test.images[rows],
        held_label=test.label[rows],
    )  # fmt: skip
    return {"images": whole.name}


def published_side(work: Work) -> dict[str, Any]:
    """Train all blocks by the published loop."""
    data = work.dataset()
    train, held = data.splits["train"], data.splits["validation"]
    seconds, accuracy = published.train(train.images, train.label, (held.images, held.label), work.sizes, CPU)
    return {"blocks": seconds, "seconds": sum(seconds), "accuracy": accuracy}


def our_side(work: Work, precision: str) -> dict[str, Any]:
    """Train all blocks by layerwise-train's own function, which also scores and dumps."""
    keep_freed_memory()
    data = work.dataset()
    with loaded(data), tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run.h5"
        scores = train_run(work.config(precision), Place(out=out, device=CPU))
        with RunFile(out) as run:
            seconds = json.loads(run.provenance["seconds"])
            history = run.history()
            assert history is not None
        with h5py.File(out) as file:
            spent = file["provenance/epoch_seconds"][:]
    blocks = [float(spent[history["block"] == j].sum()) for j in range(1, work.sizes.depth + 1)]
    return {
        "blocks": blocks, "seconds": seconds["train"], "scoring_and_dump": seconds["score"] + seconds["dump"],
        "accuracy": scores[-1].accuracy["validation"],
    }  # fmt: skip


def published_last(work: Work) -> dict[str, Any]:
    """Train the last block alone by the published loop, on images that are not augmented."""
    data, sizes, j = work.dataset(), work.sizes, work.sizes.depth
    train, held = data.splits["train"], data.splits["validation"]
    published.exact()
    network = published.Greedy(sizes)
    loader, held_loader = published.loaders(train.images, train.label, (held.images, held.label), sizes)
    optimizer = published.begin_block(network, j, 0.1)
    start = time.perf_counter()
    for _ in range(sizes.epochs):
        nn.ModuleList([network.blocks[j - 1], network.heads[j - 1]]).train()
        published.train_epoch(network, j, optimizer, loader, CPU)
        published.test(network, j, held_loader, CPU)
    return {"seconds": time.perf_counter() - start}


def our_last(work: Work, prefix: str) -> dict[str, Any]:
    """Train the last block alone by our loop, with the prefix recomputed or kept (which is filled in this time)."""
    keep_freed_memory()
    data, j = work.dataset(), work.sizes.depth
    still = {"training.crop_padding": 0, "training.flip": False, "training.prefix": prefix}
    config = work.config("bf16" if has_bfloat16(CPU) else "fp32", **still)
    net = LayerwiseNetwork(config.network, data.image_shape, 10, data.mean, data.std, 0)
    freeze(net.blocks[:-1])
    splits = {name: DeviceSplit(data.splits[name], CPU) for name in ("train", "validation")}
    with Report(config.training.epochs) as report, products(config.precision):
        report.start("the last block", 1)
        start = time.perf_counter()
        train_stage(net, splits, config, stages(net, config)[-1], j - 1, Checkpoint(None, config, {}), report)
        return {"seconds": time.perf_counter() - start}


def machine(work: Work) -> dict[str, Any]:
    """Measure matrix multiplication, and count the operations of each block's training."""
    rates = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a = torch.randn(2048, 2048).to(dtype)
        a @ a
        start = time.perf_counter()
        for _ in range(10):
            a @ a
        rates[name] = 10 * 2 * 2048**3 / (time.perf_counter() - start)
    problems = count_problems(work.config("fp32").network, (3, 32, 32), 10)
    spent, own, prefix = [], [], 0
    for p in problems:
        learned = work.n_train * (2 * p.block.operations + 3 * p.auxiliary.operations)
        held = work.n_held * (p.block.operations + p.auxiliary.operations)
        own.append(work.sizes.epochs * (learned + held))
        spent.append(own[-1] + work.sizes.epochs * (work.n_train + work.n_held) * prefix)
        prefix += p.block.operations
    kept = own[-1] + (work.n_train + work.n_held) * (prefix - problems[-1].block.operations)
    return {"rates": rates, "operations": spent, "operations_last_kept": kept}


def main(text: str) -> dict[str, Any]:
    """Measure what a JSON text asks for."""
    asked = json.loads(text)
    sizes = published.Sizes(**asked["sizes"] | {"downsample": tuple(asked["sizes"]["downsample"])})
    work = Work(sizes, asked["n_train"], asked["n_held"], Path(asked["images"]))
    sides = {
        "gather": gather,
        "published": published_side,
        "ours-bf16": lambda w: our_side(w, "bf16"),
        "ours-fp32": lambda w: our_side(w, "fp32"),
        "published-last": published_last,
        "ours-last-recomputed": lambda w: our_last(w, "recompute"),
        "ours-last-kept": lambda w: our_last(w, "cache"),
        "machine": machine,
    }
    return sides[asked["what"]](work)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
