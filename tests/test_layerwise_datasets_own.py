"""A session's own data and blocks in `layerwise.train`: what is taken, what the file keeps of it, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

import layerwise
from layerwise.config import DataConfig
from layerwise.datasets import load_dataset
from layerwise.datasets.own import own_dataset
from layerwise.errors import UsageError, UserError
from layerwise.training import run as run_module

SMALL = {"network.depth": 1, "network.width": 4, "network.aux_width": 4, "training.epochs": 1, "precision": "fp32"}
CONFIG = DataConfig(dataset="arrays", label="mine", holdout=0.2)


def images(n: int, seed: int = 0, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *(shape or (1, 8, 8))), dtype=np.uint8)


def labels(n: int) -> np.ndarray:
    return np.arange(n) % 3


def arrays() -> dict[str, Any]:
    return {"train": (images(60), labels(60)), "test": (images(30, 1), labels(30))}


class Items(Dataset[tuple[torch.Tensor, int]]):
    """A map-style data set whose items are as torchvision's ToTensor makes them."""

    classes = ("cat", "dog", "eel", "fox")

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(self.images[i]).float() / 255, int(self.labels[i])


def test_arrays_tensors_and_data_sets_of_pytorch_are_the_same_images() -> None:
    given = arrays()
    own = own_dataset(given, CONFIG)
    assert repr(own) == "Dataset(mine: 3 classes, images of 1 x 8 x 8; train 48, validation 12, test 30)"
    forms = [
        {s: (torch.from_numpy(x), torch.from_numpy(y)) for s, (x, y) in given.items()},
        {s: (x[:, 0], y.astype(np.uint8)) for s, (x, y) in given.items()},
        {s: ((x / 255).transpose(0, 2, 3, 1), y) for s, (x, y) in given.items()},
        {s: TensorDataset(torch.from_numpy(x), torch.from_numpy(y)) for s, (x, y) in given.items()},
        {s: Items(x, y) for s, (x, y) in given.items()},
    ]
    for form in forms:
        found = own_dataset(form, CONFIG)
        assert {s: part.fingerprint() for s, part in found.splits.items()} == {
            s: part.fingerprint() for s, part in own.splits.items()
        }
    assert own_dataset(forms[-1], CONFIG).classes == ("cat", "dog", "eel", "fox")
    words = own_dataset({s: (x, np.array(["b", "a", "c"])[y]) for s, (x, y) in given.items()}, CONFIG)
    assert words.classes == ("a", "b", "c") and words.splits["test"].label[:3].tolist() == [1, 0, 2]
    fold = own_dataset(given | {"validation": (images(9, 2), labels(9))}, CONFIG)
    assert fold.counts == {"train": 60, "validation": 9, "test": 30}
    assert fold.splits["validation"].index.tolist() == list(range(60, 69))
    data = load_dataset("digits", holdout=0.1)
    assert own_dataset(data, CONFIG) is data


@pytest.mark.filterwarnings("error")
def test_arrays_that_cannot_be_written_are_taken_without_a_warning() -> None:
    x, y = images(30), labels(30)
    frozen = np.frombuffer(x.tobytes(), np.uint8).reshape(x.shape)
    found = own_dataset({"train": (frozen, y), "test": (frozen, y)}, CONFIG)
    torch.from_numpy(found.splits["test"].images)
    np.testing.assert_array_equal(found.splits["test"].images, x)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"train": 1}, 'data has train; expected {"train": ..., "test": ...} and, where wanted, "validation"'),
        (3, "data is a int; expected"),
        (arrays() | {"test": 5}, "data['test'] is a int; expected (images, labels), or a data set of PyTorch"),
        (arrays() | {"test": (images(3), labels(4))}, "data['test'] has 3 images and labels of shape [4]"),
        (arrays() | {"test": (images(3, 0, 4), labels(3))}, "data['test'] has images of shape [3, 4]; expected uint8"),
        (arrays() | {"test": (images(3, 0, 1, 4, 4), labels(3))}, "images of the splits have different shapes"),
        (arrays() | {"test": (images(3) / 127 - 1, labels(3))}, "and values -1 to 0.9606 that are no pixels"),
        (arrays() | {"test": (images(3), labels(3) - 1)}, "labels go down to -1; expected whole numbers from 0 on"),
        (arrays() | {"test": (images(3), np.eye(3))}, "labels of shape [3, 3]; expected a label for each image, as"),
        (arrays() | {"test": (images(3), labels(3) / 2)}, "labels are of type float64; expected whole numbers"),
        (arrays() | {"test": [1, 2, 3]}, "data['test'] has items that are no pairs of an image and a label"),
        (arrays() | {"test": [(images(1)[0], 0), (images(1, 0, 1, 4, 4)[0], 1), (0, 0)]}, "images of different shapes"),
    ],
)  # fmt: skip
def test_what_are_no_images_is_refused(data: Any, words: str) -> None:
    with pytest.raises(UserError) as error:
        own_dataset(data, CONFIG)
    assert words in str(error.value)


def blocks() -> nn.Sequential:
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
    )


def test_train_takes_data_and_blocks_of_the_session(tmp_path: Path) -> None:
    settings = {"training.epochs": 1, "precision": "fp32", "network.aux_width": 4}
    with layerwise.train(
        data=arrays(), data_name="noise", network=blocks, out=tmp_path / "a.h5", settings=settings, device="cpu"
    ) as run:
        assert run.dataset["name"] == "noise" and run.config is not None
        assert run.config.data.dataset == "arrays" and run.config.network.variant.endswith(":blocks")
        expected = own_dataset(arrays(), DataConfig(dataset="arrays"))
        assert run.dataset["fingerprint"] == {s: part.fingerprint() for s, part in expected.splits.items()}
        assert [run.depth_shape(j) for j in run.depths] == [(1, 8, 8), (4, 8, 8), (6, 4, 4)]
        digest = run.content_digest
    with layerwise.train(data=arrays(), data_name="noise", network=blocks, out=tmp_path / "b.h5", settings=settings,
                         device="cpu", quiet=True) as again:  # fmt: skip
        assert again.content_digest == digest


def test_given_modules_begin_with_their_weights_and_stay_as_they_are(tmp_path: Path) -> None:
    given = blocks()
    before = {name: tensor.clone() for name, tensor in given.state_dict().items()}
    options: dict[str, Any] = {"data": arrays(), "device": "cpu", "settings": {"mode": "untrained", "network.k": 1}}
    with layerwise.train(network=given, out=tmp_path / "a.h5", **options) as run:
        weights = run.weights("blocks", 1)
        assert weights is not None and run.config is not None
        np.testing.assert_array_equal(weights["0.weight"], before["0.0.weight"].numpy())
        assert run.config.network.factory == "torch.nn.modules.container:Sequential"
        first = run.config.network.factory_sha256
    assert all(torch.equal(before[name], tensor) for name, tensor in given.state_dict().items())
    with torch.no_grad():
        given[0][0].weight += 1
    with layerwise.train(network=list(given), out=tmp_path / "b.h5", **options) as run:
        assert run.config is not None and run.config.network.factory_sha256 != first
    with pytest.raises(UserError, match="the blocks of torch.nn.modules.linear:Linear are a Linear, but a list"):
        layerwise.train(network=nn.Linear(2, 2), out=tmp_path / "c.h5", **options)


def test_a_stopped_training_goes_on_with_the_same_data_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "_publish", stop)
        with pytest.raises(KeyboardInterrupt):
            layerwise.train(data=arrays(), out=tmp_path / "a.h5", settings=SMALL, device="cpu")
    other = arrays() | {"test": (images(30, 7), labels(30))}
    with pytest.raises(UserError, match="was begun with other data: the images of arrays have changed"):
        layerwise.train(data=other, out=tmp_path / "a.h5", settings=SMALL, device="cpu")
    layerwise.train(data=arrays(), out=tmp_path / "a.h5", settings=SMALL, device="cpu").close()
    with pytest.raises(UsageError, match=r"data and settings={\"data.dataset\": ...} both say what to train on"):
        layerwise.train(data=arrays(), out=tmp_path / "c.h5", settings={"data.dataset": "mnist"})
    with pytest.raises(UsageError, match=r"the data were given in Python, and must be given again"):
        layerwise.train(config=tmp_path / "a.h5", out=tmp_path / "b.h5")
    with layerwise.train(config=tmp_path / "a.h5", data=arrays(), out=tmp_path / "b.h5", device="cpu") as run:
        assert run.dataset["name"] == "arrays"
