"""The test images of a run as folders of image files, corrupted: what `probe-depth --evaluate` reads.

Each corruption and severity is a folder OUT/CORRUPTION/SEVERITY/CLASS/NNNNN.png, which appears whole or not at all; a
file is named by the image's position in the published test split. OUT/recipe.json says of each such set from which
images and seed it was made.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from layerwise.activations import require_images
from layerwise.commandline import progress
from layerwise.datasets.corrupted_sets import RECIPE, Made, note_made, read_recipe
from layerwise.datasets.corruptions import CORRUPTIONS, SEVERITIES, corrupted
from layerwise.datasets.folder import some
from layerwise.datasets.shown import folder_name
from layerwise.errors import UsageError, UserError, option, unknown
from layerwise.images import Images
from layerwise.model.seeds import derive_seed
from layerwise.runfile import RunFile

AT_ONCE = 256  # images that are read, corrupted and written together, so that memory does not grow with the split


def corrupt_run(
    run: RunFile,
    out: Path,
    *,
    corruptions: Sequence[str] | None = None,
    severities: Sequence[int] = SEVERITIES,
    seed: int = 0,
    force: bool = False,
) -> list[Path]:
    """Write corrupted test images of a run below a folder; return the folder of each corruption and severity.

    Sets that are there already, of the same images and seed, are left as they are. `force` makes those anew that are
    asked for, of other images or another seed too; no other file is touched.

    Raises UserError for a run whose images are nowhere, or a folder that holds something else.
    """
    chosen = tuple(CORRUPTIONS) if corruptions is None else tuple(dict.fromkeys(corruptions))
    for what, asked, known in (("corruption", chosen, CORRUPTIONS), ("severity", severities, SEVERITIES)):
        for one in asked:
            if one not in known:
                raise unknown(what, one, known)
    if not 0 <= seed < 2**32:
        raise UsageError(f"{option('seed')} is {seed}, but must be an integer in [0, 2^32).")
    images = require_images(run, "test")
    sets = [f"{name}/{severity}" for name in chosen for severity in dict.fromkeys(severities)]
    how = Made(run.dataset["name"], run.dataset["fingerprint"]["test"], seed)
    _require_ours(out, sets, how, force)
    out.mkdir(parents=True, exist_ok=True)
    note_made(out, {})
    with progress() as bar:
        task = bar.add_task("corrupting", total=len(sets))
        for name in sets:
            bar.update(task, description=name)
            if force or not (out / name).exists():
                _make(run, images, out, name, how)
            bar.advance(task)
    return [out / name for name in sets]


def _require_ours(out: Path, sets: Sequence[str], how: Made, force: bool) -> None:
    """Raise UserError for a folder in which something else is, or would be replaced by, the sets asked for."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is no folder. Give another -o.")
    recipe = read_recipe(out)
    there = [name for name in sets if (out / name).exists()]
    # What no recipe names was not made here, and is nobody's to replace: --force too leaves it.
    if unnamed := [name for name in there if name not in recipe]:
        raise UserError(
            f"{out / unnamed[0]} is there, but {RECIPE} in {out} does not say that layerwise-corrupt made it, so it is "
            "not replaced. Move it away, or give another -o."
        )
    if force:
        return
    if others := [name for name in there if recipe[name] != how]:
        raise UserError(
            f"{out} holds {some(others, 1)} {_differs(recipe[others[0]], how)}. Give another -o, or --force to make "
            "what is asked for anew; the other sets there stay as they are."
        )
    if others := [name for name, made in recipe.items() if made.images != how.images]:
        raise UserError(
            f"{out} holds {some(others, 1)} {_differs(recipe[others[0]], how)}. Give another -o, or --force to write "
            f"those of {how.dataset} among them."
        )
    if not (out / RECIPE).exists() and out.exists() and any(out.iterdir()):
        raise UserError(
            f"{out} holds something else than corrupted images. Give another -o, or --force to write among it."
        )


def _differs(then: Made, now: Made) -> str:
    if then.images != now.images:
        return f"of other test images ({then.dataset})"
    return f"by seed {then.seed}, not {now.seed}"


def _make(run: RunFile, images: Images, out: Path, name: str, how: Made) -> None:
    """Make one set; the recipe has it just before it has its name, so that none ever has the record of another."""
    place = out / name
    partial = place.with_name(f".{place.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    _write(partial, run, images, name, how.seed)
    if place.exists():
        shutil.rmtree(place)
    note_made(out, {name: how})
    os.rename(partial, place)


def _write(folder: Path, run: RunFile, images: Images, name: str, seed: int) -> None:
    """Write all images of a run, corrupted, into the folders of their classes."""
    from PIL import Image

    corruption, severity = name.split("/")
    rng = np.random.default_rng(derive_seed(seed, f"corrupted {corruption}", int(severity)))
    classes = [folder_name(name) for name in run.dataset["classes"]]
    for one in classes:
        (folder / one).mkdir(parents=True)
    labels, indices = run.labels("test"), run.indices("test")
    for start in range(0, len(labels), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        some = corrupted(images[rows], corruption, int(severity), rng)
        for image, label, index in zip(some, labels[rows], indices[rows], strict=True):
            pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
            # Little is gained by more compression, and these are many files.
            Image.fromarray(pixels).save(folder / classes[label] / f"{index:05d}.png", compress_level=1)
