"""The forecast: sizes read and shown, what fits, and what to do where it does not."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from layerwise.errors import UsageError, UserError
from layerwise.runfile.plan import Plan, require_room
from layerwise.runfile.plan import plan as plan_of
from layerwise.training.dump import depths_of
from layerwise.units import parse_size, show_size

SHAPES = [(3, 32, 32), (64, 32, 32), (128, 16, 16)]
COUNTS = {"train": 900, "test": 100}
POOLED = 2 * 1000 * 4 * (3 + 64 + 128)
MAPS = 2 * 1000 * (3 * 1024 + 64 * 1024 + 128 * 256)
IMAGES = 1000 * 3 * 1024
SAMPLES = 1000 * 16  # label and index, int64


def plan(store: str, max_size: int, history_bytes: int = 0) -> Plan:
    return plan_of(
        depths_of(SHAPES),
        COUNTS,
        store=store,
        max_size=max_size,
        image_bytes=IMAGES,
        weight_bytes=1000,
        history_bytes=history_bytes,
    )


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
    chosen = plan("auto", 10**9)
    assert chosen.maps
    assert chosen.images
    assert chosen.total == POOLED + MAPS + IMAGES + SAMPLES + 1000
    assert plan("auto", 10**9, history_bytes=500).total == chosen.total + 500


def test_auto_leaves_the_maps_before_the_images() -> None:
    chosen = plan("auto", POOLED + MAPS + IMAGES)
    assert not chosen.maps
    assert chosen.total == POOLED + IMAGES + SAMPLES + 1000
    assert chosen.depth_bytes == tuple(2 * 1000 * 4 * c for c in (3, 64, 128))


def test_images_are_left_where_they_do_not_fit() -> None:
    chosen = plan("pooled", POOLED + SAMPLES + 1000)
    assert not chosen.images
    assert chosen.total == POOLED + SAMPLES + 1000


def test_what_does_not_fit_is_refused_with_what_would_make_it_fit() -> None:
    limit = POOLED + SAMPLES + 1000
    with pytest.raises(UserError) as error:
        require_room(plan("maps", limit), limit)
    assert str(error.value) == (
        "the run file would take 204.3 MB (131.6 MB for its largest depth), but --max-size allows 1.6 MB. What would "
        "make it fit: --store pooled (1.6 MB), or a larger --max-size."
    )
    require_room(plan("pooled", limit), limit)
    with pytest.raises(UserError, match=r"--max-size allows 1.0 KB. What would make it fit: a larger --max-size"):
        require_room(plan("pooled", 1000), 1000)


def test_the_advised_subset_fits() -> None:
    limit = (MAPS + POOLED) // 2
    with pytest.raises(UserError, match=r"--store pooled \(1.6 MB\), --subset 390, or a larger --max-size"):
        require_room(plan("maps", limit), limit)
    fewer = plan_of(depths_of(SHAPES), {"train": 390, "test": 100}, store="maps", max_size=limit, weight_bytes=1000)
    require_room(fewer, limit)


def test_a_disk_too_full_is_noticed_before_the_first_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    made = plan("maps", 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(made.total))
    require_room(made, 10**9, tmp_path / "a.h5")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**8))
    with pytest.raises(UserError, match=r"the disk has free 100.0 MB. What would .* --subset 380, or an --out else"):
        require_room(made, 10**9, tmp_path / "a.h5")


def test_ranks_need_the_largest_part_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    made = plan("maps", 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(made.total + max(made.depth_bytes) - 1))
    require_room(made, 10**9, tmp_path / "a.h5")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"but beside the 131.6 MB that ranks need for a moment the disk has free 207"):
        require_room(made, 10**9, tmp_path / "a.h5")
