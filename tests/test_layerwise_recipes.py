"""Recipes: complete, documented, and an unknown one answered with the choices."""

from __future__ import annotations

import pytest

from layerwise.errors import UsageError
from layerwise.recipes import RECIPES, recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_bears_its_name_and_documents_itself(name: str) -> None:
    assert recipe(name).recipe == name
    for word in ("Paper:", "Command: layerwise-train", "Cost:", "Expected:"):
        assert word in (RECIPES[name].__doc__ or "")


def test_an_unknown_recipe_is_answered_with_the_nearest_and_all() -> None:
    with pytest.raises(
        UsageError, match=r"unknown recipe 'digit'. Did you mean 'digits'\? Choices: digits, fashion-mnist"
    ):
        recipe("digit")
