"""How the images of a folder are read: held in memory where they fit, else decoded anew whenever they are used.

Either way gives the same pixels in the same splits, so it is a fact of the machine and stands in no configuration.
Memory is filled straight into its place: which files are of which split is known before one is opened.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from layerwise import launch
from layerwise.config import DataConfig
from layerwise.datasets.filling import decode, first_form
from layerwise.datasets.folder import Files, find_files, require_images
from layerwise.datasets.folds import fold_rows
from layerwise.datasets.index import Index, index_of, known_index
from layerwise.datasets.pictures import Form, different_sizes
from layerwise.datasets.split import Split, SplitFiles, channel_statistics, file_bytes, statistics_of
from layerwise.datasets.stream import StreamedSplit
from layerwise.datasets.workers import cores
from layerwise.errors import UsageError, UserError, option, unknown
from layerwise.units import show_size

log = logging.getLogger("layerwise.imagefolder")

READINGS = ("auto", "memory", "stream")
# At most this share of free memory is taken by images that nobody asked to be held: the rest is for training.
SHARE = 0.5
TIMED = 0.3  # seconds for which decoding is timed, to say at what rate images can come


@dataclass(frozen=True, kw_only=True)
class ImageReading:
    """How a machine reads images.

    how: "memory", "stream" (decoded whenever they are used), or "auto", memory where they take at most half of what is
    free. workers: processes that decode; None for one less than there are cores for each rank, 0 for none beside this
    one.
    skip_broken: whether files that cannot be read are left out; else they are refused.
    """

    how: str = "auto"
    workers: int | None = None
    skip_broken: bool = False

    def __post_init__(self) -> None:
        if self.how not in READINGS:
            raise unknown(f"way of reading images ({option('read')})", self.how, READINGS)

    def of_originals(self, needed: bool) -> ImageReading:
        """Return how images are read whose originals are cropped whenever they are used: from their files.

        needed: whether they are.

        Raises UsageError where they are to be held in memory.
        """
        if needed and self.how == "memory":
            raise UsageError(
                f"{option('read', 'memory')} holds images as they are scored, but training.crop=random-resized cuts "
                "from the original ones, which stay in their files. Leave it out."
            )
        return replace(self, how="stream") if needed else self

    @property
    def processes(self) -> int:
        """Number of processes that decode."""
        return max(1, cores() // launch.local_count() - 1) if self.workers is None else self.workers


AUTO = ImageReading()


@dataclass(frozen=True)
class Part:
    """Files of one split: their rows in the folder's `Files`, and their positions in the published split."""

    rows: np.ndarray
    position: np.ndarray


@dataclass(frozen=True)
class Folder:
    """Which files of a folder are of which split, and what is known of them.

    index: of all of them, where one was made.
    """

    files: Files
    parts: dict[str, Part]
    index: Index | None

    def form(self, image_size: int, eval_resize: int = 0) -> Form:
        """Return the form of all images; without an index, what the first one says of it."""
        rows = np.concatenate([part.rows for part in self.parts.values()])
        if self.index is None:
            paths = (self.files.paths(rows[i : i + 1])[0] for i in range(len(rows)))
            return first_form(paths, image_size, eval_resize)
        records, (first,) = self.index.records, self.files.paths(rows[:1])
        channels = 1 if (records["channels"] <= 1).all() else 3
        if image_size:
            return Form(channels, image_size, image_size, first, resized=True, shorter=eval_resize or image_size)
        form = Form(channels, int(records["height"][rows[0]]), int(records["width"][rows[0]]), first, resized=False)
        sizes = np.stack([records["height"][rows], records["width"][rows]])
        if len(others := np.flatnonzero((sizes != sizes[:, :1]).any(0))):
            (other,) = self.files.paths(rows[others[:1]])
            raise different_sizes(form, other, *sizes[:, others[0]].tolist())
        return form


def find_folder(files: Files, index: Index | None, config: DataConfig, *, skip_broken: bool, is_most: bool) -> Folder:
    """Say which files are of which split, as far as an index knows without those that cannot be read.

    is_most: whether a train split of fewer images than `config.subset` is taken whole.

    Raises UserError, naming them, where files of a split are broken and not to be skipped.
    """
    taken = np.ones(len(files.label), dtype=bool)
    if index is not None and skip_broken:
        taken = index.records["channels"] > 0
        _say_skipped(index, np.flatnonzero(~taken))
    parts = {}
    for name, is_own in (("train", ~files.tested), ("test", files.tested)):
        own = np.flatnonzero(is_own)
        position = np.flatnonzero(taken[own])
        parts[name] = Part(own[position], position)
        missing = np.setdiff1d(np.arange(len(files.classes)), files.label[parts[name].rows])
        if len(missing):
            raise UserError(f"no image of class {files.classes[missing[0]]} in {name} can be read. Replace them.")
    train = parts["train"]
    kept, held = fold_rows(
        files.label[train.rows], files.classes, holdout=config.holdout, fold_seed=config.fold_seed,
        subset=0 if is_most and len(train.rows) < config.subset else config.subset,
    )  # fmt: skip
    found = {
        name: Part(train.rows[some], train.position[some]) for name, some in (("train", kept), ("validation", held))
    }
    if len(held) == 0:
        del found["validation"]
    folder = Folder(files, found | {"test": parts["test"]}, index)
    if index is not None:
        rows = np.concatenate([part.rows for part in folder.parts.values()])
        index.account(rows).require_read()
    return folder


def _say_skipped(index: Index, rows: np.ndarray) -> None:
    if len(rows):
        path, why = index.files.paths(rows[:1])[0], index.broken[int(rows[0])][1]
        log.warning(
            "%s: %d files cannot be read and are skipped (first %s: %s)", index.files.root, len(rows), path, why
        )


def read_folder(
    config: DataConfig, data_dir: Path | None, reading: ImageReading, *, is_most: bool
) -> tuple[tuple[str, ...], dict[str, Split], tuple[tuple[float, ...], tuple[float, ...]]]:
    """Return the classes of a folder of images, its splits, and mean and deviation a channel of the train fold.

    Raises UserError for files that cannot be read, images of several sizes, and images that are to be held in memory
    and do not fit.
    """
    files = find_files(require_images(data_dir), config.test_share)
    index = index_of(files, reading.workers) if reading.skip_broken else None
    folder = find_folder(files, index, config, skip_broken=reading.skip_broken, is_most=is_most)
    form, room = folder.form(config.image_size), free_memory()
    given, sizes = constants_of(config, form.channels), _held(folder, form)
    if is_held(sizes, reading, room):
        splits, how = _in_memory(folder, config), "held in memory"
        constants = given or channel_statistics(splits["train"].images)
    else:
        if folder.index is None:
            index = index_of(files, reading.workers)
            folder = find_folder(files, index, config, skip_broken=False, is_most=is_most)
        streamed = _streamed(folder, config, reading.processes)
        splits, how = dict(streamed), _rate(streamed["train"])
        constants = given or statistics_of(streamed["train"].survey.histogram)
    free = f" ({show_size(room)} is free)" if room else ""
    size = show_size(sum(split.nbytes for split in splits.values()))
    counts = f"{int((~files.tested).sum()):,} for train and {int(files.tested.sum()):,} for test"
    log.info(
        "%s: %s images of %d classes, %s; %s, %s%s",
        files.root, f"{len(files.label):,}", len(files.classes), counts, size, how, free,
    )  # fmt: skip
    return files.classes, splits, constants


def constants_of(config: DataConfig, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return the mean and deviation that a configuration states; None where it states none.

    Raises UsageError where they are not as many as the channels of the images.
    """
    if config.mean and len(config.mean) != channels:
        raise UsageError(
            f"{option('mean')} has {len(config.mean)} numbers, but the images have {channels} channels: give one each, "
            "or leave them out."
        )
    return (config.mean, config.std) if config.mean else None


def folder_counts(
    config: DataConfig, data_dir: Path | None, reading: ImageReading, *, is_most: bool
) -> tuple[tuple[int, int, int], int, dict[str, int], int]:
    """Return shape (C, H, W) of an image, number of classes, images of each split, and bytes of what names their files.

    By the index where there is one, which is believed: no file of the folder is then looked at. Else files are found,
    and one of them is opened.
    """
    root = require_images(data_dir)
    index = known_index(root, config.test_share)
    if index is not None:
        log.info("%s: by its index of %s; no image is opened", root, index.made)
    files = find_files(root, config.test_share) if index is None else index.files
    folder = find_folder(files, index, config, skip_broken=reading.skip_broken, is_most=is_most)
    form = folder.form(config.image_size)
    counts = {name: len(part.rows) for name, part in folder.parts.items()}
    named = sum(len(part.rows) * file_bytes(files.names[part.rows]) for part in folder.parts.values())
    return (form.channels, form.height, form.width), len(files.classes), counts, named


def _in_memory(folder: Folder, config: DataConfig) -> dict[str, Split]:
    """Decode each split into its place."""
    files, parts = folder.files, folder.parts
    rest = np.setdiff1d(np.arange(len(files.label)), np.concatenate([part.rows for part in parts.values()]))
    paths = [files.paths(part.rows) for part in parts.values()]
    arrays = decode(paths, config.image_size, files.paths(rest), config.eval_resize)
    resize, found = (config.eval_resize or config.image_size) if config.image_size else 0, {}
    for (name, part), (images, sha256) in zip(parts.items(), arrays, strict=True):
        _, channels, height, width = images.shape
        own = SplitFiles(
            files.root, len(files.names), files.names[part.rows], sha256, (channels, height, width), resize
        )
        found[name] = Split(images, files.label[part.rows], part.position, own)
    return found


def _streamed(folder: Folder, config: DataConfig, workers: int) -> dict[str, StreamedSplit]:
    index, form = folder.index, folder.form(config.image_size, config.eval_resize)
    assert index is not None
    index.account(np.concatenate([part.rows for part in folder.parts.values()])).say_changed()
    return {name: StreamedSplit(index, part.rows, part.position, form, workers) for name, part in folder.parts.items()}


def _rate(split: StreamedSplit) -> str:
    """Say that images are decoded anew in each epoch, and about how many a second: timed here on some of them."""
    one = StreamedSplit(split.folder, split.rows, split.index, split.form, 0)
    one.read(np.array([0]))  # the first one loads what decodes
    start, done = time.perf_counter(), 0
    while (taken := time.perf_counter() - start) < TIMED and done < len(split.label):
        one.read(np.array([done]))
        done += 1
    processes = max(1, split.workers)
    by = f"{processes} process" + ("es" if processes > 1 else "")
    return f"decoded anew in each epoch by {by}: about {processes * done / taken:,.0f} images/s"


def _held(folder: Folder, form: Form) -> dict[str, int]:
    """Return the bytes that each split takes in memory."""
    one = form.channels * form.height * form.width
    return {name: one * len(part.rows) for name, part in folder.parts.items()}


def free_memory() -> int:
    """Return the bytes of memory that are free; 0 where the system does not say it."""
    from layerwise.hardware import memory_room

    return memory_room()


def is_held(sizes: Mapping[str, int], reading: ImageReading, room: int) -> bool:
    """Return whether images of so many bytes, by split, are held in memory; raise UserError where they cannot be."""
    total = sum(sizes.values())
    if reading.how == "memory" and room and total > room:
        raise _too_large(sizes, room)
    return reading.how == "memory" or (reading.how == "auto" and (not room or total <= SHARE * room))


def _too_large(sizes: Mapping[str, int], room: int) -> UserError:
    parts = ", ".join(f"{name} {show_size(size)}" for name, size in sizes.items())
    return UserError(
        f"the images do not fit into memory: {parts}, and {show_size(room)} is free. {option('read', 'stream')} "
        f"decodes them anew in each epoch instead; {option('image_size')} or {option('subset')} makes less of them."
    )
