"""Folders of real photographs of mixed sizes, as benchmarks of streamed images read them.

    python tests/benchmarks/photographs.py ARCHIVE FOLDER --images 12000

takes the first images of an archive (train/CLASS/*, test/CLASS/*, as Imagenette has them) and writes them as JPEGs
whose shorter side has 160 to 240 pixels: one of each class in CMYK, one grey, one a PNG under a JPEG's name.
"""

from __future__ import annotations

import argparse
import io
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

TEST_SHARE = 1 / 6


def of_archive(archive: Path, images: int) -> Iterator[tuple[str, Image.Image]]:
    """Yield split and class, as a path, with the first photographs of an archive, nearly alike many of each class."""
    wanted = {"train": round(images * (1 - TEST_SHARE)), "test": round(images * TEST_SHARE)}
    with tarfile.open(archive) as tar:
        members = [member for member in tar.getmembers() if member.isfile()]
        classes = sorted({Path(member.name).parts[-2] for member in members})
        taken: Counter[str] = Counter()
        for member in members:
            split, name = Path(member.name).parts[-3:-1]
            place = f"{split}/{name}"
            if taken[place] < -(-wanted[split] // len(classes)):
                taken[place] += 1
                file = tar.extractfile(member)
                assert file is not None
                with Image.open(io.BytesIO(file.read())) as image:
                    yield place, image.convert("RGB")


def enlarged(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return a photograph brought to a size of its own, its shorter side 160 to 240 pixels."""
    shorter, ratio = int(rng.integers(160, 241)), rng.uniform(1, 1.5)
    longer = int(shorter * ratio)
    return image.resize((shorter, longer) if rng.random() < 0.5 else (longer, shorter), Image.Resampling.BICUBIC)


def write(photographs: Iterator[tuple[str, Image.Image]], folder: Path) -> int:
    """Write photographs into a folder, and return how many."""
    rng, count = np.random.default_rng(0), Counter[str]()
    for place, photograph in photographs:
        image, number = enlarged(photograph, rng), count[place]
        count[place] += 1
        (folder / place).mkdir(parents=True, exist_ok=True)
        image = image.convert({0: "CMYK", 1: "L"}.get(number, "RGB"))
        image.save(folder / place / f"{number:05}.JPEG", "PNG" if number == 2 else "JPEG", quality=90)
    return count.total()


def of_samples(folder: Path, images: int) -> Path:
    """Write pieces of scikit-learn's two photographs, of mixed sizes, in two classes; return the folder."""
    from sklearn.datasets import load_sample_images

    pictures, rng = load_sample_images().images, np.random.default_rng(0)

    def pieces() -> Iterator[tuple[str, Image.Image]]:
        for i in range(images):
            picture = pictures[i % 2]
            top, left = rng.integers(0, picture.shape[0] - 250), rng.integers(0, picture.shape[1] - 300)
            split = "test" if i % 12 < 2 else "train"
            yield f"{split}/{'ab'[i % 2]}", Image.fromarray(picture[top : top + 250, left : left + 300])

    write(pieces(), folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=12_000)
    words = parser.parse_args()
    print(f"{words.folder}: {write(of_archive(words.archive, words.images), words.folder):,} images")


if __name__ == "__main__":
    main()
