"""CIFAR-10 as a folder, train/CLASS and test/CLASS, that travels in two archives: unpacking, and what is missing."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from layerwise.errors import UserError, one_line

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# Images of each folder, by the archive that holds it.
PARTS = (
    {f"train/{name}": 5000 for name in CLASSES[:6]},
    {f"train/{name}": 5000 for name in CLASSES[6:]} | {f"test/{name}": 1000 for name in CLASSES},
)


def unpack(archives: Sequence[Path], folder: Path) -> None:
    """Unpack archives into a folder; raise UserError for one that is none, or that would write anywhere else."""
    for archive in archives:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
        except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
            raise UserError(
                f"{archive} cannot be unpacked into {folder} ({one_line(error)}). Give a whole part of CIFAR-10."
            ) from error


def require_whole(folder: Path) -> None:
    """Raise UserError unless a folder holds all images of CIFAR-10, naming the part that is missing."""
    found = {place: sum(1 for _ in (folder / place).glob("[!.]*")) for part in PARTS for place in part}
    missing = []
    for number, part in enumerate(PARTS, start=1):
        if lacking := [place for place, count in part.items() if found[place] != count]:
            more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            missing.append(f"part {number} of {len(PARTS)} ({lacking[0]}{more})")
    if missing:
        train, test = (sum(n for place, n in found.items() if place.startswith(split)) for split in ("train", "test"))
        raise UserError(
            f"{folder} holds {train:,} of 50,000 training and {test:,} of 10,000 test images of CIFAR-10: missing is "
            f"{' and '.join(missing)}. Give its archive by --archives; nothing was trained."
        )
