"""The forecast of an extraction: bytes by arithmetic, what is kept, and the flags that make it fit."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest

from layerwise import extract_arrays
from layerwise.errors import UsageError, UserError
from layerwise.extraction.forms import Convention, form_of
from layerwise.extraction.write import describe_plan, ways
from layerwise.locks import held
from layerwise.runfile.plan import Plan, require_room
from layerwise.runfile.plan import plan as plan_of

DEPTHS = {
    0: form_of((3, 8, 8), Convention()).depth("input", (3, 8, 8)),
    1: form_of((4, 8, 8), Convention()).depth("stem", (4, 8, 8)),
    2: form_of((17, 6), Convention()).depth("block", (17, 6)),
    3: form_of((7,), Convention()).depth("fc", (7,)),
}
COUNTS = {"train": 900, "validation": 100, "test": 500}
N = 1500
POOLED = [2 * N * 12, 2 * N * 16, 2 * N * (24 + 6), 2 * N * 7]
WHOLE = [2 * N * 192, 2 * N * 256, 2 * N * 96, 0]
IMAGES = 192 * N
SAMPLES = 16 * N


def plan(store: str = "auto", max_size: int = 10**9, in_float32: frozenset[int] = frozenset()) -> Plan:
    return plan_of(DEPTHS, COUNTS, store=store, max_size=max_size, image_bytes=IMAGES, in_float32=in_float32)


def test_bytes_are_those_of_shapes_and_types() -> None:
    made = plan()
    assert list(made.pooled.values()) == POOLED
    assert list(made.whole.values()) == WHOLE
    assert made.total == sum(POOLED) + sum(WHOLE) + SAMPLES + IMAGES
    assert plan(in_float32=frozenset({1})).total == made.total + POOLED[1] + WHOLE[1]


@pytest.mark.parametrize(
    ("store", "spare", "maps", "images"),
    [
        ("auto", 0, True, True),
        ("auto", -1, False, True),
        ("maps", -1, True, False),
        ("pooled", 0, False, True),
    ],
)
def test_maps_and_images_are_kept_where_they_fit(store: str, spare: int, maps: bool, images: bool) -> None:
    whole = sum(POOLED) + sum(WHOLE) + SAMPLES + IMAGES
    made = plan(store, whole + spare)
    assert (made.maps, made.images) == (maps, images)
    require_room(made, whole + spare)


def test_what_does_not_fit_is_refused_with_flags_that_make_it_fit() -> None:
    limit = 400_000
    with pytest.raises(UserError) as error:
        require_room(plan("maps", limit), limit, ways=ways())
    assert str(error.value) == (
        "the run file would take 1.9 MB (816.0 KB for its largest depth), but --max-size allows 400.0 KB. What would "
        "make it fit: --store pooled (219.0 KB), fewer --layers, or a larger --max-size."
    )
    assert plan("pooled", limit).total <= limit
    limit = 1_200_000
    with pytest.raises(UserError, match=r"--store pooled \(219.0 KB\), --subset 470, fewer --layers") as error:
        require_room(plan("maps", limit), limit, ways=ways())
    fewer = plan_of(DEPTHS, {"train": 423, "validation": 47, "test": 500}, store="maps", max_size=limit)
    assert fewer.total <= limit


def test_pooled_features_that_do_not_fit_leave_fewer_flags() -> None:
    with pytest.raises(
        UserError, match="allows 50.0 KB. What would make it fit: fewer --layers, or a larger --max-size"
    ):
        require_room(plan("auto", 50_000), 50_000, ways=ways())


def test_the_table_has_a_line_for_each_depth() -> None:
    lines = list(describe_plan(plan("pooled")))
    assert lines[0] == "samples: train 900, validation 100, test 500"
    cells = [" ".join(line.split()) for line in lines[2:6]]
    assert cells == [
        "0 input 3 x 8 x 8 maps 36.0 KB 576.0 KB",
        "1 stem 4 x 8 x 8 maps 48.0 KB 768.0 KB",
        "2 block 6 x 4 x 4 patch tokens 90.0 KB 288.0 KB",
        "3 fc 7 x 1 x 1 vector 21.0 KB = pooled",
    ]
    assert lines[-1] == "the run file takes 507.0 KB: pooled features, images"


def test_an_unknown_store_is_answered_with_the_choices() -> None:
    with pytest.raises(UsageError, match="unknown store 'map'. Did you mean 'maps'"):
        plan("map")


@pytest.mark.parametrize("scale", [1e-8, 1.0])
@pytest.mark.parametrize("dtype", ["auto", "float16", "float32"])
def test_small_features_are_kept_unless_float16_is_asked_for(
    tmp_path: Path, scale: float, dtype: str, caplog: pytest.LogCaptureFixture
) -> None:
    x = (scale * np.random.default_rng(0).normal(size=(60, 5))).astype(np.float32)
    arrays = {"a": np.ones((60, 3), np.float32) * np.arange(60)[:, None], "b": x, "labels": np.arange(60) % 3}
    with caplog.at_level(logging.INFO, "layerwise"):
        run = extract_arrays(arrays, out=tmp_path / "run.h5", trained_on="other-data", dtype=dtype)
    with run:
        b = run.pooled(2, "train")
        assert b is not None
        is_lost = scale < 1 and dtype == "auto"
        assert b.dtype == (np.float32 if dtype == "float32" or is_lost else np.float16)
        assert run.pooled(1, "train").dtype == (np.float32 if dtype == "float32" else np.float16)  # type: ignore[union-attr]
        if b.dtype == np.float32:
            np.testing.assert_array_equal(b[:].reshape(-1, 5), x[run.indices("train")])
    said = "float16 would lose of depth 2: features moved by up to inf of their deviation; float32 is kept there"
    assert (said in caplog.text) is is_lost
    assert ("float16 was asked for, and loses of depth 2" in caplog.text) is (scale < 1 and dtype == "float16")


def test_a_number_type_that_cannot_hold_the_values_or_that_there_is_not_is_refused(tmp_path: Path) -> None:
    arrays = {"a": np.full((60, 3), 1e6, np.float32) * np.arange(60)[:, None], "labels": np.arange(60) % 3}
    asked = {"out": tmp_path / "run.h5", "trained_on": "other-data"}
    with pytest.raises(UserError, match=r"float16 cannot hold depth 1: values up to 5.9e\+07. Give dtype='float32'"):
        extract_arrays(arrays, dtype="float16", **asked)
    with pytest.raises(UsageError, match="unknown dtype 'float64'. Did you mean 'float16'"):
        extract_arrays(arrays, dtype="float64", **asked)
    assert not list(tmp_path.iterdir())


def extracted(out: Path) -> None:
    features = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    extract_arrays({"f": features, "labels": np.arange(60) % 3}, out=out, trained_on="other-data").close()


def test_what_a_killed_extraction_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    (tmp_path / ".x.h5.0123456789ab.partial").write_text("half")
    (tmp_path / "x.h5.state").mkdir()
    (tmp_path / "x.h5.state" / "lock").write_text("999999999\n")
    (tmp_path / ".y.h5.0123456789ab.partial").write_text("another's")
    extracted(tmp_path / "x.h5")
    assert sorted(os.listdir(tmp_path)) == [".y.h5.0123456789ab.partial", "x.h5"]


def test_of_two_extractions_to_one_output_the_second_is_refused(tmp_path: Path) -> None:
    folder, half = tmp_path / "x.h5.state", tmp_path / ".x.h5.0123456789ab.partial"
    folder.mkdir()
    half.write_text("being written")
    with held(folder / "lock", "command is working on x.h5", wait=False):
        words = rf"another command is working on .*x\.h5 \(process {os.getpid()}\)\. Wait for it, or give another out\."
        with pytest.raises(UserError, match=words):
            extracted(tmp_path / "x.h5")
    assert half.read_text() == "being written"


def test_the_state_of_a_stopped_training_stays(tmp_path: Path) -> None:
    (tmp_path / "x.h5.state").mkdir()
    (tmp_path / "x.h5.state" / "state.h5").write_text("a state")
    extracted(tmp_path / "x.h5")
    assert (tmp_path / "x.h5.state" / "state.h5").read_text() == "a state"


@pytest.mark.parametrize(
    "name", ["a b", "50%20s", "[b]*?", "it's", "new\nline", "-dash", "r\udce9s", "$x", "a\\b", "=1"]
)
def test_any_name_of_a_file_is_taken(name: str, tmp_path: Path) -> None:
    arrays = tmp_path / f"{name}.npz"
    with open(arrays, "wb") as file:
        np.savez(file, f=np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32), labels=np.arange(60) % 3)
    with extract_arrays(arrays, out=tmp_path / f"{name}.h5", trained_on="other-data") as run:
        assert run.dataset["name"].isprintable()
        assert run.path.exists()
