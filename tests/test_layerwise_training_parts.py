"""Random parts of original images: drawn as torchvision draws them, the same by any number of processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import small_config
from PIL import Image
from test_layerwise_datasets_stream import mixed_folder
from torchvision.transforms import v2

from layerwise import api
from layerwise.config import RunConfig
from layerwise.datasets import load_dataset
from layerwise.datasets.stream import StreamedSplit
from layerwise.errors import UsageError, UserError
from layerwise.runfile import RunFile
from layerwise.runfile.place import Place
from layerwise.training.batches import DeviceSplit, cut_out
from layerwise.training.parts import draw_parts
from layerwise.training.replacement import take_over
from layerwise.training.run import train_run

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
CROPPED: dict[str, Any] = {
    "data.dataset": "imagefolder", "data.image_size": 16, "data.eval_resize": 18, "data.holdout": 0.2,
    "data.mean": "0.5,0.4,0.3", "data.std": "0.2,0.2,0.3", "network.width": 4, "training.crop": "random-resized",
    "training.crop_padding": 0, "training.flip": True, "training.batch_size": 16,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mixed_folder(tmp_path_factory.mktemp("mixed"))


def config_of(**fields: Any) -> RunConfig:
    return small_config(**CROPPED | fields)


def drawn(height: int, width: int, n: int, seed: int = 0) -> np.ndarray:
    sizes = torch.tensor([[height], [width]]).expand(2, n)
    return draw_parts(sizes, SCALE, RATIO, torch.Generator().manual_seed(seed)).numpy()


@pytest.mark.parametrize(("height", "width"), [(60, 90), (40, 110), (33, 31)])
def test_parts_are_distributed_as_torchvisions(height: int, width: int) -> None:
    """Means of place, sides and area over 4,000 of each, within four standard errors of their difference."""
    n = 4000
    found = drawn(height, width, n)
    image = torch.empty(3, height, width)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        crop = v2.RandomResizedCrop(8)
        theirs = [crop.make_params([image]) for _ in range(n)]
    expected = np.array([[p[name] for name in ("top", "left", "height", "width")] for p in theirs]).T
    own, other = (np.concatenate([a, a[2:3] * a[3:], a[:2] ** 2]).astype(float) for a in (found, expected))
    error = np.sqrt((own.var(1) + other.var(1)) / n)
    assert (np.abs(own.mean(1) - other.mean(1)) < 4 * error).all()


@pytest.mark.parametrize(("height", "width"), [(10, 1000), (1000, 10), (1, 1), (7, 500)])
def test_where_no_part_fits_it_is_the_middle_as_torchvisions(height: int, width: int) -> None:
    p = v2.RandomResizedCrop(8).make_params([torch.empty(3, height, width)])
    expected = np.array([p[name] for name in ("top", "left", "height", "width")])
    assert (drawn(height, width, 5) == expected[:, None]).all()


def test_parts_lie_inside_images_of_many_sizes() -> None:
    sizes = torch.randint(1, 300, (2, 5000), generator=torch.Generator().manual_seed(2))
    parts = draw_parts(sizes, SCALE, RATIO, torch.Generator().manual_seed(3))
    assert (parts[:2] >= 0).all() and (parts[2:] >= 1).all() and (parts[:2] + parts[2:] <= sizes).all()
    narrow = draw_parts(sizes, (0.25, 0.25), (1.0, 1.0), torch.Generator().manual_seed(3))
    square = (sizes[0] == sizes[1]) & (sizes[0] > 20)
    side = narrow[2:, square]
    assert (side[0] == side[1]).all() and ((side - sizes[:, square] / 2).abs() <= 1).all()


def streamed(folder: Path, workers: int = 0) -> StreamedSplit:
    dataset = load_dataset(
        "imagefolder", data_dir=folder, holdout=0, image_size=16, eval_resize=18, read="stream", workers=workers
    )
    split = dataset.splits["train"]
    assert isinstance(split, StreamedSplit)
    return split


def test_a_view_is_the_part_of_the_original_by_torchvision(folder: Path) -> None:
    """Decoded by Pillow, cut by torchvision: as RandomResizedCrop on a tensor of the whole picture."""
    split = streamed(folder)
    data, training = DeviceSplit(split, torch.device("cpu")), config_of().training
    (choice,) = data.choices(training, 5, at_once=10)
    assert choice.shape == (6, 40)
    images, label = data.take(choice, training)
    assert torch.equal(label, torch.from_numpy(split.label)[choice[0]])
    paths = split.folder.files.paths(split.rows[choice[0].numpy()])
    for path, (top, left, flip, height, width), image in zip(paths, choice[1:].T.tolist(), images, strict=True):
        whole = v2.functional.pil_to_tensor(Image.open(path).convert("RGB"))
        expected = v2.functional.resized_crop(whole, top, left, height, width, [16, 16])
        assert torch.equal(image, expected.flip(2) if flip else expected)
    assert 0 < choice[3].sum() < 40
    hidden = config_of(**{"training.cutout": 6}).training
    (longer,) = data.choices(hidden, 5, at_once=10)
    assert torch.equal(data.take(longer, hidden)[0], cut_out(images, longer[6:], 6))


def test_images_that_are_scored_are_resized_and_cropped_in_the_middle(folder: Path) -> None:
    split = streamed(folder)
    held = load_dataset("imagefolder", data_dir=folder, holdout=0, image_size=16, eval_resize=18, read="memory")
    assert np.array_equal(split.read(slice(None)), held.splits["train"].images)
    theirs = v2.Compose([v2.Resize(18), v2.CenterCrop(16)])
    for path, image in zip(split.folder.files.paths(split.rows), held.splits["train"].images, strict=True):
        assert np.array_equal(image.transpose(1, 2, 0), theirs(Image.open(path).convert("RGB")))


def digest(folder: Path, out: Path, workers: int = 0, **fields: Any) -> str:
    place = Place(out=out, device=torch.device("cpu"), data_dir=folder, workers=workers)
    train_run(config_of(**fields), place)
    with RunFile(out) as run:
        list(run.verify())
        assert run.dataset["normalisation"] == {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.3]}
        return run.content_digest


def test_any_number_of_processes_makes_the_same_run(folder: Path, tmp_path: Path) -> None:
    one, two, three = (digest(folder, tmp_path / f"{workers}.h5", workers) for workers in (0, 1, 3))
    assert one == two == three
    assert digest(folder, tmp_path / "seed.h5", seed=1) != one


@pytest.mark.parametrize("fields", [
    {"training.views": 2, "training.prefix": "cache", "training.alternating_flip": True}, {"mode": "parallel"},
    {"network.prune_to": 2, "network.k": 3, "training.finetune_epochs": 1},
])  # fmt: skip
def test_so_it_does_in_every_mode(folder: Path, fields: dict[str, Any], tmp_path: Path) -> None:
    assert digest(folder, tmp_path / "0.h5", 0, **fields) == digest(folder, tmp_path / "1.h5", 1, **fields)


def test_a_replaced_auxiliary_is_trained_on_the_originals(folder: Path, tmp_path: Path) -> None:
    """Though the run file keeps the images as they are scored: from it or anew, it is the same run."""
    fields = {"network.k": 2, "network.last_aux_width": 3}
    anew = digest(folder, tmp_path / "anew.h5", **fields)
    digest(folder, tmp_path / "wide.h5", **{"network.k": 2})
    place = Place(out=tmp_path / "taken.h5", device=torch.device("cpu"), data_dir=folder, workers=0)
    taken = take_over(tmp_path / "wide.h5", folder)
    train_run(config_of(**fields), place, taken)
    with RunFile(place.out) as run:
        assert run.content_digest == anew
    other = mixed_folder(tmp_path / "other", 8)
    with pytest.raises(
        UserError, match=r"wide\.h5 keeps no originals, and those found for imagefolder are not the ones"
    ):
        take_over(tmp_path / "wide.h5", other)


def test_what_cannot_be_cropped_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--read memory holds images as they are scored, .* Leave it out"):
        train_run(config_of(), Place(out=tmp_path / "a.h5", device=torch.device("cpu"), data_dir=folder, read="memory"))
    with pytest.raises(UsageError, match=r"mean has 1 numbers, but the images have 3 channels: give one each"):
        digest(folder, tmp_path / "a.h5", **{"data.mean": "0.5", "data.std": "0.5"})


def test_an_image_that_became_smaller_is_named(tmp_path: Path) -> None:
    split = streamed(mixed_folder(tmp_path, 4))
    choice = np.array([[0], [0], [0], [0], [500], [500]])
    with pytest.raises(UserError, match=r"000\.jpg is smaller than it was when the images were indexed\. Start again"):
        list(split.views([choice]))


def test_constants_of_a_configuration_hold_for_data_of_a_session(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    part = rng.integers(0, 256, (20, 3, 8, 8), dtype=np.uint8), np.arange(20) % 2
    settings = {"training.epochs": 1, "network.depth": 1, "data.mean": (0.5, 0.4, 0.3), "data.std": (0.2, 0.2, 0.2)}
    with api.train(out=tmp_path / "run.h5", data={"train": part, "test": part}, settings=settings, quiet=True) as run:
        assert run.dataset["normalisation"]["mean"] == [0.5, 0.4, 0.3]
