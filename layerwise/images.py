"""The images of a run: those in its file, else read again from where they came from, if they are still the same.

A folder of images is read file by file, each compared with the SHA-256 in the run file. Published data sets, and
folders of run files that name no files, are loaded as for the training, and compared by the fingerprint of each split.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import numpy as np

from layerwise.config import DataConfig
from layerwise.datasets.dataset import OWN, load_configured
from layerwise.datasets.reread import RereadImages, require_pixels, require_same, say_added
from layerwise.datasets.split import SplitFiles
from layerwise.datasets.survey import decoders
from layerwise.errors import UserError
from layerwise.runfile import Rows, RunFile

log = logging.getLogger("layerwise.images")

Images = Rows | RereadImages | np.ndarray
# What was opened for each run, by split: a run is asked for its images at every depth.
_reread: WeakKeyDictionary[RunFile, dict[str, RereadImages | np.ndarray]] = WeakKeyDictionary()
_said: WeakSet[RunFile] = WeakSet()  # runs of which it was said what is wrong with their folder
GIVE = "Give their folder by --data-dir."


class NoImages(UserError):
    """Images that are neither in a run file, nor anywhere that it knows."""


def images_of(run: RunFile, split: str) -> Images:
    """Return the images of a split, uint8 [n, C, H, W]: those in the file, else `reread_images`, raising as it does."""
    stored = run.images(split)
    return reread_images(run, split) if stored is None else stored


def images_if_any(run: RunFile, split: str, rows: slice | np.ndarray) -> np.ndarray | None:
    """Return some images of a split, uint8 [rows, C, H, W]; None where there are none, for what can go on without.

    What is wrong with the folder that a run file names is said in one line; with one that was given, it is an error.
    """
    try:
        return images_of(run, split)[rows]
    except UserError as error:
        if run.data_dir is not None:
            raise
        if not isinstance(error, NoImages) and run not in _said:
            _said.add(run)
            log.warning("the images of %s are not used: %s", run.path, error)
        return None


def recorded_files(run: RunFile, split: str) -> SplitFiles | None:
    """Return the files that a run names for a split, wherever they are now; None where it names none."""
    if (found := run.files(split)) is None:
        return None
    made, (image, resize) = run.provenance, run.image_form
    root = Path(made.get("data_dir", ""))
    return SplitFiles(root, int(made.get("image_files", 0)), _safe(run, found[0][:]), found[1][:], image, resize)


def reread_images(run: RunFile, split: str) -> RereadImages | np.ndarray:
    """Return the images of a split, read again from where they came from.

    Raises:
        NoImages: nothing says where that is, or nothing is there.
        UserError: they are not the same any more.
    """
    opened = _reread.setdefault(run, {})
    if split not in opened:
        if run.files(split) is None:
            opened.update(_loaded(run))
        else:
            opened[split] = _from_files(run, split, is_first=not opened)
    return opened[split]


def recorded_folder(run: RunFile) -> Path | None:
    """Return the folder of a run's data: the one that was given, else the one it was made of, if that is there.

    Last comes the folder that the environment names.
    """
    recorded, named = run.provenance.get("data_dir", ""), os.environ.get("LAYERWISE_DATA", "")
    found = [Path(folder) for folder in (recorded, named) if folder and Path(folder).is_dir()]
    return run.data_dir or next(iter(found), None)


def _from_files(run: RunFile, split: str, *, is_first: bool) -> RereadImages:
    """Return the images of a split whose files the run names."""
    root, made, whose = recorded_folder(run), run.provenance, run.path.name
    if root is None:
        was = made.get("data_dir")
        raise NoImages(f"It names the files that they were in, below {was}, which is not there. {GIVE}")
    if not root.is_dir():
        raise UserError(f"{root} {'is no folder' if root.exists() else 'does not exist'}. {GIVE}")
    named = recorded_files(run, split)
    assert named is not None
    files = replace(named, root=root)
    if is_first:
        log.info("images: read again from %s, checked by their digests", root)
        first = [paths[:1][0] for name in run.splits if (paths := (run.files(name) or [None])[0]) is not None]
        say_added(root, first, files.found, whose)
    require_same(files, split, whose)
    images = RereadImages(files, whose)
    if json.loads(made.get("decoders", "[]")) != list(decoders()):
        then = run.dataset["fingerprint"].get(split, "")
        require_pixels(images, run.labels(split), run.indices(split), then, split, whose)
    return images


def _safe(run: RunFile, names: np.ndarray) -> np.ndarray:
    """Return paths of files that lead nowhere but into their folder; raise UserError for a run file with others."""
    enclosed = np.char.add(np.char.add(b"/", names), b"/")
    if (np.char.startswith(names, b"/") | (np.char.find(enclosed, b"/../") >= 0)).any():
        raise UserError(f"{run.path} names files outside of the folder of its images. Take an intact copy.")
    return names


def _loaded(run: RunFile) -> dict[str, RereadImages | np.ndarray]:
    """Return the images of all splits of a data set that is loaded as for the training."""
    config = data_config(run)
    if config is None or config.dataset == OWN:
        raise NoImages("It was made of data that were given in Python, or of arrays, and does not know where they are.")
    root = recorded_folder(run)
    if root is None and config.dataset != "digits":
        raise NoImages(f"It was made of {config.dataset}, of which no folder is known here. {GIVE}")
    where = config.dataset if config.dataset == "digits" else f"{config.dataset} below {root}"
    log.info("images: read again from %s, compared by the fingerprint of each split", where)
    splits = load_configured(config, root).splits
    then = run.dataset["fingerprint"]
    if others := [name for name in run.splits if name not in splits or splits[name].fingerprint() != then.get(name)]:
        raise UserError(
            f"{where} is not what {run.path} was made of: {', '.join(others)} {'differ' if others[1:] else 'differs'}. "
            "Give the folder that was used by --data-dir."
        )
    return {
        name: split.images
        if split.kept == "memory" or split.files is None
        else RereadImages(split.files, run.path.name)
        for name, split in splits.items()
    }


def data_config(run: RunFile) -> DataConfig | None:
    """Return the configuration of a run's data; None where it knows none."""
    if run.config is not None:
        return run.config.data
    facts: Mapping[str, Any] = (run.extraction or {}).get("data") or {}
    known = {field.name for field in fields(DataConfig)}
    given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in facts.items() if name in known}
    return DataConfig(**given) if given else None
