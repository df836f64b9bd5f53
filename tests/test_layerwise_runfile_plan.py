"""The forecast: sizes read and shown, what fits, and what to do where it does not."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from layerwise.errors import UsageError, UserError
from layerwise.runfile.plan import plan, require_disk
from layerwise.units import parse_size, show_size

SHAPES = [(3, 32, 32), (64, 32, 32), (128, 16, 16)]
COUNTS = {"train": 900, "test": 100}
POOLED = 2 * 1000 * 4 * (3 + 64 + 128)
MAPS = 2 * 1000 * (3 * 1024 + 64 * 1024 + 128 * 256)
IMAGES = 1000 * 3 * 1024
SAMPLES = 1000 * 16  # label and index, int64


@pytest.mark.parametrize(
    ("text", "count"), [("8GB", 8 * 10**9), ("500 MB", 5 * 10**8), ("1.5kb", 1500), ("12B", 12), (" 2TB ", 2 * 10**12)]
)
def test_sizes_are_read(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["8", "GB", "8GiB", "1.2.3MB", "-1GB", "", "9" * 400 + "GB"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not understood; write a number with a unit, such as 500MB or 8GB"):
        parse_size(text)


def test_sizes_are_shown_in_the_largest_unit() -> None:
    assert [show_size(n) for n in (12, 1500, 2.5e6, 3e9, 26.8e12)] == ["12 B", "1.5 KB", "2.5 MB", "3.0 GB", "26.8 TB"]


def test_everything_is_kept_where_it_fits() -> None:
    chosen = plan(SHAPES, COUNTS, 1000, "auto", 10**9)
    assert chosen.maps
    assert chosen.images
    assert chosen.total == POOLED + MAPS + IMAGES + SAMPLES + 1000
    assert plan(SHAPES, COUNTS, 1000, "auto", 10**9, history_bytes=500).total == chosen.total + 500


def test_auto_leaves_the_maps_before_the_images() -> None:
    chosen = plan(SHAPES, COUNTS, 1000, "auto", POOLED + MAPS + IMAGES)
    assert not chosen.maps
    assert chosen.total == POOLED + IMAGES + SAMPLES + 1000
    assert chosen.depth_bytes == tuple(2 * 1000 * 4 * c for c in (3, 64, 128))


def test_images_are_left_where_they_do_not_fit() -> None:
    chosen = plan(SHAPES, COUNTS, 1000, "pooled", POOLED + SAMPLES + 1000)
    assert not chosen.images
    assert chosen.total == POOLED + SAMPLES + 1000


def test_maps_that_were_asked_for_and_do_not_fit_are_an_error_with_the_way_out() -> None:
    with pytest.raises(UserError, match=r"would take 204.3 MB \(131.6 MB for its largest depth\), .*--store pooled"):
        plan(SHAPES, COUNTS, 1000, "maps", MAPS)
    with pytest.raises(UserError, match=r"--max-size allows 1.0 KB. Use a larger --max-size"):
        plan(SHAPES, COUNTS, 1000, "pooled", 1000)


def test_a_disk_too_full_is_noticed_before_the_first_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6))
    require_disk(tmp_path / "a.h5", 10**6)
    with pytest.raises(UserError, match=r"a.h5 needs 2.0 MB, but its disk has 1.0 MB free"):
        require_disk(tmp_path / "a.h5", 2 * 10**6)
