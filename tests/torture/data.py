"""Awkward data: numbers that are none, features of any scale, too few classes and images, all kinds of picture."""

from __future__ import annotations

import csv
import math
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from tests.torture.children import Limits, call
from tests.torture.jobs import NETWORK
from tests.torture.material import Material, arrays
from tests.torture.verdicts import Outcome, trouble

Arrays = dict[str, np.ndarray]
PROBES = "linear,ncm,knn"
MEMORY = 2**30  # bytes that no data here need
TOLERANCE = 0.1  # of accuracy: what scaling all features may change, of 200 samples that lie apart


def _scaled(scale: float, shift: float = 0.0) -> Callable[[np.random.Generator], Arrays]:
    def make(rng: np.random.Generator) -> Arrays:
        found = arrays(rng)
        for name in ("layer1", "layer2"):
            found[name] = (found[name] * scale + shift).astype("f4")
        return found

    return make


def _with(value: float, share: float) -> Callable[[np.random.Generator], Arrays]:
    def make(rng: np.random.Generator) -> Arrays:
        found = arrays(rng)
        flat = found["layer1"].reshape(-1)
        flat[rng.random(flat.size) < share] = value
        return found

    return make


def _changed(change: Callable[[Arrays], Arrays]) -> Callable[[np.random.Generator], Arrays]:
    return lambda rng: change(arrays(rng))


def _rows(found: Arrays, kept: object) -> Arrays:
    return {name: array[kept] for name, array in found.items()}  # type: ignore[index]


def _named(found: Arrays, *names: str) -> Arrays:
    return found | {"labels": np.array(names)[found["labels"]]}


def _one_tiny(found: Arrays) -> Arrays:
    found["layer1"][:, 0] *= 1e6
    found["layer1"][:, 1:] *= 1e-6
    return found


def _constant(found: Arrays) -> Arrays:
    found["layer1"][:, :4] = 3.0
    found["layer2"][:] = 0.0
    return found


# What the numbers must be near to, where data say the same as well-behaved ones: True.
ARRAYS: dict[str, tuple[Callable[[np.random.Generator], Arrays], bool]] = {
    "well-behaved": (_scaled(1), True),
    "features of 1e-8": (_scaled(1e-8), True),
    "features of 1e-30": (_scaled(1e-30), True),
    "features of 1e6 (float16 overflows)": (_scaled(1e6), True),
    "features of 1e20": (_scaled(1e20), True),
    "features that differ by 1e-4 around 100": (_scaled(1e-4, 100.0), True),
    "one large feature, tiny ones": (_changed(_one_tiny), True),
    "float64": (_changed(lambda f: f | {"layer1": f["layer1"].astype("f8") * 1e200}), False),
    "integers": (_changed(lambda f: f | {"layer1": (f["layer1"] * 10).astype("i4")}), False),
    "one NaN": (_with(math.nan, 0.002), False),
    "all NaN": (_with(math.nan, 2.0), False),
    "one infinity": (_with(math.inf, 0.002), False),
    "constant features": (_changed(_constant), False),
    "one image": (_changed(lambda f: _rows(f, slice(0, 1))), False),
    "no image": (_changed(lambda f: _rows(f, slice(0, 0))), False),
    "two images": (_changed(lambda f: _rows(f, slice(0, 2))), False),
    "one class": (_changed(lambda f: f | {"labels": np.zeros(200, int)}), False),
    "as many classes as images": (_changed(lambda f: f | {"labels": np.arange(200)}), False),
    "more class names than images": (
        _changed(lambda f: _rows(f, slice(0, 12)) | {"classes": np.array([f"c{i}" for i in range(50)])}),
        False,
    ),
    "a class of one image": (_changed(lambda f: f | {"labels": np.r_[9, f["labels"][1:]]}), False),
    "labels of -1": (_changed(lambda f: f | {"labels": f["labels"] - 1}), False),
    "labels of 10^9": (_changed(lambda f: f | {"labels": f["labels"] * 10**9}), False),
    "labels called None": (_changed(lambda f: _named(f, "None", "NA", "nan", "")), False),
    "labels that break lines": (_changed(lambda f: _named(f, "a\nb", "=1", "a,b", '"')), False),
    "fewer labels than rows": (_changed(lambda f: f | {"labels": f["labels"][:-3]}), False),
    "no labels": (_changed(lambda f: {name: a for name, a in f.items() if name != "labels"}), False),
    "Python objects": (_changed(lambda f: f | {"layer1": f["layer1"].astype(object)}), False),
    "complex numbers": (_changed(lambda f: f | {"layer1": f["layer1"].astype("c8")}), False),
    "no features": (_changed(lambda f: f | {"layer1": f["layer1"][:, :0]}), False),
    "five axes": (_changed(lambda f: f | {"layer1": f["layer1"].reshape(200, 2, 2, 2, 1)}), False),
    "a test split of one class": (
        _changed(lambda f: f | {"splits": np.where(f["labels"] == 0, "test", "train")}), False),
    "splits misspelt": (_changed(lambda f: f | {"splits": np.where(f["labels"] == 0, "tset", "train")}), False),
}  # fmt: skip

FILES = ("an empty npz", "a cut npz", "a bomb of 4 GB", "a text called npz", "an HDF5 of links")
FOLDERS = (
    "mixed sizes",
    "mixed kinds",
    "a broken picture",
    "one picture",
    "an empty class",
    "a name of bytes",
    "a link",
)
KINDS = [f"data: {name}" for name in (*ARRAYS, *FILES, *FOLDERS)]


def trial(kind: str, rng: np.random.Generator, material: Material) -> Outcome:
    """Extract awkward data and probe them: it ends clearly, or with numbers that are possible."""
    name = kind.removeprefix("data: ")
    with material.trial((NETWORK,), "data") as folder:
        if name in ARRAYS:
            make, alike = ARRAYS[name]
            np.savez(folder / "x.npz", allow_pickle=True, **make(np.random.default_rng(0)))
            return _extract(kind, folder, "--from x.npz --trained-on other-data", alike)
        if name in FILES:
            return _extract(kind, folder, f"--from {_file(name, folder)} --trained-on other-data", False)
        _pictures(name, folder, rng)
        flags = f"{NETWORK}:make --trained-on nothing --dataset imagefolder --data-dir {folder}/images"
        return _extract(kind, folder, f"{flags} --set data.image_size=8", False)


def _extract(kind: str, folder: Path, flags: str, alike: bool) -> Outcome:
    done = call("layerwise-extract", [*flags.split(), "-o", "out.h5"], folder, Limits(seconds=40))
    common = {"kind": kind, "tried": f"layerwise-extract {flags.replace(str(folder), '.')}"}
    if done.peak > MEMORY:
        return Outcome(verdict="memory", seen=f"{done.peak >> 20} MB", done=done, **common)
    if (found := trouble(done)) is not None or done.code:
        return Outcome(verdict=found or "refused", done=done, **common)
    if not (folder / "out.h5").exists():
        return Outcome(verdict="lost", done=done, **common)
    done = call("probe-depth", ["out.h5", "--probe", PROBES, "--quiet"], folder, Limits(seconds=40))
    if (found := trouble(done)) is not None or done.code:
        return Outcome(verdict=found or "refused", done=done, **common)
    verdict, seen = _numbers(folder / "out.probes.csv", alike)
    return Outcome(verdict=verdict, seen=seen, done=done, **common)


def _numbers(table: Path, alike: bool) -> tuple[str, str]:
    """Return whether accuracies are possible, and near those of well-behaved data where the data say the same."""
    with open(table, newline="", encoding="utf-8") as file:
        found = [row for row in csv.DictReader(file) if row["metric"] == "accuracy"]
    values = [float(row["value"] or "nan") for row in found]
    if not values or not all(0 <= value <= 1 for value in values):
        return "wrong", "an accuracy that is none"
    if alike:
        # Four classes that lie two standard deviations apart: a probe that sees them is right far beyond chance.
        low = [row for row in found if row["split"] == "test" and float(row["value"]) < 0.75 - TOLERANCE]
        if low:
            return "wrong", ", ".join(f"{row['probe']} at depth {row['depth']}: {row['value']}" for row in low)
    return "answered", ""


def _file(name: str, folder: Path) -> str:
    path = folder / "x.npz"
    if name == "an HDF5 of links":
        with h5py.File(folder / "x.h5", "w") as file, h5py.File(folder / "other.h5", "w") as other:
            other["layer"] = np.zeros((20, 3), "f4")
            file["layer1"] = h5py.ExternalLink("other.h5", "layer")
            file["labels"] = np.arange(20) % 2
        return "x.h5"
    if name == "a bomb of 4 GB":
        _bomb(path)
    elif name == "a text called npz":
        path.write_text("nothing\n")
    else:
        np.savez(path, **({} if name == "an empty npz" else arrays(np.random.default_rng(0))))
        if name == "a cut npz":
            path.write_bytes(path.read_bytes()[:-200])
    return path.name


def _bomb(path: Path) -> None:
    """Write 4 GB of zeros in 20 MB, beside labels of 10 rows."""
    shape = (2**32 // 8, 2)
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("layer1.npy", "w", force_zip64=True) as member:
            member.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
            for _ in range(256):
                member.write(bytes(2**24))
        with archive.open("labels.npy", "w") as member:
            np.lib.format.write_array(member, np.arange(10) % 2)


def _pictures(name: str, folder: Path, rng: np.random.Generator) -> None:
    """Write a folder of images in train/CLASS and test/CLASS."""
    for split, count in (("train", 12), ("test", 6)):
        for label in ("a", "b"):
            place = folder / "images" / split / label
            place.mkdir(parents=True)
            for i in range(1 if name == "one picture" else count):
                _picture(name, place, i, rng)
    first = folder / "images" / "train"
    if name == "an empty class":
        (first / "c").mkdir()
    elif name == "a broken picture":
        (first / "a" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    elif name == "a name of bytes":
        Path(str(first / "a")).rename(Path(str(first) + "/\udcff\udcfe"))
    elif name == "a link":
        (first / "a" / "loop.png").symlink_to("loop.png")


def _picture(name: str, place: Path, i: int, rng: np.random.Generator) -> None:
    side = int(rng.integers(1, 40)) if name == "mixed sizes" else 8
    pixels = rng.integers(0, 255, (side, 8, 3)).astype("u1")
    modes = ("RGB", "L", "RGBA", "P", "1", "I;16", "CMYK", "LA")
    mode = modes[i % len(modes)] if name == "mixed kinds" else "L"
    if mode == "I;16":
        Image.fromarray(pixels[:, :, 0].astype("u2") * 200).save(place / f"{i}.png")
    else:
        end = "jpg" if mode == "CMYK" else "png"
        Image.fromarray(pixels).convert(mode).save(place / f"{i}.{end}")
