"""What streamed images cost: memory at n and 4n images, rates beside bare decoding, and a forecast by an index alone.

    python tests/benchmarks/streaming.py memory SMALL LARGE    # folders of photographs.py, of n and of 4n images
    python tests/benchmarks/streaming.py rates FOLDER --processes 2
    python tests/benchmarks/streaming.py forecast

Each command is run in a process of its own, as a user runs it. Its memory is what it and the processes that decode for
it hold of their own (anonymous, read every 50 ms): a page that several share is divided by their number, since those
that decode begin as copies of the first and share what neither writes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from layerwise.datasets import load_dataset
from layerwise.datasets.folder import Files
from layerwise.datasets.index import RECORD, Index, keep
from layerwise.datasets.pictures import decode_one
from layerwise.datasets.stream import StreamedSplit
from layerwise.recipes import recipe
from layerwise.runfile.place import Place
from layerwise.settings import set_fields
from layerwise.training.run import train_run

BATCH, SIDE = 64, 160
TINY = {
    "network.k": 1, "network.depth": 1, "network.width": 4, "network.downsample": (1,), "training.epochs": 1,
    "training.batch_size": BATCH, "training.crop_padding": 8, "training.flip": True, "precision": "fp32",
    "data.dataset": "imagefolder", "data.image_size": SIDE, "data.holdout": 0.0, "data.subset": 0,
}  # fmt: skip
COMMANDS = {
    "training": "layerwise-train digits --dataset imagefolder --image-size 160 --k 1 --depth 2 --width 4 --epochs 1 "
    "--set network.downsample=1,2 --set training.batch_size=64 --dtype float32 --max-size 400MB --read stream",
    "extraction": "layerwise-extract torchvision:resnet18 --layers layer1 --dataset imagefolder --image-size 32 "
    "--set data.image_size=160 --dtype float32 --max-size 400MB --read stream",
}
# ImageNet: images of train/ and val/, classes.
COUNTS, CLASSES = (1_281_167, 50_000), 1000
IMAGENET = "layerwise-train imagenet-k3 --holdout 0 --max-size 60GB --dry-run"


@dataclass
class Ran:
    """A command that has run: its seconds, and the most bytes of memory that were seen.

    own: anonymous, of itself; whole: anonymous, of it and its processes together; resident: all that it had, of itself.
    """

    seconds: float = 0.0
    own: int = 0
    whole: int = 0
    resident: int = 0


def run(words: Sequence[str], output: int | None = subprocess.DEVNULL) -> Ran:
    """Run a command to its end."""
    ran, start = Ran(), time.perf_counter()
    process = subprocess.Popen([str(Path(sys.executable).parent / words[0]), *words[1:]], stdout=output)
    while process.poll() is None:
        held = [memory(pid, "Pss_Anon", "smaps_rollup") for pid in (process.pid, *children(process.pid))]
        ran.own, ran.whole = max(ran.own, held[0]), max(ran.whole, sum(held))
        ran.resident = max(ran.resident, memory(process.pid, "VmHWM"))
        time.sleep(0.05)
    if process.returncode:
        sys.exit(f"{' '.join(words)} ended with {process.returncode}")
    ran.seconds = time.perf_counter() - start
    return ran


def memory(pid: int, kind: str, table: str = "status") -> int:
    """Return the bytes of one kind of memory of a process, as a table of /proc has it; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/{table}").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(kind)), 0)


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def compare_memory(folders: Sequence[Path]) -> None:
    """Print the peak memory of a training and of an extraction at n and 4n images."""
    print(f"{'command':<11}{'images':>8}{'seconds':>9}{'itself':>10}{'with its processes':>20}")
    for name, line in COMMANDS.items():
        peaks = []
        for folder in folders:
            count = sum(1 for _ in folder.rglob("*.JPEG"))
            with tempfile.TemporaryDirectory() as out:
                words = [*line.split(), "--data-dir", str(folder), "--out", f"{out}/run.h5", "--quiet"]
                run(words)  # which leaves an index: the pass that makes it is not what is compared
                ran = run([*words, "--force"])
            peaks.append((ran.own, ran.whole))
            print(f"{name:<11}{count:>8,}{ran.seconds:>9.0f}{ran.own / 1e6:>7.0f} MB{ran.whole / 1e6:>17.0f} MB")
        ratios = [large / small for small, large in zip(peaks[0], peaks[-1], strict=True)]
        print(f"{name:<11}{'ratio':>8}{'':>9}{ratios[0]:>10.3f}{ratios[1]:>20.3f}")


def bare(paths: Sequence[str], split: StreamedSplit, processes: int) -> float:
    """Return the images/s of so many processes that decode and do nothing else."""
    context = multiprocessing.get_context("fork")
    start = time.perf_counter()
    workers = [context.Process(target=decode_all, args=(paths[i::processes], split)) for i in range(processes)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return len(paths) / (time.perf_counter() - start)


def decode_all(paths: Sequence[str], split: StreamedSplit) -> None:
    """Decode files, and forget their pixels."""
    torch.set_num_threads(1)
    for path in paths:
        decode_one(path, split.form)


def loaded(split: StreamedSplit) -> float:
    """Return the images/s of a whole epoch of batches, in random order."""
    order = np.random.default_rng(0).permutation(len(split.label))
    start = time.perf_counter()
    for _ in split.stream([order[i : i + BATCH] for i in range(0, len(order), BATCH)]):
        pass
    return len(order) / (time.perf_counter() - start)


def trained(folder: Path, processes: int) -> float:
    """Return the images/s of the training of a tiny network, scoring and dump left out."""
    with tempfile.TemporaryDirectory() as out:
        place = Place(out=Path(out) / "run.h5", data_dir=folder, read="stream", workers=processes)
        train_run(set_fields(recipe("digits"), TINY), place)
        from layerwise.runfile import RunFile

        with RunFile(place.out) as file:
            return len(file.labels("train")) / float(file.epoch_seconds()[0])


def compare_rates(folder: Path, processes: int, rounds: int) -> None:
    """Print bare decoding, the loader and a training, each the fastest of a few rounds that take turns."""
    torch.set_num_threads(1)
    words = {"holdout": 0.0, "image_size": SIDE, "read": "stream", "workers": processes}
    split = load_dataset("imagefolder", data_dir=folder, **words).splits["train"]
    assert isinstance(split, StreamedSplit)
    paths = split.folder.files.paths(split.rows)
    found: dict[str, list[float]] = {"bare decoding": [], "loader": [], "training": []}
    for _ in range(rounds):
        found["bare decoding"].append(bare(paths, split, processes))
        found["loader"].append(loaded(split))
        found["training"].append(trained(folder, processes))
    best = {name: max(rates) for name, rates in found.items()}
    print(f"{len(paths):,} images, {processes} processes, {os.cpu_count()} cores, images/s (all rounds)")
    for name, rates in found.items():
        print(f"{name:<14}{best[name]:>8.0f}  ({', '.join(f'{rate:.0f}' for rate in rates)})")
    print(f"loader / bare decoding {best['loader'] / best['bare decoding']:.2f}")
    print(f"training / loader {best['training'] / best['loader']:.2f}")


def imagenet_index(folder: Path) -> None:
    """Write the index of a folder as large as ImageNet, of which no file is there."""
    rng, names, label, tested = np.random.default_rng(0), [], [], []
    for is_test, (split, count) in enumerate(zip(("train", "val"), COUNTS, strict=True)):
        own = np.sort(np.arange(count) % CLASSES)
        names += [f"{split}/n{c:08}/n{c:08}_{i:08}.JPEG".encode() for i, c in enumerate(own.tolist())]
        label.append(own)
        tested.append(np.full(count, bool(is_test)))
    records = np.zeros(len(names), RECORD)
    records["bytes"], records["channels"] = rng.integers(50_000, 200_000, len(names)), 3
    records["height"], records["width"] = rng.integers(200, 600, (2, len(names)))
    classes = tuple(f"n{c:08}" for c in range(CLASSES))
    files = Files(folder, classes, np.array(names), np.concatenate(label), np.concatenate(tested), True)
    keep(Index(files, records, {}, "a benchmark"))


def forecast() -> None:
    """Print what --dry-run of ImageNet says by its index alone, with its seconds and its memory."""
    with tempfile.TemporaryDirectory() as folder:
        imagenet_index(Path(folder))
        print(f"index: {(Path(folder) / '.layerwise-index.h5').stat().st_size / 1e6:.0f} MB")
        ran = run([*IMAGENET.split(), "--data-dir", folder], None)
        print(f"{ran.seconds:.0f} s, peak {ran.resident / 1e9:.2f} GB resident, {ran.own / 1e9:.2f} GB anonymous")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    memory = commands.add_parser("memory")
    memory.add_argument("folders", type=Path, nargs=2)
    rates = commands.add_parser("rates")
    rates.add_argument("folder", type=Path)
    rates.add_argument("--processes", type=int, default=2)
    rates.add_argument("--rounds", type=int, default=3)
    commands.add_parser("forecast")
    words = parser.parse_args()
    if words.command == "memory":
        compare_memory(words.folders)
    elif words.command == "rates":
        compare_rates(words.folder, words.processes, words.rounds)
    else:
        forecast()


if __name__ == "__main__":
    main()
