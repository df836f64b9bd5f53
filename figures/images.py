"""What image-depth draws: shares of single images against depth, and the atlas; for the command and for Python."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis import image_depths
from analysis.images.predictions import lines
from analysis.images.table import Asked, Tables, by_image
from figures import output
from figures.kit.style import rendered
from figures.plots import atlas
from figures.plots import images as images_plot
from layerwise.errors import UsageError, UserError, unknown
from layerwise.runfile.given import Run, Runs, opened
from layerwise.spoken import python_call
from probes.csvfile import write_csv

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from figures.output import Made
    from layerwise.runfile import RunFile


log = logging.getLogger("layerwise.figures")


class NoPictures(UserError):
    """A run whose test images cannot be shown."""


@python_call("image-depth")
def draw_images(
    runs: Runs | pd.DataFrame,
    probes: str | Sequence[str] | None = None,
    *,
    size: str = "single",
    ax: Any = None,
    **how: Any,
) -> Figure:
    """Return the figure of how many test images are settled, learnt and lost at each depth.

    Args:
        runs: run files on the same images with predictions beside them, or rows of `analysis.image_depths`.
        probes: knn, linear, linear-ovr, ncm; None for knn and linear, where a run or the table has them.
        size: "single" (85 mm wide) or "double" (170 mm).
        ax: axes of a figure of your own, one for each of the four panels.
        how: of `analysis.image_depths`, where runs are given.
    """
    _check_size(size)
    if not isinstance(runs, pd.DataFrame):
        table = image_depths(runs, probes, **how)
    elif how:
        raise UsageError(f"the rows are given, so {', '.join(how)} cannot change them. Leave it out, or give the runs.")
    elif not {"measure", "probe", "value"} <= set(runs):
        raise UsageError("the table lacks measure, probe or value, which rows of analysis.image_depths have.")
    else:
        table = runs if probes is None else runs[runs["probe"].isin([probes] if isinstance(probes, str) else probes)]
    if not (table["measure"] == "settled").any():
        raise UsageError(f"there is nothing to draw: the table has no rows of {probes or 'any probe'}.")
    if ax is not None and np.size(ax) != images_plot.COUNT:
        raise UsageError(f"{np.size(ax)} axes were given for {images_plot.COUNT} panels. Give one for each.")
    return images_plot.draw(table, size, ax)


@python_call("image-depth")
def draw_atlas(
    run: Run,
    probe: str | None = None,
    *,
    pool: int = 2,
    rows: int = atlas.ROWS,
    seed: int = 0,
    size: str = "single",
    ax: Any = None,
) -> Figure:
    """Return the atlas of a run: test images in columns by their prediction depth.

    Args:
        run: a run file that holds its images, or knows where they are, with predictions beside it.
        probe: knn, linear, linear-ovr or ncm; None for knn, or linear where the run has no knn.
        pool: side of the average A that the probe reads. rows: of images, drawn with `seed`.
        size: "single" (85 mm wide) or "double" (170 mm). ax: axes of a figure of your own.

    Raises UserError where the run holds no images, or no predictions of the probe.
    """
    _check_size(size)
    return atlas_made(run, None if probe is None else [probe], pool, rows, seed, size, ax)[0]


def atlas_made(
    run: Run, probes: Sequence[str] | None, pool: int, rows: int, seed: int, size: str, ax: Any = None
) -> Made:
    """Return the figure of `draw_atlas` by the first of the probes, the images of the run, and the caption."""
    if rows < 1:
        raise UsageError(f"rows is {rows}, but takes a number of rows of images, from 1 on.")
    with opened(run) as file:
        line = lines(file, probes, pool)[0]
        single = by_image(file, line, None)
        beside = 1 if ax is not None else atlas.beside(single, size)
        sample = atlas.sampled(single, rows * beside, seed)
        figure = atlas.draw(sample, _pixels(file, sample), size, beside, ax)
    return figure, sample, atlas.caption(sample, seed)


def _pixels(run: RunFile, sample: pd.DataFrame) -> dict[int, np.ndarray]:
    """Return the images that are shown, uint8 [H, W, 3] by index; grey ones in three equal channels."""
    from layerwise.images import images_if_any

    place = {int(index): row for row, index in enumerate(run.indices("test"))}
    shown = [int(index) for index in sample.loc[sample["place"] >= 0, "index"]]
    found = images_if_any(run, "test", np.array([place[index] for index in shown], dtype=np.int64))
    if found is None:
        raise NoPictures(f"{run.path} holds no images, so there is no atlas of it.")
    if found.shape[1] not in (1, 3):
        raise NoPictures(f"{run.path} holds images of {found.shape[1]} channels; an atlas shows 1 or 3.")
    return {index: _seen(image) for index, image in zip(shown, found, strict=True)}


def _seen(image: np.ndarray) -> np.ndarray:
    """Return an image [C, H, W] as [H, W, 3]."""
    seen: np.ndarray = np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0)
    return seen


def made(
    runs: Sequence[Path], tables: Tables, asked: Asked, rows: int, seed: int, size: str, data_dir: Path | None = None
) -> dict[str, Made]:
    """Return the figures of the command by name: `images`, and of the first run the `atlas`, unless rows is 0.

    A run without pictures, as of arrays, has no atlas, which is said. data_dir: the folder of the images of the first
    run, where it holds none.
    """
    from layerwise.runfile import RunFile

    found = {"images": (images_plot.draw(tables.depths, size), tables.depths, images_plot.caption(tables.depths))}
    if rows:
        try:
            with RunFile(runs[0], data_dir) as first:
                found["atlas"] = atlas_made(first, asked.probes, asked.pool, rows, seed, size)
        except NoPictures as error:
            log.warning("%s", error)
    return found


def contents(figures: dict[str, Made], tables: Tables, paths: dict[str, dict[str, Path]]) -> dict[Path, bytes]:
    """Return what each file of the command holds."""
    found: dict[Path, bytes] = {}
    for name, (figure, table, words) in figures.items():
        files = rendered(figure) | {".csv": str(write_csv(table)).encode(), ".txt": f"{words}\n".encode()}
        found |= {path: files[suffix] for suffix, path in paths[name].items()}
    for name, table in (("single", tables.single), ("pairs", tables.pairs)):
        if name in paths and len(table):
            found[paths[name][".csv"]] = str(write_csv(table)).encode()
    return found


def _check_size(size: str) -> None:
    if size not in output.SIZES:
        raise unknown("size", size, output.SIZES)
