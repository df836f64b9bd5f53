"""Which network is meant: built by a seed, asked for its own preprocessing, and what is not there is named."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest
import torch
from foreign_networks import SmallNet, published

from layerwise.errors import UsageError, UserError
from layerwise.extraction.models.spec import build, convention_of

FACTORY = """
from torch import nn

def small(width=3):
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU())

def number():
    return 3

def broken():
    raise RuntimeError("no such thing")
"""


@pytest.fixture
def factory(tmp_path: Path) -> Path:
    path = tmp_path / "nets.py"
    path.write_text(FACTORY)
    return path


def test_weights_follow_from_the_seed_and_leave_the_global_stream_alone() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first, again, other = (build("torchvision:resnet18", {"num_classes": 7}, seed).module for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.conv1.weight, again.conv1.weight)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)
    assert first.fc.out_features == 7
    assert not first.training and not any(p.requires_grad for p in first.parameters())


def test_torchvision_networks_ask_for_their_own_preprocessing() -> None:
    made = build("torchvision:resnet18", {}, 0)
    assert made.preset is not None
    assert (made.preset.resize, made.preset.crop, made.preset.interpolation) == (256, 224, "bilinear")
    assert made.preset.mean == (0.485, 0.456, 0.406)
    assert (made.name, made.is_untrained) == ("resnet18", True)


def test_a_transformer_built_for_another_size_asks_for_that() -> None:
    made = build("torchvision:vit_b_32", {"image_size": 64, "num_classes": 2}, 0)
    assert made.preset is not None
    assert (made.preset.resize, made.preset.crop) == (64, 64)
    assert convention_of(made.module, "patch").prefix == 1


def test_timm() -> None:
    made = build("timm:vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "depth": 1}, 0)
    assert made.preset is not None
    assert (made.preset.resize, made.preset.crop, made.preset.interpolation) == (32, 32, "bicubic")
    assert convention_of(made.module, "patch").prefix == 1
    plain = build("timm:resnet10t", {}, 0)
    assert plain.preset is not None
    assert (plain.preset.resize, plain.preset.crop) == (201, 176)
    with pytest.raises(UsageError, match="unknown network 'timm:resnet10x'. Nearest: .*resnet10t"):
        build("timm:resnet10x", {}, 0)


def test_timm_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"needs the package timm.*pip install '.\[timm\]'"):
        build("timm:resnet18", {}, 0)


def test_a_factory_is_run_with_its_arguments_and_nothing_is_known_of_its_weights(factory: Path) -> None:
    first, again = (build(f"{factory}:small", {"width": 5}, 2) for _ in range(2))
    assert first.module[0].out_channels == 5
    assert torch.equal(first.module[0].weight, again.module[0].weight)
    assert (first.name, first.preset, first.is_untrained) == ("small", None, False)


SIBLINGS = """
from __future__ import annotations
from dataclasses import dataclass, field
import parts_beside_the_factory

@dataclass
class Sizes:
    width: int = field(default=4)

def net():
    import more_parts_beside_the_factory as more
    return parts_beside_the_factory.layer(Sizes().width + more.EXTRA)
"""


def test_a_factory_may_import_what_lies_beside_it_and_define_dataclasses(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(SIBLINGS)
    layer = "from torch import nn\n\ndef layer(width):\n    return nn.Linear(width, 2)\n"
    (tmp_path / "parts_beside_the_factory.py").write_text(layer)
    (tmp_path / "more_parts_beside_the_factory.py").write_text("EXTRA = 3\n")
    before = list(sys.path)
    assert build(f"{tmp_path}/nets.py:net", {}, 0).module.in_features == 7
    assert sys.path == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smal", "has no function 'smal'; it has small, number, broken"),
        ("number", "nets.py:number returned a int, but a torch.nn.Module is needed"),
        ("broken", r"could not be built: RuntimeError: no such thing \(.*nets.py, line 11\)"),
    ],
)
def test_a_factory_that_fails_is_named(name: str, message: str, factory: Path) -> None:
    with pytest.raises(UserError, match=message):
        build(f"{factory}:{name}", {}, 0)


def test_a_file_that_fails_or_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no.py does not exist; expected a file of Python"):
        build(f"{tmp_path}/no.py:net", {}, 0)
    (tmp_path / "bad.py").write_text("import nonsense_of_no_package")
    with pytest.raises(UserError, match=r"bad.py failed while it was read: ModuleNotFoundError: .*line 1\)"):
        build(f"{tmp_path}/bad.py:net", {}, 0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "resnet18",
            "network 'resnet18' is not understood; write torchvision:NAME, timm:NAME, hf-hub:OWNER/NAME, or path/to/fi",
        ),
        ("torchvision:", "is not understood"),
        (
            "keras:resnet18",
            "comes from 'keras', but torchvision:NAME, timm:NAME, hf-hub:OWNER/NAME, or path/to/file.py:FACTORY is",
        ),
        (
            "torchvision:resnet81",
            r"unknown network 'torchvision:resnet81'. Nearest: resnet18, .* torchvision lists \d+",
        ),
    ],
)
def test_what_is_no_network_is_answered_with_the_nearest(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(spec, {}, 0)


def test_arguments_that_do_not_fit_are_named() -> None:
    with pytest.raises(UserError, match=r"torchvision:resnet18 could not be built with wide=3: TypeError"):
        build("torchvision:resnet18", {"wide": 3}, 0)


def test_axes_are_known_of_swin_and_unknown_of_others() -> None:
    swin = build("torchvision:swin_t", {}, 0).module
    assert convention_of(swin, "patch").channels_last
    unknown = convention_of(SmallNet(), "class")
    assert (unknown.channels_last, unknown.prefix, unknown.tokens) == (False, None, "class")


def test_weights_of_torchvision_by_name_are_fetched_by_its_own_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "layerwise.extract")
    url = published(tmp_path, monkeypatch)
    for word in ("IMAGENET1K_V1", "DEFAULT"):
        made = build("torchvision:resnet18", {}, 0, word)
        assert made.weights is not None and (made.weights["name"], made.weights["source"]) == ("IMAGENET1K_V1", url)
        assert not made.is_untrained and made.preset is not None and made.preset.crop == 224
        (file,) = tmp_path.glob("resnet18-*.pth")
        saved = torch.load(file, weights_only=True)
        assert torch.equal(made.module.conv1.weight, saved["conv1.weight"])
    assert (tmp_path / "cache/hub/checkpoints" / file.name).exists()
    # Said once: the second time they lie in the library's cache.
    assert caplog.messages == [f"torchvision:resnet18: fetching the weights IMAGENET1K_V1 from {url}"]


def test_weights_that_cannot_be_fetched_are_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = published(tmp_path, monkeypatch)
    (file,) = tmp_path.glob("resnet18-*.pth")
    file.unlink()
    with pytest.raises(UserError) as refused:
        build("torchvision:resnet18", {}, 0, "DEFAULT")
    words = str(refused.value)
    assert words.startswith("the weights IMAGENET1K_V1 of torchvision:resnet18 could not be fetched (")
    assert "No such file or directory" in words and "\n" not in words
    cached = tmp_path / "cache/hub/checkpoints" / file.name
    assert words.endswith(
        f"Where there is a network, fetch {url} and put it at {cached}, or give the file itself by --weights."
    )


@pytest.mark.parametrize(
    ("spec", "word", "message"),
    [
        ("torchvision:resnet18", "IMAGENET", r"torchvision:resnet18 has no weights 'IMAGENET', and there is no such "
         r"file. It has IMAGENET1K_V1; give one of these names, or a file."),
        ("timm:resnet18.a1", None, r"timm:resnet18 has no weights 'a1', and there is no such file. It has a1_in1k"),
        ("timm:resnet18", "a1", r"timm:resnet18 has no weights 'a1'"),
    ],
)  # fmt: skip
def test_a_name_that_no_weights_have(spec: str, word: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(spec, {}, 0, word)


@pytest.mark.parametrize(
    ("spec", "word", "name"),
    [("timm:resnet10t.c3_in1k", None, "c3_in1k"), ("timm:resnet10t", "DEFAULT", "c3_in1k"),
     ("hf-hub:timm/resnet10t.c3_in1k", None, "timm/resnet10t.c3_in1k")],
)  # fmt: skip
def test_a_tag_of_timm_is_its_weights(
    spec: str, word: str | None, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm
    from safetensors.torch import save_file
    from timm.models import _builder, _hub

    with torch.random.fork_rng():
        torch.manual_seed(5)
        made = timm.create_model("resnet10t")
    save_file(made.state_dict(), tmp_path / "model.safetensors")
    config = {
        "architecture": "resnet10t",
        "num_classes": 1000,
        "pretrained_cfg": dict(timm.get_pretrained_cfg("resnet10t").to_dict()),
    }
    (tmp_path / "config.json").write_text(json.dumps(config, default=str))

    def fetched(repo_id: str, filename: str, **words: object) -> str:
        assert repo_id == "timm/resnet10t.c3_in1k"
        return str(tmp_path / filename)

    for module in (_hub, _builder):
        monkeypatch.setattr(module, "hf_hub_download", fetched, raising=False)
    found = build(spec, {}, 0, word)
    assert torch.equal(found.module.conv1[0].weight, made.conv1[0].weight)
    assert found.weights == {"name": name, "source": "hf-hub:timm/resnet10t.c3_in1k", "sha256": None}
    assert not found.is_untrained and found.preset is not None and found.preset.crop == 176
