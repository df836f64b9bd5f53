"""The corruptions: each changes images as it says, more with severity, the same from one seed; noise by its moments."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from layerwise.commandline import call
from layerwise.commands.corrupt import corrupt
from layerwise.datasets.corrupted_sets import Made, note_made, read_recipe
from layerwise.datasets.corruptions import CORRUPTIONS, NOT_MADE, corrupted, disk
from layerwise.errors import UsageError, UserError
from layerwise.export import corrupt_run
from layerwise.runfile import RunFile


def smooth(n: int = 6, channels: int = 3, size: int = 32) -> np.ndarray:
    """Return images uint8 [n, C, size, size] that change slowly, as photographs do."""
    noise = np.random.default_rng(0).normal(size=(n, channels, size, size))
    found = gaussian_filter(noise, (0, 0, 3, 3), mode="wrap")
    return (127 + 60 * found / found.std()).clip(0, 255).astype(np.uint8)


def made(name: str, severity: int, images: np.ndarray, seed: int = 0) -> np.ndarray:
    return corrupted(images, name, severity, np.random.default_rng(seed))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severities_change_images_more_and_more(name: str, channels: int) -> None:
    images = smooth(channels=channels)
    errors = [np.abs(made(name, s, images).astype(float) - images).mean() for s in (1, 2, 3, 4, 5)]
    assert errors == sorted(errors) and errors[0] < errors[-1]
    assert made(name, 3, images).shape == images.shape and made(name, 3, images).dtype == np.uint8
    np.testing.assert_array_equal(made(name, 3, images), made(name, 3, images))


@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"])
def test_noise_is_that_of_its_seed(name: str) -> None:
    assert (made(name, 2, smooth()) != made(name, 2, smooth(), seed=1)).any()


def test_noise_has_the_stated_spread() -> None:
    grey = np.full((20, 1, 32, 32), 128, np.uint8)
    spread = {name: made(name, 3, grey).std() / 255 for name in ("gaussian_noise", "shot_noise", "speckle_noise")}
    half = 128 / 255
    expected = {"gaussian_noise": 0.08, "shot_noise": np.sqrt(half / 100), "speckle_noise": 0.12 * half}
    assert spread == pytest.approx(expected, rel=0.02)
    hit = made("impulse_noise", 5, grey)
    assert np.mean(hit == 0) == pytest.approx(0.035, abs=0.005) and np.mean(hit == 255) == pytest.approx(
        0.035, abs=0.005
    )


def test_what_needs_no_chance_is_what_it_says() -> None:
    images = smooth(1)
    x = images / 255
    mean = x.mean((2, 3), keepdims=True)
    np.testing.assert_array_equal(made("contrast", 4, images), (((x - mean) * 0.3 + mean) * 255).astype(np.uint8))
    raised = made("brightness", 3, np.array([[[[10]], [[20]], [[40]]]], np.uint8)).ravel()
    assert raised.tolist() == [int(v * (40 + 0.15 * 255) / 40) for v in (10, 20, 40)]
    assert made("brightness", 3, np.zeros((1, 3, 1, 1), np.uint8)).ravel().tolist() == [38] * 3
    flat = np.full((1, 3, 32, 32), 77, np.uint8)
    for name in ("gaussian_blur", "defocus_blur", "pixelate", "contrast", "jpeg_compression"):
        np.testing.assert_allclose(made(name, 5, flat), flat, atol=1)


def test_a_lens_out_of_focus_spreads_a_point_over_a_disk() -> None:
    kernel = disk(1.5, 0.1)
    assert kernel.sum() == pytest.approx(1)
    assert (kernel > 1e-6).sum() == 9  # all within 1.5 pixels
    assert (disk(0.3, 0.4) > 1e-6).sum() == 9 and disk(0.3, 0.4)[1, 1] > 0.7


def test_pixels_that_are_not_square_keep_their_place() -> None:
    wide = smooth(1)[:, :, :16]
    assert made("pixelate", 5, wide).shape == wide.shape
    assert np.corrcoef(made("pixelate", 5, wide).ravel(), wide.ravel())[0, 1] > 0.9


def test_what_is_not_there_is_refused_and_what_is_not_made_is_named() -> None:
    with pytest.raises(UsageError, match="unknown corruption 'fog'. Choices: gaussian_noise"):
        made("fog", 1, smooth(1))
    with pytest.raises(UsageError, match="unknown severity '6'. Choices: 1, 2, 3, 4, 5"):
        made("contrast", 6, smooth(1))
    assert set(NOT_MADE).isdisjoint(CORRUPTIONS) and len(NOT_MADE) + len(CORRUPTIONS) == 19


def run_corrupt(*words: object) -> int:
    return call(corrupt, "layerwise-corrupt", [str(word) for word in words])


def test_the_command_writes_each_image_once_by_its_class(
    run_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "c"
    words = [run_path, "-o", out, "--corruptions", "contrast,pixelate", "--severities", "1,5"]
    assert run_corrupt(*words) == 0
    assert capsys.readouterr().out == f"4 sets of 359 images in {out}\n"
    with RunFile(run_path) as run:
        images, labels, index = run.images("test")[:], run.labels("test"), run.indices("test")
        made = {"dataset": "digits", "images": run.dataset["fingerprint"]["test"], "seed": 0}
        sets = ("contrast/1", "contrast/5", "pixelate/1", "pixelate/5")
        assert json.loads((out / "recipe.json").read_text()) == {"sets": dict.fromkeys(sets, made)}
    expected = corrupted(images, "contrast", 5, np.random.default_rng(0))
    for i in (0, 17, 358):
        with Image.open(out / "contrast" / "5" / str(labels[i]) / f"{index[i]:05d}.png") as image:
            np.testing.assert_array_equal(np.asarray(image), expected[i, 0])
    assert len(list(out.rglob("*.png"))) == 4 * 359
    before = (out / "pixelate" / "1").stat().st_ino
    assert run_corrupt(*words) == 0  # what is there is left as it is
    assert (out / "pixelate" / "1").stat().st_ino == before


def levels(folder: Path) -> dict[str, int]:
    """Return the mean grey level of the first image of each set, times a thousand."""
    found = {}
    for path in sorted(folder.glob("*/*/0")):
        with Image.open(min(path.iterdir())) as image:
            found[path.parent.relative_to(folder).as_posix()] = int(1000 * np.asarray(image).mean())
    return found


def test_another_seed_is_refused_and_forced_for_what_is_asked_alone(
    run_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [run_path, "-o", tmp_path / "c", "--severities", "2", "--corruptions"]
    assert run_corrupt(*words, "gaussian_noise,shot_noise") == 0
    first = levels(tmp_path / "c")
    assert run_corrupt(*words, "gaussian_noise,impulse_noise", "--seed", "1") == 1
    assert capsys.readouterr().err == (
        f"layerwise-corrupt: {tmp_path / 'c'} holds gaussian_noise/2 by seed 0, not 1. Give another -o, or --force to "
        "make what is asked for anew; the other sets there stay as they are.\n"
    )
    assert levels(tmp_path / "c") == first
    assert run_corrupt(*words, "impulse_noise", "--seed", "1") == 0  # beside the others, of whose seed nothing is lost
    assert run_corrupt(*words, "gaussian_noise", "--seed", "1", "--force") == 0
    found = levels(tmp_path / "c")
    assert found["shot_noise/2"] == first["shot_noise/2"] and found["gaussian_noise/2"] != first["gaussian_noise/2"]
    seeds = {name: made.seed for name, made in read_recipe(tmp_path / "c").items()}
    assert seeds == {"gaussian_noise/2": 1, "impulse_noise/2": 1, "shot_noise/2": 0}


def test_other_images_and_files_are_not_replaced_by_chance(
    run_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "c"
    words = [run_path, "-o", out, "--severities", "2", "--corruptions", "contrast"]
    own = out / "contrast" / "2" / "mine.txt"
    own.parent.mkdir(parents=True)
    own.write_text("a year of work")
    for more in ([], ["--force"]):
        assert run_corrupt(*words, *more) == 1
        assert "contrast/2 is there, but recipe.json in" in capsys.readouterr().err and own.exists()
    own.parent.rename(out / "contrast" / "mine")
    assert run_corrupt(*words) == 1
    assert f"{out} holds something else than corrupted images. Give another -o" in capsys.readouterr().err
    note_made(out, {"contrast/1": Made("mnist", "f" * 64, 0), "contrast/2": Made("mnist", "f" * 64, 0)})
    assert run_corrupt(*words) == 1
    assert f"{out} holds contrast/1 and 1 more of other test images (mnist)" in capsys.readouterr().err
    assert run_corrupt(*words, "--force") == 0
    assert {name: made.dataset for name, made in read_recipe(out).items()} == {
        "contrast/1": "mnist", "contrast/2": "digits",
    }  # fmt: skip
    (out / "recipe.json").write_text("of a cake")
    assert run_corrupt(*words, "--force") == 1
    assert "recipe.json is no recipe of layerwise-corrupt, which would stand there" in capsys.readouterr().err
    assert (out / "recipe.json").read_text() == "of a cake"
    assert run_corrupt(run_path, "-o", out / "recipe.json") == 1
    assert "recipe.json is no folder. Give another -o." in capsys.readouterr().err


def test_a_stopped_command_goes_on(run_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched, RunFile(run_path) as run, pytest.raises(KeyboardInterrupt):
        patched.setattr("os.rename", lambda *paths: (_ for _ in ()).throw(KeyboardInterrupt))
        corrupt_run(run, tmp_path / "c", corruptions=["contrast"], severities=[1])
    assert not (tmp_path / "c" / "contrast" / "1").exists()
    assert run_corrupt(run_path, "-o", tmp_path / "c", "--corruptions", "contrast", "--severities", "1") == 0
    assert sorted(path.name for path in (tmp_path / "c" / "contrast").iterdir()) == ["1"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--corruptions", "fog"], 2, "unknown corruption 'fog'"),
        (["--severities", "0"], 2, "unknown severity '0'. Choices: 1, 2, 3, 4, 5"),
        (["--severities", "x"], 2, "--severities has 'x', but takes numbers from 1 to 5, with commas"),
        (["--seed", "-1"], 2, "--seed is -1, but must be an integer in [0, 2^32)"),
    ],
)
def test_bad_words_are_one_line(
    words: list[str], code: int, message: str, run_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_corrupt(run_path, "-o", tmp_path / "c", *words) == code
    assert capsys.readouterr().err.startswith(f"layerwise-corrupt: {message}")
    assert not (tmp_path / "c").exists()


def test_images_that_the_run_does_not_hold_are_read_again(
    run_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [run_path, "--corruptions", "gaussian_noise", "--severities", "3"]
    assert run_corrupt(*words, "-o", tmp_path / "held") == 0
    monkeypatch.setattr(RunFile, "images", lambda self, split: None)
    monkeypatch.setattr("layerwise.export.corrupted.AT_ONCE", 100)
    assert run_corrupt(*words, "-o", tmp_path / "again") == 0
    for path in (tmp_path / "held").rglob("*.png"):
        assert (tmp_path / "again" / path.relative_to(tmp_path / "held")).read_bytes() == path.read_bytes()


def test_a_run_whose_images_are_nowhere_has_none_to_corrupt(
    run_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunFile, "images", lambda self, split: None)
    monkeypatch.setattr("layerwise.images.data_config", lambda run: None)
    with RunFile(run_path) as run, pytest.raises(UserError, match=r"holds no images.* Make it again with them"):
        corrupt_run(run, tmp_path / "c")
    assert not (tmp_path / "c").exists()
