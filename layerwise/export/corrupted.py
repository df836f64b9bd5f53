"""The test images of a run as folders of image files, corrupted: what `probe-depth --evaluate` reads.

Each corruption and severity is a folder OUT/CORRUPTION/SEVERITY/CLASS/NNNNN.png, which appears whole or not at all; a
file is named by the image's position in the published test split. OUT/recipe.json says of which run and seed they are.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from layerwise.commandline import progress
from layerwise.datasets.corruptions import CORRUPTIONS, SEVERITIES, corrupted
from layerwise.datasets.shown import folder_name
from layerwise.errors import UsageError, UserError, option, unknown
from layerwise.model.seeds import derive_seed
from layerwise.runfile import RunFile

log = logging.getLogger("layerwise.export")

RECIPE = "recipe.json"


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

    What is there already, of the same run and seed, is left as it is but for `force`.

    Raises UserError for a run without images, or a folder that holds something else.
    """
    chosen = tuple(CORRUPTIONS) if corruptions is None else tuple(dict.fromkeys(corruptions))
    for what, asked, known in (("corruption", chosen, CORRUPTIONS), ("severity", severities, SEVERITIES)):
        for one in asked:
            if one not in known:
                raise unknown(what, one, known)
    if not 0 <= seed < 2**32:
        raise UsageError(f"{option('seed')} is {seed}, but must be an integer in [0, 2^32).")
    images = run.images("test")
    if images is None:
        raise UserError(
            f"{run.path} holds no images, so none can be corrupted. Make it again with a larger --max-size, which "
            "leaves room for them."
        )
    _claim(run, out, seed, force)
    found = [(name, severity) for name in chosen for severity in dict.fromkeys(severities)]
    with progress() as bar:
        task = bar.add_task("corrupting", total=len(found))
        for name, severity in found:
            bar.update(task, description=f"{name}, severity {severity}")
            place = out / name / str(severity)
            if force or not place.exists():
                rng = np.random.default_rng(derive_seed(seed, f"corrupted {name}", severity))
                _write(place, corrupted(images[:], name, severity, rng), run)
            bar.advance(task)
    return [out / name / str(severity) for name, severity in found]


def _claim(run: RunFile, out: Path, seed: int, force: bool) -> None:
    """Write the recipe into the folder; raise UserError where it holds something else."""
    recipe = {"images": run.dataset["fingerprint"]["test"], "dataset": run.dataset["name"], "seed": seed}
    path = out / RECIPE
    text = json.dumps(recipe, sort_keys=True, indent=1) + "\n"
    is_ours = path.is_file() and path.read_text() == text
    if not is_ours and not force and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(
            f"{out} holds something else than corrupted test images of {run.dataset['name']} by seed {seed}. Give "
            "another -o, or --force to write among it."
        )
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _write(place: Path, images: np.ndarray, run: RunFile) -> None:
    """Write images uint8 [n, C, H, W] into the folders of their classes, under another name until all are there."""
    from PIL import Image

    classes = [folder_name(name) for name in run.dataset["classes"]]
    partial = place.with_name(f".{place.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name in classes:
        (partial / name).mkdir(parents=True)
    for image, label, index in zip(images, run.labels("test"), run.indices("test"), strict=True):
        pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        # Little is gained by more compression, and these are many files.
        Image.fromarray(pixels).save(partial / classes[label] / f"{index:05d}.png", compress_level=1)
    shutil.rmtree(place, ignore_errors=True)
    os.rename(partial, place)
