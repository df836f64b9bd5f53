"""The fits of one linear probe at one depth: features standardised, perhaps projected; a path, and a choice."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from layerwise.model.seeds import derive_seed
from probes.linear.features import DepthData
from probes.protocol import Predictions, best_candidate, joined, predictions
from probes.solver.fit import LinearFit, log_proba
from probes.solver.path import fit_path
from probes.solver.rows import Features, Rows, View
from probes.solver.standardiser import Standardiser

log = logging.getLogger("layerwise.probes")

# Two a decade. The path is extended beyond an end while the best value lies there, by three decades at most: where
# there is nothing to learn, or all classes are apart, the best value may lie beyond any end.
PENALTIES = tuple(float(10.0 ** (e / 2)) for e in range(-10, 0))
EXTENSIONS = 6
FIXED_PENALTY = 1e-4
LOSSES = {"linear": "multinomial", "linear-ovr": "ovr"}
DRAWS = 10


def random_projection(width: int, least: int, draw: int, depth: int) -> np.ndarray:
    """Return a random orthonormal projection float32 [width, least], uniform over all such, for one draw and depth."""
    normal = np.random.default_rng(derive_seed(draw, "matched features", depth)).normal(size=(width, least))
    q, r = np.linalg.qr(normal)
    return (q * np.sign(np.diag(r))).astype(np.float32)


@dataclass(frozen=True)
class Fitted:
    """A fitted probe: its problem, the standardisation of its images, how many they were, and the time it took."""

    problem: LinearProblem
    standardise: Standardiser
    best: LinearFit
    n_train: int
    seconds: float

    def predict(self, data: DepthData) -> Predictions:
        """Return what the probe says of the images of all splits of the data, end to end."""
        return joined([self.problem.predict([self.best], data, s, data.y[s], self.standardise)[0] for s in data.x])


@dataclass(frozen=True)
class LinearProblem:
    """One linear probe of a depth, and how it sees features: standardised, and then perhaps projected."""

    probe: str
    n_classes: int
    projection: np.ndarray | None

    def fit(self, data: DepthData, splits: Sequence[str], penalty: float, start: LinearFit | None = None) -> Fitted:
        """Fit one penalty to the given splits, end to end."""
        begin = time.perf_counter()
        x = View(*(data.x[split] for split in splits))
        y = np.concatenate([data.y[split] for split in splits])
        standardise = Standardiser(x, data.device, data.where(" + ".join(splits)))
        (best,) = self._path(data, x, y, standardise, [penalty], start)
        return Fitted(self, standardise, best, len(y), time.perf_counter() - begin)

    def fit_best(self, data: DepthData, y: Mapping[str, np.ndarray]) -> Fitted:
        """Fit the whole path on the train fold and choose on the validation fold, extending it while its end is best.

        Args:
            y: labels by split, those of the data or of another task on the same images.
        """
        begin = time.perf_counter()
        x = data.x["train"]
        standardise = Standardiser(x, data.device, data.where("train"))

        def path(penalties: Sequence[float], start: LinearFit | None) -> tuple[list[LinearFit], list[Predictions]]:
            found = self._path(data, x, y["train"], standardise, penalties, start)
            return found, self.predict(found, data, "validation", y["validation"], standardise)

        fits, scored = path(PENALTIES, None)
        for _ in range(EXTENSIONS):
            best = best_candidate(scored, lambda one: one)
            if 0 < best < len(fits) - 1:
                break
            beyond = fits[best].lam * (10**-0.5 if best == 0 else 10**0.5)
            new, of_new = path([beyond], fits[best])
            fits, scored = (new + fits, of_new + scored) if best == 0 else (fits + new, scored + of_new)
        best = best_candidate(scored, lambda one: one)
        if best in (0, len(fits) - 1):
            log.warning(
                "depth %d: the best lambda, %.1e, lies at the end of its path; a better one may lie beyond",
                data.depth,
                fits[best].lam,
            )
        return Fitted(self, standardise, fits[best], len(y["train"]), time.perf_counter() - begin)

    def predict(
        self, fits: Sequence[LinearFit], data: DepthData, split: str, y: np.ndarray, standardise: Standardiser
    ) -> list[Predictions]:
        """Return what each fit says of a split with labels y: read once for all on a GPU, in blocks on a CPU."""
        x, affine = self._seen(data.x[split], standardise)
        source: Rows | np.ndarray | torch.Tensor = x
        if data.device.type == "cuda" and data.fits_memory(len(x)):
            source, affine = Features(x, affine).whole(data.device), None
        return [predictions(log_proba(fit, source, data.where(split), standardiser=affine), y) for fit in fits]

    def _path(
        self,
        data: DepthData,
        x: Rows | np.ndarray,
        y: np.ndarray,
        standardise: Standardiser,
        penalties: Sequence[float],
        start: LinearFit | None,
    ) -> list[LinearFit]:
        source, affine = self._seen(x, standardise)
        return fit_path(
            source, y, penalties, n_classes=self.n_classes, loss=LOSSES[self.probe], standardiser=affine, start=start,
            max_memory=data.max_memory, device=data.device, where=f"depth {data.depth}",
        )  # fmt: skip

    def _seen(self, x: Rows | np.ndarray, standardise: Standardiser) -> tuple[Rows | np.ndarray, Standardiser | None]:
        """Return the features, and the standardiser with which the solver is to read them."""
        if self.projection is None:
            return x, standardise
        return View(x, affine=standardise, projection=self.projection), None
