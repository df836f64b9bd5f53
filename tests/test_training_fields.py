"""The benchmark of training fields: every variant is a configuration, and differences are paired by seed."""

from __future__ import annotations

import pandas as pd
import pytest

from layerwise.recipes import recipe
from layerwise.settings import set_fields
from tests.benchmarks.training_fields import COMMON, VARIANTS, differences


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_a_configuration_and_not_the_one_it_is_compared_with(name: str) -> None:
    variant = VARIANTS[name]
    own = set_fields(recipe("cifar10-small"), COMMON | variant.fields)
    if variant.against:
        assert own != set_fields(recipe("cifar10-small"), COMMON | VARIANTS[variant.against].fields)
    else:
        assert name == "base"


def test_differences_are_over_the_seeds_that_both_have() -> None:
    scores = {("base", 0): 0.60, ("base", 1): 0.64, ("base", 2): 0.70, ("paper", 0): 0.59, ("paper", 1): 0.61}
    rows = [
        {
            "variant": name,
            "seed": seed,
            "depth": 4,
            "last": 1,
            "validation": score,
            "seconds": 10 + 10 * (name == "paper"),
        }
        for (name, seed), score in scores.items()
    ]
    rows += [row | {"depth": 3, "last": 0, "validation": 0.1} for row in rows]
    base, paper = differences(pd.DataFrame(rows)).to_dict("records")
    assert (base["variant"], base["seeds"], base["validation"]) == ("base", 3, pytest.approx(100 * 1.94 / 3))
    assert (paper["seeds"], paper["points"], paper["seconds"]) == (2, pytest.approx(-2.0), pytest.approx(2.0))
    half = 12.706 * 1.0  # t at 97.5% and 1 degree of freedom, times the standard error of -1 and -3
    assert (paper["low"], paper["high"]) == (pytest.approx(-2 - half, abs=1e-2), pytest.approx(-2 + half, abs=1e-2))
