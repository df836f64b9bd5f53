"""Tests of layerwise.errors: what a wrong name is answered with."""

from __future__ import annotations

import pytest

from layerwise.errors import UsageError, UserError, unknown


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
