"""The path of penalties of a linear probe: from large to small, where it ends, and which of them is chosen.

The validation fold's log-loss chooses. Unlike accuracy, which a small fold counts in steps of one image, it changes
smoothly with lambda, so that a path that has passed its lowest point can be left. The smallest penalties cost most: on
the raw pixels of Fashion-MNIST (54,000 images) each takes 1.7 times the products of the one before, and the best is the
fifth of ten.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from probes.protocol import Predictions
from probes.solver.fit import LinearFit

# Two a decade, from 10^-0.5 down to 1e-8 at most; and up to 10^2.5 where the largest of these is best.
PENALTIES = tuple(float(10.0 ** (-e / 2)) for e in range(1, 17))
LARGER = tuple(float(10.0 ** (e / 2)) for e in range(6))
# From so many classes on fits of a path are rough at first: left where their optimum seems to be within ROUGH of the
# objective. What may be chosen is solved to the certificate, and a rough log-loss decides nothing that one lower or
# higher by UNSURE nats would decide otherwise. With ten classes a certified fit costs little more than a rough one.
MANY_CLASSES, ROUGH, UNSURE = 50, 3e-3, 0.02
# In nats an image. With few features, or classes that are apart, the log-loss falls for ever, and by ever less.
LEAST_FALL = 1e-3


@dataclass(frozen=True)
class Candidate:
    """A fit of the path with what it says of the validation fold.

    separates: it makes no error on the train fold. is_rough: it was left before its certificate met the tolerance.
    """

    fit: LinearFit
    validation: Predictions
    separates: bool
    is_rough: bool = False

    @property
    def log_loss(self) -> float:
        """Of the validation fold, in nats an image; images of a class that the fit has never seen do not count."""
        known = self.validation.true_log_probability[np.isfinite(self.validation.true_log_probability)]
        return float(-known.mean()) if len(known) else math.inf

    @property
    def rank(self) -> tuple[float, float, float]:
        """What the candidate with the lowest is chosen by: log-loss; of equal ones accuracy, then the larger lambda."""
        return self.log_loss, -self.validation.accuracy, -self.fit.lam


Solve = Callable[[float, LinearFit | None], Candidate]
# What a path asks for: a penalty, the weights to begin from, and whether the fit may be rough.
Asked = tuple[float, LinearFit | None, bool]
Path = Generator[Asked, Candidate, tuple[Candidate, bool]]


def choose(solve: Solve, roughly: Solve | None = None) -> tuple[Candidate, bool]:
    """Return the chosen candidate, and whether the path was cut while its log-loss fell: a better one may lie beyond.

    Args:
        solve: fits one penalty, from given weights where there are any, and scores it.
        roughly: does so with less work, for fits that need not be certified since others will be chosen.
    """
    path = choosing()
    penalty, start, may_be_rough = next(path)
    while True:
        one = roughly if roughly is not None and may_be_rough else solve
        candidate = one(penalty, start)
        try:
            penalty, start, may_be_rough = path.send(candidate)
        except StopIteration as done:
            found: tuple[Candidate, bool] = done.value
            return found


def choosing() -> Path:
    """Walk a path: yield what is to be fitted next, take its candidate, and return what `choose` does."""
    path, is_cut = yield from _walk(PENALTIES, [], patience=2)
    if path[0] is min(path, key=lambda one: one.rank):
        above, is_cut = yield from _walk(LARGER, path[:1], patience=1)
        path = [*above, *path[1:]]
    while unsure := [i for i, one in enumerate(path) if one.is_rough and one.log_loss <= _lowest(path) + UNSURE]:
        for i in unsure:
            path[i] = yield path[i].fit.lam, path[i].fit, False
    return min(path, key=lambda one: one.rank), is_cut


def _lowest(path: Sequence[Candidate]) -> float:
    return min(one.log_loss for one in path)


def _walk(
    penalties: Sequence[float], before: Sequence[Candidate], *, patience: int
) -> Generator[Asked, Candidate, tuple[list[Candidate], bool]]:
    """Walk part of a path; return the candidates before and of penalties, and whether all were fitted and it fell.

    The walk ends where the log-loss has not fallen `patience` times in a row; once is enough where the train fold is
    classified without an error.
    """
    path = list(before)
    best, waited = 0, 0  # the last that fell, and how many have not since
    for penalty in penalties:
        path.append((yield penalty, _ahead(path), True))
        last, is_first = len(path) - 1, len(path) == 1
        if not is_first and abs(path[last].log_loss - path[best].log_loss + LEAST_FALL) <= UNSURE:
            for i in (best, last):
                if path[i].is_rough:
                    path[i] = yield path[i].fit.lam, path[i].fit, False
        if path[last].log_loss < (math.inf if is_first else path[best].log_loss) - LEAST_FALL:
            best, waited = last, 0
        else:
            waited += 1
        if waited == patience or (waited and path[-1].separates):
            return path, False
    return path, waited == 0


def _ahead(path: Sequence[Candidate]) -> LinearFit | None:
    """Return where the fit of the next penalty begins: the last one, moved on as the path went on before.

    From penalty to penalty the weights change by steps in nearly one direction that grow by nearly one factor. Measured
    on 13,500 images of Fashion-MNIST, raw pixels, lambda 0.1 to 3e-4: 431 products with the Hessian, against 521 with
    steps taken as equal and 721 from the last fit as it is. From rough fits they are taken as equal: what these lack of
    their optimum grows with the factor (300 classes, lambda 1e-4: it began 0.8 nats above the optimum, and 0.1 so).
    """
    fits = [one.fit for one in path[-3:]]
    if len(fits) < 2:
        return fits[-1] if fits else None
    steps = [b.coef - a.coef for a, b in pairwise(fits)]
    sizes = [float(np.linalg.norm(step)) for step in steps]
    is_known = len(sizes) == 2 and sizes[0] > 0 and not path[-1].is_rough
    growth = min(2.0, sizes[1] / sizes[0]) if is_known else 1.0
    last, known = fits[-1], np.isfinite(fits[-1].intercept)
    shift = np.subtract(last.intercept, fits[-2].intercept, where=known, out=np.zeros_like(last.intercept))
    return replace(last, coef=last.coef + growth * steps[-1], intercept=last.intercept + growth * shift)
