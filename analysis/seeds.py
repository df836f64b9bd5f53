"""Statistics over training seeds: the mean over cells of the means over seeds, its error, and differences.

A cell is a setting of the fixed factors (M and the auxiliary width), a seed in it a repetition. With means m_c of n_c
seeds in C cells the estimate is (1/C) sum_c m_c, with variance s^2 / C^2 sum_c 1/n_c and s^2 pooled within cells; what
the cells differ in is no noise.

Two kinds of networks are paired within the seed where each cell has the same seeds for both. A seed gives both the same
order of images and the same augmentation, and where the blocks are alike the same first weights, so that their numbers
need not be independent. The paired interval holds whatever their correlation; that of two samples would be too wide
where they rise and fall together, and too narrow where they do not. The price are degrees of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from probes.results.intervals import CONFIDENCE

# Of each cell its numbers, by seed.
Cells = Mapping[Hashable, pd.Series]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A difference of two estimates with its 95% interval, two-sided p-value and degrees of freedom of Student's t.

    paired: whether it is within seeds. Interval and p are missing where no cell has two seeds.
    """

    difference: float
    ci_low: float
    ci_high: float
    p: float
    freedom: int
    paired: bool


def pooled(groups: Sequence[Sequence[float]]) -> tuple[float, float, int]:
    """Return the mean of group means, its standard error from the variance pooled within groups, and the freedom.

    Args:
        groups: numbers of the seeds of each cell. The error is missing where no group has two.
    """
    arrays = [np.asarray(group, float) for group in groups]
    freedom = sum(len(group) - 1 for group in arrays)
    mean = float(np.mean([group.mean() for group in arrays]))
    if freedom == 0:
        return mean, math.nan, 0
    variance = sum(float(((group - group.mean()) ** 2).sum()) for group in arrays) / freedom
    return mean, math.sqrt(variance * sum(1 / len(group) for group in arrays)) / len(arrays), freedom


def difference(first: Cells, second: Cells) -> Difference:
    """Return second - first, paired within seeds where every cell has the same seeds in both, else of two samples.

    Args:
        first, second: the numbers of two kinds of networks; where they are not paired, one variance is pooled over
            all cells of both.
    """
    paired = first.keys() == second.keys() and all(set(first[cell].index) == set(second[cell].index) for cell in first)
    if paired:
        mean, error, freedom = pooled([(second[cell] - first[cell]).to_numpy() for cell in first])
        return _student(mean, error, freedom, paired)
    sides = [[part[cell].to_numpy(float) for cell in part] for part in (first, second)]
    mean = float(np.mean([group.mean() for group in sides[1]]) - np.mean([group.mean() for group in sides[0]]))
    freedom = sum(len(group) - 1 for side in sides for group in side)
    if freedom == 0:
        return _student(mean, math.nan, 0, paired)
    variance = sum(float(((group - group.mean()) ** 2).sum()) for side in sides for group in side) / freedom
    shares = sum(sum(1 / len(group) for group in side) / len(side) ** 2 for side in sides)
    return _student(mean, math.sqrt(variance * shares), freedom, paired)


def half_width(error: float, freedom: int) -> float:
    """Return half the 95% interval of Student's t; missing without freedom."""
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * error if freedom else math.nan


def _student(mean: float, error: float, freedom: int, paired: bool) -> Difference:
    half = half_width(error, freedom)
    p = math.nan
    if freedom:
        p = 2 * float(stats.t.sf(abs(mean) / error, freedom)) if error else float(mean == 0)
    return Difference(difference=mean, ci_low=mean - half, ci_high=mean + half, p=p, freedom=freedom, paired=paired)
