"""Published data sets: small files in each set's own format, read by torchvision's code; missing and damaged ones."""

from __future__ import annotations

import copyreg
import gzip
import hashlib
import io
import pickle
import struct
import threading
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn
from urllib.error import URLError

import numpy as np
import pytest
import torchvision.datasets
from scipy.io import savemat

from layerwise.datasets import load_dataset
from layerwise.datasets.published import TORCHVISION_SETS
from layerwise.errors import UsageError, UserError

Patch = pytest.MonkeyPatch
Data = dict[str, tuple[np.ndarray, np.ndarray]]


def some_data(shape: tuple[int, int, int], n_classes: int = 10) -> Data:
    """Return random images [n, C, H, W] and labels of all classes, in a random order, for train and test."""
    rng = np.random.default_rng(0)
    return {
        split: (
            rng.integers(0, 256, (times * n_classes, *shape)).astype(np.uint8),
            rng.permutation(np.repeat(np.arange(n_classes), times)),
        )
        for split, times in (("train", 3), ("test", 1))
    }


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
    path.write_bytes(head + array.astype(np.uint8).tobytes())


def write_mnist(root: Path, monkeypatch: Patch, data: Data, folder: str = "MNIST") -> None:
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images, label = data[split]
        idx(root / folder / "raw" / f"{prefix}-images-idx3-ubyte", images[:, 0])
        idx(root / folder / "raw" / f"{prefix}-labels-idx1-ubyte", label)


def write_fashion(root: Path, monkeypatch: Patch, data: Data) -> None:
    write_mnist(root, monkeypatch, data, "FashionMNIST")


class OldPickler(pickle.Pickler):
    """Writes dtypes as the numpy of 2009 did, with align=0 as an integer."""

    dispatch_table = copyreg.dispatch_table.copy()
    dispatch_table[type(np.dtype("u1"))] = lambda dtype: (np.dtype, (dtype.str[1:], 0, 1))


def old_pickle(path: Path, entry: dict[str, Any]) -> str:
    """Write a pickle as CIFAR's were, and return its MD5."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    OldPickler(buffer, protocol=2).dump(entry)
    path.write_bytes(buffer.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    return md5(path)


def write_cifar10(root: Path, monkeypatch: Patch, data: Data) -> None:
    kind, folder = torchvision.datasets.CIFAR10, root / "cifar-10-batches-py"

    def batch(name: str, images: np.ndarray, label: np.ndarray) -> list[str]:
        entry = {"data": images.reshape(len(images), -1), "labels": label.tolist()}
        return [name, old_pickle(folder / name, entry)]

    parts = zip(np.array_split(data["train"][0], 5), np.array_split(data["train"][1], 5), strict=True)
    monkeypatch.setattr(kind, "train_list", [batch(f"data_batch_{i}", *part) for i, part in enumerate(parts, 1)])
    monkeypatch.setattr(kind, "test_list", [batch("test_batch", *data["test"])])
    meta = old_pickle(folder / "batches.meta", {"label_names": names("cifar10", 10)})
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": meta})


def write_cifar100(root: Path, monkeypatch: Patch, data: Data) -> None:
    kind, folder = torchvision.datasets.CIFAR100, root / "cifar-100-python"
    for split in ("train", "test"):
        images, label = data[split]
        coarse = (label // 5).tolist()
        entry = {"data": images.reshape(len(images), -1), "fine_labels": label.tolist(), "coarse_labels": coarse}
        monkeypatch.setattr(kind, f"{split}_list", [[split, old_pickle(folder / split, entry)]])
    meta = {"fine_label_names": names("cifar100", 100), "coarse_label_names": names("coarse", 20)}
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": old_pickle(folder / "meta", meta)})


def write_svhn(root: Path, monkeypatch: Patch, data: Data) -> None:
    lists = {}
    for split in ("train", "test"):
        images, label = data[split]
        path = root / f"{split}_32x32.mat"
        digit = np.where(label == 0, 10, label).astype(np.uint8)[:, None]
        savemat(path, {"X": images.transpose(2, 3, 1, 0), "y": digit})
        lists[split] = [path.as_uri(), path.name, md5(path)]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", lists)


def write_stl10(root: Path, monkeypatch: Patch, data: Data) -> None:
    kind, folder = torchvision.datasets.STL10, root / "stl10_binary"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        images, label = data[split]
        (folder / f"{split}_X.bin").write_bytes(images.transpose(0, 1, 3, 2).tobytes())  # column-major
        (folder / f"{split}_y.bin").write_bytes((label + 1).astype(np.uint8).tobytes())
        files = [[f"{split}_{kind}.bin", md5(folder / f"{split}_{kind}.bin")] for kind in "Xy"]
        unlabelled = [["unlabeled_X.bin", "0" * 32]] if split == "train" else []  # is not there
        monkeypatch.setattr(kind, f"{split}_list", files + unlabelled)
    (folder / "class_names.txt").write_text("\n".join(names("stl10", 10)) + "\n")


def names(prefix: str, n: int) -> list[str]:
    return [f"{prefix}-{c}" for c in range(n)]


Writer = Callable[[Path, Patch, Data], None]
WRITERS: dict[str, tuple[Writer, tuple[int, int, int], int]] = {
    "fashion-mnist": (write_fashion, (1, 28, 28), 10),
    "mnist": (write_mnist, (1, 28, 28), 10),
    "cifar10": (write_cifar10, (3, 32, 32), 10),
    "cifar100": (write_cifar100, (3, 32, 32), 100),
    "svhn": (write_svhn, (3, 32, 32), 10),
    "stl10": (write_stl10, (3, 96, 96), 10),
}


def write(name: str, root: Path, monkeypatch: Patch) -> Data:
    writer, shape, n_classes = WRITERS[name]
    data = some_data(shape, n_classes)
    writer(root, monkeypatch, data)
    return data


@pytest.mark.parametrize("name", TORCHVISION_SETS)
def test_images_and_labels_come_back_from_the_published_format(name: str, tmp_path: Path, monkeypatch: Patch) -> None:
    data = write(name, tmp_path, monkeypatch)
    found = load_dataset(name, holdout=0, data_dir=tmp_path)
    for split, (images, label) in data.items():
        assert np.array_equal(found.splits[split].images, images)
        assert found.splits[split].images.dtype == np.uint8
        assert np.array_equal(found.splits[split].label, label)
        assert np.array_equal(found.splits[split].index, np.arange(len(label)))
    assert found.image_shape == data["train"][0].shape[1:]
    assert len(found.classes) == len(np.unique(data["train"][1]))


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "stl10"])
def test_class_names_are_those_of_the_files(name: str, tmp_path: Path, monkeypatch: Patch) -> None:
    write(name, tmp_path, monkeypatch)
    found = load_dataset(name, holdout=0, data_dir=tmp_path)
    assert list(found.classes) == names(name, len(found.classes))


def test_numpys_warning_of_old_pickles_is_not_shown(tmp_path: Path, monkeypatch: Patch) -> None:
    write("cifar10", tmp_path, monkeypatch)
    load = pickle.load

    def as_numpy_2_4_0_loads(*args: Any, **kwargs: Any) -> Any:
        warnings.warn("dtype(): align should be passed as", np.exceptions.VisibleDeprecationWarning, stacklevel=2)
        return load(*args, **kwargs)

    monkeypatch.setattr(pickle, "load", as_numpy_2_4_0_loads)
    assert len(load_dataset("cifar10", holdout=0, data_dir=tmp_path).classes) == 10


def test_classes_without_names_are_numbered(tmp_path: Path, monkeypatch: Patch) -> None:
    write("svhn", tmp_path, monkeypatch)
    assert load_dataset("svhn", holdout=0, data_dir=tmp_path).classes == tuple("0123456789")


@pytest.mark.parametrize("name", TORCHVISION_SETS)
def test_data_that_are_not_bundled_need_a_folder(name: str) -> None:
    with pytest.raises(
        UsageError, match=f"^{name} is not bundled: give the folder that holds .+ by data_dir=..., or by"
    ):
        load_dataset(name, holdout=0.1)


@pytest.mark.parametrize("name", TORCHVISION_SETS)
def test_missing_files_are_named_and_not_fetched_unasked(name: str, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_: pytest.fail("looked for the data on the network"))
    source = TORCHVISION_SETS[name]
    with pytest.raises(UserError) as caught:
        load_dataset(name, holdout=0.1, data_dir=tmp_path)
    message = str(caught.value)
    where = tmp_path / source.folder if source.folder else tmp_path
    assert message.startswith(f"{name} was not found whole: looked for {source.files} in {where}. Give the folder ")
    assert message.endswith("by data_dir=..., or fetch the data by download=True.")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", TORCHVISION_SETS)
def test_a_download_without_a_network_is_one_line(name: str, tmp_path: Path, monkeypatch: Patch) -> None:
    def unreachable(*_: object, **__: object) -> NoReturn:
        raise URLError("Temporary failure in name resolution")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    with pytest.raises(UserError) as caught:
        load_dataset(name, holdout=0.1, data_dir=tmp_path, download=True)
    message = str(caught.value)
    assert message.startswith(f"{name} could not be downloaded into {tmp_path}: ")
    assert "Temporary failure in name resolution" in message
    assert message.endswith("yourself.")
    assert "\n" not in message


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder by HTTP on this machine; yield its address."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_a_download_fetches_what_is_not_there(tmp_path: Path, monkeypatch: Patch) -> None:
    served, local = tmp_path / "served", tmp_path / "local"
    raw = served / "MNIST" / "raw"
    data = write("mnist", served, monkeypatch)
    resources = []
    for path in sorted(raw.iterdir()):
        packed = path.with_name(path.name + ".gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        resources.append((packed.name, md5(packed)))
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
    monkeypatch.setenv("no_proxy", "*")
    with serve(raw) as address:
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [address])
        found = load_dataset("mnist", holdout=0, data_dir=local, download=True)
    assert np.array_equal(found.splits["test"].images, data["test"][0])
    # Once there they are read without asking the network again.
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_: pytest.fail("fetched twice"))
    again = load_dataset("mnist", holdout=0, data_dir=local, download=True)
    assert again.splits["train"].fingerprint() == found.splits["train"].fingerprint()


def test_a_file_cut_short_is_damage_and_not_absence(tmp_path: Path, monkeypatch: Patch) -> None:
    write("mnist", tmp_path, monkeypatch)
    path = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(
        UserError, match=f"mnist cannot be read: a file of {path.parent} is damaged .*Expected train-im"
    ):
        load_dataset("mnist", holdout=0, data_dir=tmp_path)


def test_an_altered_file_fails_its_checksum(tmp_path: Path, monkeypatch: Patch) -> None:
    write("cifar10", tmp_path, monkeypatch)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match="cifar10 was not found whole: looked for data_batch_1..5, test_batch"):
        load_dataset("cifar10", holdout=0, data_dir=tmp_path)


def test_images_and_labels_of_different_number_are_damage(tmp_path: Path, monkeypatch: Patch) -> None:
    data = write("mnist", tmp_path, monkeypatch)
    idx(tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte", data["test"][1])
    with pytest.raises(UserError, match="mnist is damaged: a split has 30 images and 10 labels. Fetch its files again"):
        load_dataset("mnist", holdout=0, data_dir=tmp_path)


def test_a_label_without_a_class_is_damage(tmp_path: Path, monkeypatch: Patch) -> None:
    data = write("mnist", tmp_path, monkeypatch)
    idx(tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte", data["train"][1] + 5)
    with pytest.raises(UserError, match="mnist is damaged: its labels reach from 5 to 14, but it has 10 classes"):
        load_dataset("mnist", holdout=0, data_dir=tmp_path)
