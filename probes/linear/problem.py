"""The fits of one linear probe at one depth: features standardised, perhaps projected; a path, and a choice."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from layerwise import ranks
from layerwise.model.seeds import derive_seed
from probes.linear.features import DepthData
from probes.linear.penalties import MANY_CLASSES, ROUGH, Candidate, choose
from probes.logistic import CertifiedLogisticRegression
from probes.protocol import Predictions, joined, predictions
from probes.solver.fit import LinearFit, is_right, log_proba_blocks
from probes.solver.path import Fitter
from probes.solver.rows import Features, Rows, View
from probes.solver.standardiser import Standardiser

log = logging.getLogger("layerwise.probes")

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

    def estimator(self) -> Pipeline:
        """Return the same as scikit-learn's: standardisation, then the classifier, of features [n, d] as they are."""
        scaler = StandardScaler()
        scaler.mean_, scaler.scale_, scaler.var_ = (
            self.standardise.mean,
            self.standardise.scale,
            self.standardise.scale**2,
        )
        scaler.n_features_in_, scaler.n_samples_seen_ = len(self.standardise.mean), self.n_train
        return Pipeline([("standardise", scaler), ("classify", CertifiedLogisticRegression.of_fit(self.best))])


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
        y = np.concatenate([data.own(split, data.y[split]) for split in splits])
        standardise = Standardiser(x, data.device, data.where(" + ".join(splits)), is_shared=True)
        ((best,),) = self._fitter(data, x, y, standardise).fit([penalty], None if start is None else [start])
        _say(data, " + ".join(splits), best)
        return Fitted(self, standardise, best, sum(len(data.y[s]) for s in splits), time.perf_counter() - begin)

    def fit_best(self, data: DepthData, y: Mapping[str, np.ndarray], tell: Callable[[float], None]) -> Fitted:
        """Fit a path of penalties on the train fold and choose on the validation fold, as `penalties.choose` says.

        Args:
            y: labels by split, those of the data or of another task on the same images.
            tell: is told each penalty before it is fitted.
        """
        begin = time.perf_counter()
        x, own = data.x["train"], data.own("train", y["train"])
        standardise = Standardiser(x, data.device, data.where("train"), is_shared=True)
        fitter = self._fitter(data, x, own, standardise)
        seen, affine = self._seen(x, standardise)

        def solve(penalty: float, start: LinearFit | None, rough: float = 0.0) -> Candidate:
            tell(penalty)
            ((fit,),) = fitter.fit([penalty], None if start is None else [start], rough=rough)
            (validation,) = self.predict([fit], data, "validation", y["validation"], standardise)
            is_rough = bool(rough) and not fit.converged
            _say(data, "train", fit, validation, is_rough=is_rough)
            separates = all_right(fit, seen, own, data.device, affine)
            return Candidate(fit, validation, separates, is_rough)

        best, is_cut = choose(solve, partial(solve, rough=ROUGH) if self.n_classes >= MANY_CLASSES else None)
        if is_cut:
            log.warning(
                "depth %d: the log-loss still falls at lambda %.1e, the end of its path; a better one may lie beyond",
                data.depth,
                best.fit.lam,
            )
        return Fitted(self, standardise, best.fit, len(y["train"]), time.perf_counter() - begin)

    def predict(
        self, fits: Sequence[LinearFit], data: DepthData, split: str, y: np.ndarray, standardise: Standardiser
    ) -> list[Predictions]:
        """Return what each fit says of a split with labels y: read once for all on a GPU, in blocks on a CPU.

        Each rank scores the images that it holds, and is sent what the others say of theirs.
        """
        own = data.own(split, y)
        found = ranks.all_attempted(lambda: self._predict(fits, data, split, own, standardise) if len(own) else None)
        return [joined(parts) for parts in zip(*(one for one in found if one is not None), strict=True)]

    def _predict(
        self, fits: Sequence[LinearFit], data: DepthData, split: str, own: np.ndarray, standardise: Standardiser
    ) -> list[Predictions]:
        x, affine = self._seen(data.x[split], standardise)
        source: Rows | np.ndarray | torch.Tensor = x
        if data.device.type == "cuda" and data.fits_memory(len(x)):
            source, affine = Features(x, affine).whole(data.device), None
        return [
            self._predictions(log_proba_blocks(fit, source, data.where(split), standardiser=affine), own)
            for fit in fits
        ]

    def _predictions(self, blocks: Iterable[torch.Tensor], y: np.ndarray) -> Predictions:
        parts, start = [], 0
        for block in blocks:
            parts.append(predictions(block.cpu().numpy(), y[start : start + len(block)]))
            start += len(block)
        return joined(parts)

    def _fitter(self, data: DepthData, x: Rows | np.ndarray, y: np.ndarray, standardise: Standardiser) -> Fitter:
        source, affine = self._seen(x, standardise)
        return Fitter(
            source, y, n_classes=self.n_classes, loss=LOSSES[self.probe], standardiser=affine,
            max_memory=data.max_memory, device=data.device, where=f"depth {data.depth}", is_shared=True,
        )  # fmt: skip

    def _seen(self, x: Rows | np.ndarray, standardise: Standardiser) -> tuple[Rows | np.ndarray, Standardiser | None]:
        """Return the features, and the standardiser with which the solver is to read them."""
        if self.projection is None:
            return x, standardise
        return View(x, affine=standardise, projection=self.projection), None


def all_right(
    fit: LinearFit, x: Rows | np.ndarray, y: np.ndarray, device: torch.device, standardiser: Standardiser | None
) -> bool:
    """Return whether a fit makes no error on images, of which every rank gives those that it holds, if it holds any."""
    return all(ranks.all_attempted(lambda: not len(y) or is_right(fit, x, y, device, standardiser=standardiser)))


def _say(
    data: DepthData, splits: str, fit: LinearFit, validation: Predictions | None = None, *, is_rough: bool = False
) -> None:
    """Say of a fit what its rows will, were it chosen."""
    scored, state = "", "" if fit.converged else " (rough)" if is_rough else " (NOT CONVERGED)"
    if validation is not None:
        scored = f", validation {validation.log_loss_bits:.4f} bits, {100 * validation.accuracy:.2f}%"
    log.debug(
        "depth %d, %d features, %s: lambda %.2g, %d Newton steps, objective %.6g, certificate %.1e%s%s",
        data.depth, fit.coef.shape[1], splits, fit.lam, fit.iterations, fit.objective, fit.certificate,
        state, scored,
    )  # fmt: skip
