"""Prediction depth: from which depth on a probe says of an image what it says at the last depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probes.results.paired_tests import holm, mcnemar, paired_interval


def prediction_depth(predicted: np.ndarray) -> np.ndarray:
    """Return for each image the first column from which on all predictions are that of the last column, int [n].

    Args:
        predicted: class of each image at each depth, int [n, depths], depths in ascending order.

    In [0, depths - 1]: 0 where all depths agree, the last where the depth before differs. Nothing is said of whether
    the prediction is right. Source: Baldock, Maennel and Neyshabur 2021, section 2.1, whose last prediction is the
    network's own; here it is the same probe's.
    """
    agree = predicted[:, ::-1] == predicted[:, -1:]
    settled: np.ndarray = predicted.shape[1] - np.cumprod(agree, axis=1).sum(axis=1)
    return settled


@dataclass(frozen=True)
class Change:
    """Images learnt (right only after) and lost (right only before), bool [n], and the paired test of both numbers.

    p: McNemar's exact test that as many are lost as learnt; p_holm: adjusted over the changes of one probe. low, high:
    of the share learnt minus the share lost, paired bootstrap over images.
    """

    learnt: np.ndarray
    lost: np.ndarray
    low: float
    high: float
    p: float
    p_holm: float


def changes(right: np.ndarray) -> list[Change]:
    """Return what changes from each depth to the next. right: whether a probe is right, bool [n, depths]."""
    pairs = [(right[:, j - 1], right[:, j]) for j in range(1, right.shape[1])]
    p_values = [mcnemar(*pair) for pair in pairs]
    return [
        Change(after & ~before, before & ~after, *paired_interval(before, after), p, p_holm)
        for (before, after), p, p_holm in zip(pairs, p_values, holm(p_values), strict=True)
    ]
