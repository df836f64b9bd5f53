"""What trials begin with: small runs made once by the commands themselves, and how uninterrupted commands end."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.torture.children import Done, call, preload
from tests.torture.contents import contents
from tests.torture.jobs import ARRAYS, CNN, NETWORK, RUN, TINY, Job
from tests.torture.seal import seal

NET = '''"""A small network."""
import torch


def make():
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 6, 3, padding=1), torch.nn.ReLU()
    )
'''

# Made in this order; each is a file of the material, and its command is loaded on the way.
MADE = (
    ("layerwise-train", f"digits {TINY} -o {RUN}"),
    ("layerwise-train", f"digits {TINY} --mode untrained -o untrained.h5"),
    ("layerwise-train", f"digits {TINY} --k 1 --seed 1 --store maps --prune-to 2 -o maps.h5"),
    ("layerwise-extract", f"--from {ARRAYS} --trained-on other-data -o arrays.h5"),
    ("probe-depth", f"{RUN} --probe ncm,linear,cnn-1 {CNN}"),
    ("separability-figure", f"{RUN} -o figure.pdf"),
    ("layerwise-inspect", f"{RUN} --verify"),
)


class Material:
    """A folder of small runs, and what commands leave when nothing happens to them."""

    def __init__(self, folder: Path):
        self.folder = folder / "material"
        self.scratch = folder / "trials"
        self._ends = folder / "ends"
        for path in (self.folder, self.scratch, self._ends):
            path.mkdir(parents=True, exist_ok=True)
        self._make()

    def _make(self) -> None:
        (self.folder / NETWORK).write_text(NET)
        if not (self.folder / ARRAYS).exists():
            np.savez(self.folder / ARRAYS, **arrays(np.random.default_rng(0)))
        for command, line in MADE:
            done = self.folder / f".made-{hashlib.sha256(line.encode()).hexdigest()[:8]}"
            if not done.exists():
                preload(command, line.split(), self.folder)
                done.touch()
            elif command not in ("probe-depth", "layerwise-train"):
                continue
        if not (self.folder / "packed.h5").exists():
            pack(self.folder / RUN, self.folder / "packed.h5")

    def load(self) -> None:
        """Load what the commands load, where the material was made by an earlier process."""
        with self.trial((RUN, *_beside(self.folder)), "load") as folder:
            for command, words in (
                ("layerwise-train", f"digits {TINY} -o out.h5"),
                ("probe-depth", f"{RUN} --probe knn"),
                ("separability-figure", f"{RUN} -o figure.pdf"),
            ):
                preload(command, words.split(), folder)

    @contextmanager
    def trial(self, inputs: Sequence[str], name: str) -> Iterator[Path]:
        """Yield a new folder with copies of files of the material; it is removed at the end."""
        # Not a TemporaryDirectory, which a fork that ends removes too.
        folder = Path(tempfile.mkdtemp(prefix=f"{name.replace(' ', '-')}-", dir=self.scratch))
        try:
            for file in inputs:
                shutil.copyfile(self.folder / file, folder / file)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def end(self, name: str, command: str, words: Sequence[str], inputs: Sequence[str]) -> dict[str, Any]:
        """Return how a command ends undisturbed: seconds, peak, out, and what its folder holds; found twice, kept once.

        What differs between the two times (a date in a file) is compared by its presence alone.
        """
        kept = self._ends / f"{name.replace(' ', '-').replace('/', '-')}.json"
        if not kept.exists():
            first, second = (self._end(command, words, inputs, name) for _ in range(2))
            left = {path: text if second["left"].get(path) == text else "" for path, text in first["left"].items()}
            kept.write_text(json.dumps(second | {"left": left}))
        found: dict[str, Any] = json.loads(kept.read_text())
        return found

    def end_of(self, job: Job) -> dict[str, Any]:
        """Return how a job ends undisturbed."""
        return self.end(job.name, job.command, job.words, job.inputs)

    def _end(self, command: str, words: Sequence[str], inputs: Sequence[str], name: str) -> dict[str, Any]:
        with self.trial(inputs, name) as folder:
            done = call(command, words, folder)
            if done.code:
                raise SystemExit(f"{command} {' '.join(words)} fails undisturbed: {done.err}")
            sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
            said = {"seconds": done.seconds, "cpu": done.cpu, "peak": done.peak, "out": done.out, "largest": max(sizes)}
            return said | {"left": contents(folder), "total": sum(sizes)}


def arrays(rng: np.random.Generator, scale: float = 1.0) -> dict[str, np.ndarray]:
    """Return arrays for layerwise-extract --from: two layers of 200 samples of four classes that lie apart."""
    labels = np.arange(200) % 4
    first = rng.normal(size=(200, 8)) + 2 * np.eye(8)[labels]
    second = rng.normal(size=(200, 6, 4, 4)) + 2 * np.eye(6)[labels][:, :, None, None]
    return {"layer1": (first * scale).astype("f4"), "layer2": (second * scale).astype("f4"), "labels": labels}


def pack(source: Path, target: Path) -> None:
    """Write a run file again, chunked and compressed, with digests that fit: as the format allows."""
    with h5py.File(source, "r") as old, h5py.File(target, "w", libver=("v110", "v110")) as new:
        new.attrs.update(old.attrs)

        def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Dataset) and name != "manifest":
                new.create_dataset(name, data=item[()], chunks=True, compression="gzip")
            elif isinstance(item, h5py.Group):
                new.require_group(name)
            if name in new:
                new[name].attrs.update(item.attrs)

        old.visititems(visit)
    seal(target)


def differing(end: dict[str, Any], folder: Path) -> tuple[list[str], list[str]]:
    """Return the names that are missing or hold something else than after an undisturbed end, and those too many."""
    found, expected = contents(folder), end["left"]
    wrong = [name for name, text in expected.items() if name not in found or (text and found[name] != text)]
    return wrong, [name for name in found if name not in expected]


def numbers_of(done: Done) -> str:
    """Return what a command printed, without blanks at the ends of lines."""
    return "\n".join(line.rstrip() for line in done.out.splitlines())


def _beside(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("run.*") if path.name != RUN]
