"""Two probes or networks on the same images: McNemar's exact test, the interval of their difference, Holm's adjustment.

They say how much a difference would move with other images. They say nothing of the spread over training seeds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest

from probes.results.intervals import mean_interval


def paired_interval(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """Return the 95% bootstrap interval of accuracy(after) - accuracy(before) on the same images, in [-1, 1].

    Images are drawn with replacement, each with both its outcomes, and with two more that keep the interval from
    collapsing where few images change (`mean_interval`). Source: Efron and Tibshirani 1993, section 8.3.

    Args:
        before, after: whether each of the n images was told right, bool [n], in the same order.
    """
    return mean_interval(after.astype(float) - before)


def mcnemar(before: np.ndarray, after: np.ndarray) -> float:
    """Return the exact two-sided p-value of McNemar's test that before and after are right equally often.

    Args:
        before, after: whether each of the n images was told right, bool [n], in the same order.

    Source: McNemar 1947; the exact form is a sign test on the images whose outcome changed.
    """
    won, lost = discordant(before, after)
    return 1.0 if won + lost == 0 else float(binomtest(won, won + lost, 0.5).pvalue)


def discordant(before: np.ndarray, after: np.ndarray) -> tuple[int, int]:
    """Return how many images are right only after, and how many only before."""
    return int((after & ~before).sum()), int((before & ~after).sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values of one family adjusted by Holm's step-down method.

    It bounds the chance of any false rejection in the family. Missing ones (NaN) stay missing and count for nothing.
    Source: Holm 1979.
    """
    given = np.asarray(p_values, float)
    order = np.argsort(given)[: int(np.isfinite(given).sum())]  # NaN comes last
    steps = given[order] * np.arange(len(order), 0, -1)
    adjusted = np.full(len(given), np.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return [float(p) for p in adjusted]
