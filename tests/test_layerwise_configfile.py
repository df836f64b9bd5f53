"""Configurations as files: what is written is read back, a run is repeated by its own, and what is none is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import make_run, small_config

import layerwise
from layerwise.commandline import call
from layerwise.commands.inspect import inspect
from layerwise.commands.train import train
from layerwise.configfile import read_config, to_toml
from layerwise.errors import UsageError, UserError
from layerwise.recipes import RECIPES, recipe
from layerwise.runfile import RunFile

TINY = ["--depth", "1", "--width", "2", "--aux-width", "2", "--epochs", "1", "--device", "cpu", "--subset", "200"]


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_written_is_read_back(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(to_toml(recipe(name)))
    assert read_config(tmp_path / "a.toml") == recipe(name)


def test_a_part_of_a_configuration_is_of_its_recipe(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('recipe = "cifar10-k3"\nseed = 4\n[network]\ndownsample = [2, 3]\n')
    found = read_config(tmp_path / "a.toml")
    assert (found.seed, found.network.downsample, found.network.k, found.training.epochs) == (4, (2, 3), 3, 50)


def test_a_run_is_repeated_by_its_own_configuration_to_the_bit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, printed = make_run(tmp_path / "first.h5", seed=3), tmp_path / "c.toml"
    assert call(train, "layerwise-train", ["--config", str(first), "--print-config"]) == 0
    printed.write_text(capsys.readouterr().out)
    for i, source in enumerate((first, printed)):
        words = ["--config", str(source), "--device", "cpu", "--out", str(tmp_path / f"{i}.h5")]
        assert call(train, "layerwise-train", words) == 0
    with layerwise.train(config=first, out=tmp_path / "2.h5", device="cpu"):
        pass
    with layerwise.train(config=small_config(seed=3), out=tmp_path / "3.h5", device="cpu"):
        pass
    digests = set()
    for path in (first, *(tmp_path / f"{i}.h5" for i in range(4))):
        with RunFile(path) as run:
            digests.add(run.content_digest)
    assert len(digests) == 1
    words = ["--config", str(first), "--seed", "4", "--device", "cpu", "--out", str(tmp_path / "other.h5")]
    assert call(train, "layerwise-train", words) == 0
    with RunFile(tmp_path / "other.h5") as run:
        assert run.config is not None and run.config.seed == 4
        assert run.config.network == small_config().network


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        ("epochs = ", UserError, r"c.toml is no TOML file \(.*\). `layerwise-train --print-config` writes one.$"),
        ("[training]\nepoch = 3\n", UsageError, r"unknown configuration field 'training.epoch'. Did you mean"),
        ("[training]\nepochs = 0\n", UsageError, r"training.epochs is 0"),
        ('recipe = "digit"\n', UsageError, r"unknown recipe 'digit'"),
        (None, UserError, r"c.toml does not exist; expected a run file \(.h5\), or a configuration in TOML.$"),
    ],
)
def test_what_is_no_configuration_is_named(
    content: str | None, kind: type[UserError], message: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "c.toml").write_text(content)
    with pytest.raises(kind, match=message):
        read_config(tmp_path / "c.toml")


def test_words_that_do_not_stand_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.toml").write_text(to_toml(recipe("digits")))
    assert call(train, "layerwise-train", ["digits", "--config", str(tmp_path / "c.toml")]) == 2
    assert "c.toml stands in the place of a recipe, so leave digits out." in capsys.readouterr().err


def test_inspect_says_by_which_command_a_run_was_made_and_says_it_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*TINY, "--set", "data.label=a b", "--out", str(tmp_path / "run.h5")]
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/layerwise-train", *words])
    assert call(train, "layerwise-train", words) == 0
    capsys.readouterr()
    assert call(inspect, "layerwise-inspect", [str(tmp_path / "run.h5")]) == 0
    assert "command         layerwise-train --depth 1 --width 2" in capsys.readouterr().out
    assert call(inspect, "layerwise-inspect", [str(tmp_path / "run.h5"), "--json", "--verify"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["config"]["network"]["width"] == 2 and facts["dataset"]["name"] == "a b"
    assert facts["provenance"]["command"][1:] == words and facts["verified"].startswith("intact")
    assert [depth["shape"] for depth in facts["depths"]] == [[1, 8, 8], [2, 8, 8]]
    with RunFile(tmp_path / "run.h5") as run:
        assert facts["depths"][1]["scores"]["test_accuracy"] == run.scores(1)["test_accuracy"]
