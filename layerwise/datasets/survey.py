"""What one pass over the decoded images of a split finds, remembered beside the index so that it is made once.

It is asked for by the digests of the files, their labels and order, the form of the images, and the versions of what
decodes them: so the fingerprint over pixels that run files hold follows from an index without decoding.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from layerwise.datasets.index import homes
from layerwise.datasets.split import SplitFiles
from layerwise.errors import UserError
from layerwise.publication import published

log = logging.getLogger("layerwise.imagefolder")

NAME = ".layerwise-pixels.json"
MOST = 64  # splits that are remembered of a folder, the youngest: each takes 5 KB


@dataclass(frozen=True)
class Survey:
    """fingerprint: of the split (`Split.fingerprint`). histogram: int64 [C, 256], pixels of each channel and value."""

    fingerprint: str
    histogram: np.ndarray


@cache
def decoders() -> tuple[str, ...]:
    """Return the versions of what decodes and resizes: pixels of a JPEG can differ by a grey level between them."""
    import PIL
    from PIL import features

    return PIL.__version__, str(features.version("jpg")), str(features.version("webp")), str(features.version("zlib"))


def folder_facts(files: SplitFiles | None) -> dict[str, Any]:
    """Return what a run's /provenance says of the folder its images came from; nothing of images of another kind.

    The versions of what decodes stand there, since equal files are equal pixels only to equal versions.
    """
    if files is None:
        return {}
    root = str(files.root.absolute())
    return {"data_dir": root, "image_files": files.found, "decoders": json.dumps(decoders())}


def key_of(shape: tuple[int, int, int], shorter: int, sha256: np.ndarray, label: np.ndarray, index: np.ndarray) -> str:
    """Return the digest of all that a survey follows from: the files, their order, and what decodes them.

    shorter: pixels to which the shorter side of each image was brought. sha256: uint8 [n, 32], of its files.
    """
    key = hashlib.sha256(repr((shape, shorter, *decoders())).encode())
    for array in (sha256, label, index):
        key.update(np.ascontiguousarray(array).data)
    return key.hexdigest()


def recall(root: Path, key: str) -> Survey | None:
    """Return what was remembered of a folder under a key; None where that is nothing, or cannot be read."""
    for path in homes(root, NAME):
        if (found := _all(path).get(key)) is not None:
            return Survey(found["fingerprint"], np.array(found["histogram"], dtype=np.int64))
    return None


def remember(root: Path, key: str, survey: Survey) -> None:
    """Keep a survey under its key, where the index of the folder is kept."""
    own = {"fingerprint": survey.fingerprint, "histogram": survey.histogram.tolist()}
    for path in homes(root, NAME):
        entries = dict(list((_all(path) | {key: own}).items())[-MOST:])
        text = json.dumps({"digest": _digest(entries), "surveys": entries})
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with published(path, force=True) as temporary:
                temporary.write_text(text)
            return
        except (UserError, OSError):  # a folder closed to writing; without any, the next command surveys anew
            continue


def _all(path: Path) -> dict[str, dict[str, Any]]:
    try:
        found = json.loads(path.read_text())
        return found["surveys"] if found["digest"] == _digest(found["surveys"]) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _digest(entries: object) -> str:
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()
