"""Top-5: whether the true class is among the five likeliest."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

# Of fewer classes the five likeliest are more than half, and a guess is right as often.
TOP, TOP5_FROM = 5, 10

Scores = TypeVar("Scores", np.ndarray, "Tensor")


def is_in_top5(scores: Scores, own: Scores) -> Scores:
    """Return whether at most five classes, the true one among them, score [n, n_classes] as high as it, own [n].

    Classes that tie count before it: of neighbours' votes, all classes without one tie.
    """
    found: Scores = (scores >= own[:, None]).sum(1) <= TOP
    return found
