"""The configuration: refused values, replaced fields, JSON."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import settings_reference

from layerwise.config import DataConfig, NetworkConfig, RunConfig, TrainingConfig
from layerwise.errors import UsageError
from layerwise.recipes import digits, fashion_mnist
from layerwise.settings import SETTINGS, by_path, set_fields


@pytest.mark.parametrize("config", [digits(), fashion_mnist(), replace(digits(), mode="untrained", seed=7)])
def test_json_gives_the_same_configuration_back(config: RunConfig) -> None:
    assert RunConfig.from_json(config.to_json()) == config


def test_a_configuration_cannot_be_changed_in_place() -> None:
    with pytest.raises(FrozenInstanceError):
        digits().seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("training.learning_rate", "0.05", 0.05),
        ("training.epochs", "3", 3),
        ("training.flip", "true", True),
        ("network.downsample", "2,3", (2, 3)),
        ("network.downsample", "", ()),
        ("data.dataset", "fashion-mnist", "fashion-mnist"),
        ("seed", "5", 5),
    ],
)
def test_a_field_is_replaced_by_its_path(path: str, text: str, value: object) -> None:
    changed = set_fields(digits(), {path: text})
    found: object = changed
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("path", ["training.rate", "learning_rate", "training.epochs.x", ""])
def test_an_unknown_field_is_answered_with_the_fields(path: str) -> None:
    with pytest.raises(UsageError, match=r"unknown configuration field .*training\.learning_rate"):
        set_fields(digits(), {path: "1"})


def test_a_number_of_numpy_is_one() -> None:
    config = set_fields(digits(), {"network.k": np.int64(3), "training.learning_rate": np.float32(0.5)})
    assert (config.network.k, config.training.learning_rate) == (3, 0.5)
    assert type(config.network.k) is int


def test_a_group_of_fields_is_answered_with_one_of_them() -> None:
    with pytest.raises(UsageError, match="training is no field, but a group of them. Give .* such as training.epochs"):
        set_fields(digits(), {"training": "1"})


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("training.epochs", "many", "training.epochs is 'many', but must be of type int"),
        ("training.flip", "1", r"training.flip is '1', but must be of type bool \(true or false\)"),
        ("network.downsample", "a", "network.downsample is 'a', but must be of type comma-separated integers"),
        ("training.epochs", "0", "training.epochs is 0, but must be an integer of at least 1"),
        ("training.batch_size", "0", "training.batch_size is 0"),
        ("training.lr_every", "0", "training.lr_every is 0"),
        ("training.learning_rate", "0", "training.learning_rate is 0.0, but must be a finite number above 0"),
        ("training.learning_rate", "nan", "training.learning_rate is nan, but must be a finite number above 0"),
        ("training.learning_rate", "inf", "training.learning_rate is inf, but must be a finite number above 0"),
        ("training.lr_factor", "2", r"training.lr_factor is 2.0, but must be a factor in \(0, 1\]"),
        ("training.momentum", "1", r"training.momentum is 1.0, but must be a number in \[0, 1\)"),
        ("training.weight_decay", "-1", "training.weight_decay is -1.0"),
        ("training.crop_padding", "-1", "training.crop_padding is -1, but must be pixels"),
        ("training.cutout", "-1", "training.cutout is -1, but must be pixels"),
        ("training.crop_fill", "mirror", "unknown training.crop_fill 'mirror'. Choices: zeros, reflect"),
        ("training.alternating_flip", "true", "training.alternating_flip is True, but must be false where"),
        ("training.lookahead", "1", r"training.lookahead is 1.0, but must be a number in \[0, 1\)"),
        ("training.norm_bias_rate", "0", "training.norm_bias_rate is 0.0, but must be a finite number above 0"),
        ("training.block_epochs", "1,0", r"training.block_epochs is \[1, 0\], but must be integers of at least 1"),
        (
            "training.block_epochs",
            "1",
            r"training.block_epochs is \[1\], but must be a number for each of the 4 blocks",
        ),
        ("training.prefix", "cach", "unknown training.prefix 'cach'. Did you mean 'cache'"),
        ("training.views", "-1", "training.views is -1, but must be a number of fixed views, or 0 for new ones each"),
        ("data.holdout", "0.7", r"data.holdout is 0.7, but must be a share in \[0, 0.5\]"),
        ("data.subset", "-1", "data.subset is -1, but must be a number of images, or 0 for all"),
        ("data.image_size", "-1", "data.image_size is -1, but must be pixels of a side, or 0 for as they are"),
        ("data.image_size", "32", "data.image_size is 32, but must be 0 for digits, whose size is fixed"),
        ("data.eval_resize", "256", "data.eval_resize is 256, but must be at least data.image_size, which is cropped"),
        ("data.mean", "a", "data.mean is 'a', but must be of type comma-separated numbers"),
        ("data.mean", "0.5,inf", r"data.mean is \[0.5, inf\], but must be finite numbers with commas, or empty"),
        ("data.mean", "0.5", r"data.std is \[\], but must be as many numbers as data.mean has, 1"),
        ("data.std", "0", r"data.std is \[0.0\], but must be finite numbers above 0, or empty"),
        ("training.crop", "random", "unknown training.crop 'random'. Did you mean 'random-resized'"),
        ("training.crop", "random-resized", "training.crop_padding is 1, but must be 0 where training.crop is random-"),
        (
            "training.crop_scale",
            "0.5,2",
            r"training.crop_scale is \[0.5, 2.0\], but must be two numbers in \(0, 1\]",
        ),
        (
            "training.crop_ratio",
            "2,1",
            r"training.crop_ratio is \[2.0, 1.0\], but must be two numbers in \(0, inf",
        ),
        ("data.label", "a\nb", r"data.label is 'a\\nb', but must be one line of text"),
        ("network.k", "0", "network.k is 0, but must be an integer of at least 1"),
        ("network.depth", "0", "network.depth is 0"),
        ("network.width", "-3", "network.width is -3, but must be an integer of at least 1"),
        ("network.aux_width", "0", "network.aux_width is 0"),
        ("network.average", "0", "network.average is 0"),
        ("network.downsample", "9", r"network.downsample is \[9\], but must be block numbers in 1..4"),
        ("network.batch_norm", "of", "unknown network.batch_norm 'of'. Did you mean 'off'"),
        ("mode", "greedly", "unknown mode 'greedly'. Did you mean 'greedy'"),
        ("store", "map", "unknown store 'map'. Did you mean 'maps'"),
        ("seed", "-1", "seed is -1"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(path: str, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        set_fields(digits(), {path: text})


def test_batch_norm_follows_the_paper_unless_overruled() -> None:
    def network(k: int, batch_norm: str = "auto") -> NetworkConfig:
        return NetworkConfig(depth=1, width=1, k=k, aux_width=1, batch_norm=batch_norm)

    assert [network(k).has_batch_norm for k in (1, 2, 3)] == [False, True, True]
    assert network(1, "on").has_batch_norm
    assert not network(2, "off").has_batch_norm


def test_settings_name_every_field_of_every_part() -> None:
    paths = list(SETTINGS)
    assert paths == list(by_path(asdict(digits())))
    parts = {"data": DataConfig, "network": NetworkConfig, "training": TrainingConfig}
    for part, kind in parts.items():
        assert {p for p in paths if p.startswith(part)} == {f"{part}.{f}" for f in kind.__dataclass_fields__}
    assert {"mode", "seed", "store", "recipe"} <= set(paths)


def test_fields_are_validated_together() -> None:
    values = {"network.depth": 1, "network.downsample": "", "training.epochs": "2"}
    changed = set_fields(fashion_mnist(), values)
    assert (changed.network.depth, changed.network.downsample, changed.training.epochs) == (1, (), 2)


def test_fields_of_a_later_version_are_left_out() -> None:
    text = digits().to_json().replace('{"data": {', '{"later": 1, "data": {"newer": 2, ')
    assert '"newer": 2' in text
    assert RunConfig.from_json(text) == digits()


def test_a_configuration_that_could_be_made_before_is_written_as_before() -> None:
    """So equal runs keep their content digest: the fields that came later stand in a file where they say something."""
    stored = (Path(__file__).parent / "golden" / "config-before-views.json").read_text()
    config = RunConfig.from_json(stored)
    assert (config.training.crop, config.data.eval_resize, config.data.mean) == ("pad", 0, ())
    assert config.to_json() == stored
    later = set_fields(config, {"data.mean": (0.5,), "data.std": (0.25,)})
    assert RunConfig.from_json(later.to_json()) == later and '"mean": [0.5], "std": [0.25]' in later.to_json()


def test_parts_of_originals_are_of_folders_whose_images_have_one_size() -> None:
    fields = {"training.crop": "random-resized", "training.crop_padding": 0}
    with pytest.raises(UsageError, match="training.crop is 'random-resized', but must be pad but for images of a"):
        set_fields(digits(), fields)
    config = set_fields(digits(), {**fields, "data.dataset": "imagefolder", "data.image_size": 8})
    assert config.training.augments and not config.training.is_fixed


def test_a_configuration_of_before_there_were_prefixes_recomputed_them() -> None:
    tree = json.loads(digits().to_json())
    del tree["training"]["prefix"], tree["training"]["views"], tree["network"]["seeding"]
    config = RunConfig.from_json(json.dumps(tree))
    assert (config.training.prefix, config.training.views) == ("recompute", 0)
    assert config.network.seeding == 1  # and drew the first weights of every M from one stream


def test_every_field_has_a_help_of_its_own() -> None:
    helps = [setting.help for setting in SETTINGS.values()]
    assert all(text.strip().endswith(".") for text in helps)
    assert len(set(helps)) == len(helps)


def test_every_field_is_replaced_by_the_text_of_its_value() -> None:
    config = replace(fashion_mnist(), seed=3)
    for path, value in by_path(asdict(config)).items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        assert set_fields(config, {path: text}) == config, path


def test_the_page_of_settings_is_the_codes_own_text() -> None:
    page = Path(__file__).parent.parent / "docs" / "settings.md"
    assert page.read_text() == settings_reference.reference(), (
        "docs/settings.md is not the code's: python tests/settings_reference.py > docs/settings.md writes it anew"
    )


@pytest.mark.parametrize("path", ["training.epochs", "training.batch_size", "network.prune_to", "training.views"])
def test_a_count_that_is_no_whole_number_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match=rf"{path} is 1\.5, but must be an integer"):
        set_fields(digits(), {path: 1.5})


def test_a_block_that_downsamples_twice_is_refused() -> None:
    with pytest.raises(UsageError, match=r"network.downsample is \[2, 2\], but must be block numbers, each once"):
        set_fields(digits(), {"network.downsample": (2, 2)})


def test_the_width_of_custom_blocks_may_be_0_and_its_message_says_so() -> None:
    with pytest.raises(UsageError, match=r"network.width is -1, but must be an integer of at least 0"):
        NetworkConfig(architecture="custom", depth=2, width=-1, k=1, aux_width=8)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"training.lookahead": 0.9, "training.ema_decay": 0.9},
            "training.lookahead is 0.9, but must be 0 where training.ema_decay is not",
        ),
        (
            {"training.nesterov": True, "training.momentum": 0.0},
            "training.nesterov is True, but must be false without sgd and training.momentum above 0",
        ),
        (
            {"training.nesterov": True, "training.optimizer": "adamw"},
            "training.nesterov is True, but must be false without sgd",
        ),
        (
            {"training.block_epochs": (1, 2, 3, 4), "network.prune_to": 4},
            r"training.block_epochs is \[1, 2, 3, 4\], but must be empty where blocks are pruned",
        ),
    ],
)
def test_fields_that_exclude_each_other(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        set_fields(digits(), values)


def test_epochs_of_each_block_survive_the_file_and_hold_in_greedy_training_alone() -> None:
    config = RunConfig.from_json(set_fields(digits(), {"training.block_epochs": "4,3,2,1"}).to_json())
    assert config.training.block_epochs == (4, 3, 2, 1)
    assert [config.epochs_of(j) for j in (1, 4)] == [4, 1]
    assert set_fields(config, {"mode": "end-to-end"}).epochs_of(4) == config.training.epochs
