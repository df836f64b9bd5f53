"""From words to an extraction: defaults, the fold that was seen, and what is kept of the words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_networks import SmallNet, published

from layerwise.config import DataConfig
from layerwise.errors import UsageError, UserError
from layerwise.extraction.models.weights import Reading
from layerwise.extraction.requests import NetworkRequest, from_network
from layerwise.runfile.place import Place

DIGITS = DataConfig(dataset="digits", subset=100)
FACTORY = "from foreign_networks import SmallNet as small\n"


@pytest.fixture
def request_of(tmp_path: Path) -> Any:
    (tmp_path / "nets.py").write_text(FACTORY)
    torch.save(SmallNet().state_dict(), tmp_path / "w.pt")

    def made(**words: Any) -> NetworkRequest:
        return NetworkRequest(**({"spec": f"{tmp_path}/nets.py:small"} | words))

    return made


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(out=tmp_path / "run.h5")


def test_a_network_without_a_preset_takes_the_data_as_they_are(
    request_of: Any, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    from_network(request_of(trained_on="other-data", mean="data"), DIGITS, place)
    assert caplog.messages[0].endswith(
        "nets.py:small does not say how it takes its images: size and deviation of these images are taken. Give "
        "--image-size, --std as in its training."
    )
    caplog.clear()
    words = {"mean": "data", "std": "data", "image_size": 8}
    made = from_network(request_of(trained_on="other-data", **words), DIGITS, place)
    assert not any("does not say" in message for message in caplog.messages)
    assert made.depths[0].shape == (1, 8, 8)
    assert (made.origin.label, made.origin.trained_on) == ("small", "other-data")
    assert json.loads(made.dataset)["name"] == "digits"
    assert made.counts == {"train": 90, "validation": 10, "test": 359}


def test_a_train_split_that_was_seen_leaves_no_fold(
    request_of: Any, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    made = from_network(request_of(trained_on="train-split"), DIGITS, place)
    assert "does not say how it takes its images" in caplog.messages[0]
    assert made.counts == {"train": 100, "test": 359}
    assert caplog.messages[0].endswith(
        "nets.py:small does not say how it takes its images: mean and deviation of these images are taken. Give "
        "--mean, --std as in its training."
    )
    assert made.origin.facts["data"]["holdout"] == 0


def test_weights_are_loaded_and_named_by_their_digest(request_of: Any, place: Place, tmp_path: Path) -> None:
    request = request_of(weights=tmp_path / "w.pt", trained_on="train-fold", label="mine")
    made = from_network(request, DIGITS, place)
    saved = torch.load(tmp_path / "w.pt", weights_only=True)
    assert torch.equal(made.model.conv1.weight, saved["conv1.weight"])
    assert made.origin.label == "mine"
    assert made.origin.facts["weights"]["file"] == "w.pt" and len(made.origin.facts["weights"]["sha256"]) == 64


def test_an_untrained_network_is_known_to_be_and_called_so(place: Place) -> None:
    request = NetworkRequest(spec="torchvision:resnet18", image_size=32)
    made = from_network(request, DIGITS, place)
    assert (made.origin.label, made.origin.trained_on) == ("resnet18, untrained", "nothing")
    assert made.depths[0].shape == (3, 32, 32)
    assert json.loads(made.dataset)["normalisation"]["mean"] == [0.485, 0.456, 0.406]
    with pytest.raises(
        UsageError, match="resnet18 without --weights is untrained, but --trained-on is other-data. Give"
    ):
        from_network(replace(request, trained_on="other-data"), DIGITS, place)


def test_what_nobody_can_know_must_be_said(request_of: Any, place: Place, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"nets.py:small does not say whether the network has seen the validation fold"
    ):
        from_network(request_of(), DIGITS, place)
    with pytest.raises(UsageError, match="the weights do not say whether .* Say it: --trained-on nothing, other-data"):
        from_network(request_of(weights=tmp_path / "w.pt"), DIGITS, place)
    with pytest.raises(
        UsageError, match="--trained-on nothing says that the network is untrained, but --weights gives"
    ):
        from_network(request_of(weights=tmp_path / "w.pt", trained_on="nothing"), DIGITS, place)
    with pytest.raises(UsageError, match="unknown --trained-on 'train'"):
        from_network(request_of(trained_on="train"), DIGITS, place)


def test_weights_by_name_are_of_other_data_unless_it_is_said(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    url = published(tmp_path, monkeypatch)
    request = NetworkRequest(spec="torchvision:resnet18", weights=Path("IMAGENET1K_V1"), image_size=32)
    with caplog.at_level("INFO", "layerwise"):
        made = from_network(request, DIGITS, place)
    assert made.origin.trained_on == "other-data" and made.origin.label == "resnet18"
    assert any(
        "IMAGENET1K_V1 were trained elsewhere, which is taken as --trained-on other-data" in m for m in caplog.messages
    )
    kept = made.origin.facts["weights"]
    assert (kept["name"], kept["source"]) == ("IMAGENET1K_V1", url)
    assert kept["sha256"].startswith(url.rpartition("-")[2].removesuffix(".pth"))
    assert made.origin.facts["preprocessing"]["mean"] == (0.485, 0.456, 0.406)
    seen = from_network(replace(request, trained_on="train-split"), DIGITS, place)
    assert seen.origin.trained_on == "train-split"
    with pytest.raises(UsageError, match="says that the network is untrained, but --weights gives it weights"):
        from_network(replace(request, trained_on="nothing"), DIGITS, place)


def test_a_head_that_no_depth_reads_may_be_missing_and_a_layer_that_one_reads_may_not(
    request_of: Any, place: Place, tmp_path: Path
) -> None:
    state = SmallNet().state_dict()
    for lacking, layers in (("fc", "conv1,conv2"), ("conv1", "conv1,conv2")):
        torch.save({n: v for n, v in state.items() if not n.startswith(lacking)}, tmp_path / "part.pt")
        reading = Reading(allow_missing=(lacking,))
        request = request_of(weights=tmp_path / "part.pt", trained_on="train-fold", layers=layers, reading=reading)
        if lacking == "fc":
            made = from_network(request, DIGITS, place)
            assert made.origin.facts["weights"]["allow_missing"] == ("fc",)
            continue
        with pytest.raises(UserError, match=r"lack conv1.weight, which depth 2 \(conv2\) may depend on. Give"):
            from_network(request, DIGITS, place)
