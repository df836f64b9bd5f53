"""Tests of layerwise.errors: what a wrong name is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerwise.errors import UsageError, UserError, missing_package, nearest, no_file, unknown


def test_unknown_lists_the_choices_in_their_order_and_suggests_the_nearest() -> None:
    error = unknown("recipe", "digit", ["fashion-mnist", "digits", "vgg11"])
    assert str(error) == ("unknown recipe 'digit'. Did you mean 'digits'? Choices: fashion-mnist, digits, vgg11.")


def test_unknown_suggests_nothing_where_nothing_is_near() -> None:
    error = unknown("recipe", "zzz", ["digits", "vgg11"])
    assert str(error) == "unknown recipe 'zzz'. Choices: digits, vgg11."


def test_unknown_takes_what_is_no_string() -> None:
    assert str(unknown("k", 7, (1, 2, 3))) == "unknown k '7'. Choices: 1, 2, 3."


def test_a_wrong_name_is_wrong_usage_and_a_value_error() -> None:
    error = unknown("recipe", "zzz", ["digits"])
    assert isinstance(error, UsageError)
    assert issubclass(UsageError, UserError)
    with pytest.raises(ValueError, match="unknown recipe"):
        raise error


def test_nearest_names_a_few_or_says_nothing() -> None:
    assert nearest("resnet8", ["vgg11", "resnet18", "resnet50"]) == " Nearest: resnet18, resnet50."
    assert nearest("zzz", ["vgg11", "resnet18"]) == ""


def test_a_path_that_is_no_file_says_which_it_is(tmp_path: Path) -> None:
    assert str(no_file(tmp_path, "arrays")) == f"{tmp_path} is a folder; expected arrays."
    assert str(no_file(tmp_path / "a", "arrays")) == f"{tmp_path / 'a'} does not exist; expected arrays."


def test_missing_packages_come_with_the_command_that_installs_them() -> None:
    one = (
        "x needs the package a, which is not installed; install it by: pip install '.[e]' in the folder of this project"
    )
    assert str(missing_package("x", ["a"], "e")) == one
    two = str(missing_package("x", ["a", "b"], "e", ", or y"))
    assert two.startswith("x needs the packages a and b, which are not installed; install them by: pip install ")
    assert two.endswith("'.[e]' in the folder of this project, or y")


def test_a_dotted_path_that_ends_alike_is_meant_before_one_that_looks_alike() -> None:
    choices = ["mode", "network.k", "training.momentum"]
    assert "Did you mean 'mode'?" in str(unknown("field", "training.mode", choices))
    assert "Did you mean 'network.k'?" in str(unknown("field", "k", choices))
