"""Statistics over training seeds: the mean over cells of the means over seeds, its error, differences, equivalence.

A cell is a setting of the fixed factors (M and the auxiliary width), a seed in it a repetition. With means m_c of n_c
seeds in C cells the estimate is (1/C) sum_c m_c, with variance s^2 / C^2 sum_c 1/n_c and s^2 pooled within cells; what
the cells differ in is no noise.

Two kinds of networks are paired within the seed where each cell has the same seeds for both. A seed gives both the same
order of images and the same augmentation, and where the blocks are alike the same first weights, so that their numbers
need not be independent. The paired interval holds whatever their correlation; that of two samples would be too wide
where they rise and fall together, and too narrow where they do not. The price are degrees of freedom.

**The images' share.** An accuracy on n images is a count: two seeds may agree in it to the image by luck, s is then 0,
and Student's t alone would be sure of anything (in 13% of null cases with 2 seeds, one width, 100 images, 97% right).
But two networks of one kind are right about other images, which moves an accuracy p by up to p (1 - p) / n. So an
interval is never narrower than the normal one of half of that variance, and a difference has the larger of the two
p-values. Half, since seeds disagree on about half as many images as unrelated networks would (0.40 to 0.65 in the smoke
study, by depth and mode). Simulated with 2, 3 and 5 seeds, 1 and 2 widths, 100 to 10,000 images, paired or not, the
size is then 5% or less, as it is with a quarter, and the power that it costs is 5 points or less (the whole variance
costs up to 16). A floor under s itself, times the t of one degree of freedom (12.7), would leave no power at 2 seeds.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from probes.results.intervals import CONFIDENCE

# The least variance over seeds, as a share of p (1 - p) / n.
IMAGES_SHARE = 0.5
# What an interval over seeds says of itself.
FLOOR = "at least the images' share"
# What a row's interval is over, in its column `interval`.
IMAGES, SEEDS = "images", "seeds"
_TAIL = (1 + CONFIDENCE) / 2
_Z = float(special.ndtri(_TAIL))

# Of each cell a row for each seed: its number, and the variance that its images give it (`images_variance`).
Cells = Mapping[Hashable, pd.DataFrame]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over cells and seeds, or a difference of two.

    error: its standard error over seeds, missing where freedom, the degrees of Student's t, is 0. images: the least
    standard error, which the images alone give.
    """

    mean: float
    error: float
    freedom: int
    images: float
    paired: bool = False

    def half_width(self) -> float:
        """Return half the 95% interval; missing without freedom."""
        if not self.freedom:
            return math.nan
        return max(float(special.stdtrit(self.freedom, _TAIL)) * self.error, _Z * self.images)

    def p_zero(self) -> float:
        """Return the two-sided p-value of no difference."""
        return 2 * self._beyond(abs(self.mean))

    def p_within(self, bound: float) -> float:
        """Return the p-value of a difference of `bound` or more: small where it is shown to be less, either way.

        The larger one-sided p-value of two, as Schuirmann 1987 has it (TOST).
        """
        return self._beyond(bound - abs(self.mean))

    def _beyond(self, distance: float) -> float:
        """Return the chance of an estimate at least `distance` off the truth to one side, by seeds or by images."""
        if not self.freedom:
            return math.nan
        by_seeds = special.stdtr(self.freedom, -distance / self.error) if self.error else np.heaviside(-distance, 0.5)
        by_images = special.ndtr(-distance / self.images) if self.images else 0.0
        return float(max(by_seeds, by_images))


def images_variance(accuracy: Sequence[float] | np.ndarray | pd.Series, n: int) -> np.ndarray:
    """Return the variance of accuracies over n images that are right independently of each other.

    The share is that of Agresti and Coull 1998, the centre of Wilson's interval, so that 100% has a variance too.
    """
    more = n + _Z**2
    share = (np.asarray(accuracy, float) * n + _Z**2 / 2) / more
    return np.asarray(share * (1 - share) / more)


def pooled(groups: Sequence[Sequence[float]], images: Sequence[Sequence[float]]) -> Estimate:
    """Return the mean of group means, with its standard error from the variance pooled within groups.

    Args:
        groups: numbers of the seeds of each cell. The error is missing where no group has two.
        images: the variance that its images give each number (`images_variance`; 0 for what is no accuracy).
    """
    return _combined(groups, images, [1 / len(groups)] * len(groups))


def over_seeds(rows: pd.DataFrame, by: list[str], seed: str = "seed") -> Iterator[tuple[pd.DataFrame, Estimate]]:
    """Yield rows that are alike in `by` and differ in their seed, two at least, with the estimate of their mean.

    rows: `value`, and `error`, the standard error that the images give. A value that is missing has no mean.
    """
    for _, group in rows.groupby(by, dropna=False, sort=False):
        if len(group) > 1 and group[seed].nunique() == len(group) and group["value"].notna().all():
            yield group, pooled([list(group["value"])], [list(group["error"].fillna(0.0) ** 2)])


def difference(first: Cells, second: Cells) -> Estimate:
    """Return second - first, paired within the seeds that both have, else, where they share none, of two samples.

    Args:
        first, second: the same cells of two kinds of networks, with columns value and images, by seed. A seed that one
            of them lacks, as of a network that did not train, counts for neither. Where they are not paired, one
            variance is pooled over all cells of both.
    """
    shared = {cell: first[cell].index.intersection(second[cell].index) for cell in first}
    if all(len(seeds) for seeds in shared.values()):
        pairs = [(first[cell].loc[seeds], second[cell].loc[seeds]) for cell, seeds in shared.items()]
        values = [(other["value"] - one["value"]).to_numpy() for one, other in pairs]
        images = [(other["images"] + one["images"]).to_numpy() for one, other in pairs]
        return _combined(values, images, [1 / len(first)] * len(first), paired=True)
    both = [part[cell] for part in (first, second) for cell in first]
    weights = [sign / len(first) for sign in (-1, 1) for _ in first]
    return _combined([cell["value"].to_numpy() for cell in both], [cell["images"].to_numpy() for cell in both], weights)


def _combined(
    groups: Sequence[Sequence[float]],
    images: Sequence[Sequence[float]],
    weights: Sequence[float],
    paired: bool = False,
) -> Estimate:
    """Return the weighted sum of group means, with one variance pooled within all groups."""
    arrays = [np.asarray(group, float) for group in groups]
    freedom = sum(len(group) - 1 for group in arrays)
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in arrays)
    shares = [weight**2 / len(group) for weight, group in zip(weights, arrays, strict=True)]
    least = sum(share * float(np.mean(part)) for share, part in zip(shares, images, strict=True))
    return Estimate(
        mean=float(sum(weight * group.mean() for weight, group in zip(weights, arrays, strict=True))),
        error=math.sqrt(squares / freedom * sum(shares)) if freedom else math.nan,
        freedom=freedom,
        images=math.sqrt(IMAGES_SHARE * least),
        paired=paired,
    )
