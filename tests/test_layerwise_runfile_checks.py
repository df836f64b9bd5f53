"""Files whose digests were made anew with a change: what is against the format is refused in one line that names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from layerwise.activations import load_network
from layerwise.errors import UserError
from layerwise.runfile import RunFile
from tests.torture.seal import seal


def replace(path: str, values: np.ndarray) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[path]
        file[path] = values

    return change


def swap(first: str, second: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file.move(first, "/aside")
        file.move(second, first)
        file.move("/aside", second)

    return change


def attribute(path: str, name: str, value: object) -> Callable[[h5py.File], None]:
    return lambda file: file[path].attrs.__setitem__(name, value)


CHANGES: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "no provenance": (lambda f: f.__delitem__("provenance"), "it lacks /provenance"),
    "dataset for a group": (swap("/depths/00/test", "/depths/00/validation/pooled"), "is a (dataset|group), where a"),
    "type of images": (replace("/images/test", np.zeros((359, 1, 8, 8))), "/images/test has the type float64"),
    "axes of labels": (
        replace("/samples/test/label", np.zeros((359, 2), int)),
        "/test/label has the type int64 and",
    ),
    "rows of a depth": (replace("/depths/01/test/pooled", np.zeros((3, 6, 2, 2), "f4")), "pooled has 3 rows, but"),
    "shape of a depth": (replace("/depths/01/test/pooled", np.zeros((359, 9, 2, 2), "f4")), "but its depth has"),
    "shape attribute": (attribute("/depths/01", "shape", [6, 8, -8]), "shape of /depths/01 is no list of three whole"),
    "no text": (attribute("/depths/01", "module", 5), "module of /depths/01 is no text"),
    "no JSON object": (attribute("/", "dataset", "[1]"), "dataset of / is no JSON object"),
    "no classes": (attribute("/", "dataset", '{"name": "x", "fingerprint": {}}'), "dataset of / names no classes"),
    "accuracies": (
        attribute("/auxiliaries/01", "test_accuracy", np.arange(3)),
        "/auxiliaries/01 is no number",
    ),
    "version": (attribute("/", "format_version", 0), "its format version is 0"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_breach_of_the_format_is_named_although_the_digests_fit(own_run: Path, case: str) -> None:
    change, words = CHANGES[case]
    with h5py.File(own_run, "r+") as file:
        change(file)
    seal(own_run)
    with pytest.raises(UserError, match=f"run.h5 is damaged: .*{words}.*Take an intact copy"):
        RunFile(own_run)


def test_labels_that_are_no_classes_are_named_when_they_are_read(own_run: Path) -> None:
    with h5py.File(own_run, "r+") as file:
        file["samples/test/label"][7] = 10
    seal(own_run)
    with (
        RunFile(own_run) as run,
        pytest.raises(UserError, match="label has the label 10 in row 7, but its classes are"),
    ):
        run.labels("test")


def test_a_configuration_of_a_later_version_is_not_called_damage(own_run: Path) -> None:
    with h5py.File(own_run, "r+") as file:
        file.attrs["config"] = file.attrs["config"].replace('"mode": "greedy"', '"mode": "sideways"')
    seal(own_run)
    with pytest.raises(UserError, match="has a configuration that this version cannot read: unknown mode 'sideways'"):
        RunFile(own_run)


def test_weights_that_are_not_the_networks_are_refused(own_run: Path) -> None:
    with h5py.File(own_run, "r+") as file:
        del file["auxiliaries/01/linear.weight"]
    seal(own_run)
    with RunFile(own_run) as run, pytest.raises(UserError, match="auxiliaries 1 lacks weights of its configuration"):
        load_network(run, torch.device("cpu"))
