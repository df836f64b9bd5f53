"""Owns the linear probe of a depth: standardised A x_j, a path of penalties, choice, refit, test."""

from __future__ import annotations

import logging
import time

import numpy as np
import torch

from layerwise.activations import pooled_features
from layerwise.runfile import RunFile
from probes.logistic import LinearFit, fit_path, log_proba
from probes.protocol import Fit, Predictions, choose, predictions, selection

log = logging.getLogger("layerwise.probes")

# Half-decades. The path is extended beyond an end while the best value lies there.
PENALTIES = tuple(float(10.0 ** (e / 2)) for e in range(-12, 1))
EXTENSIONS = 6
FIXED_PENALTY = 1e-4
LOSSES = {"linear": "multinomial", "linear-ovr": "ovr"}


class Standardiser:
    """Centres and scales each feature by the mean and standard deviation of the data it was made from.

    A constant feature has deviation 0; it is only centred, and so becomes 0.
    """

    def __init__(self, x: np.ndarray):
        self.mean = x.mean(0, dtype=np.float64)
        deviation = x.std(0, dtype=np.float64)
        self.scale = np.where(deviation > 0, deviation, 1.0)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return (x - mean) / deviation, float32 [n, d]."""
        z = np.subtract(x, self.mean.astype(np.float32), dtype=np.float32)
        z /= self.scale.astype(np.float32)
        return z


def probe_linear(run: RunFile, depth: int, probe: str, *, device: torch.device) -> list[Fit]:
    """Fit the linear probe named ("linear" or "linear-ovr") to A x_j of one depth by the protocol.

    Returns the fit on the train fold and, where the run has a validation fold, the refit on train + validation.
    """
    x = {"train": pooled_features(run, depth, "train", device=device)}
    y = {split: run.labels(split) for split in run.splits if split != "test"}
    problem = _Problem(len(run.dataset["classes"]), LOSSES[probe], device, f"depth {depth}")
    if selection(run) == "seen":
        fits = [problem.fit(x["train"], y["train"], (FIXED_PENALTY,))]
    else:
        x["validation"] = pooled_features(run, depth, "validation", device=device)
        first = problem.fit_best(x["train"], y["train"], x["validation"], y["validation"])
        both = np.concatenate([x["train"], x["validation"]]), np.concatenate([y["train"], y["validation"]])
        fits = [first, problem.fit(*both, (first.best.lam,))]
    # The choice is made; only now is the test split read, once.
    x["test"], y["test"] = pooled_features(run, depth, "test", device=device), run.labels("test")
    return [_report(fitted, refit, run, x, y) for refit, fitted in enumerate(fits)]


class _Fitted:
    """A standardiser with the path fitted behind it, and which of its penalties was chosen."""

    def __init__(self, standardise: Standardiser, best: LinearFit, n_train: int, seconds: float):
        self.standardise, self.best, self.n_train, self.seconds = standardise, best, n_train, seconds

    def predict(self, x: np.ndarray, y: np.ndarray) -> Predictions:
        return predictions(log_proba(self.best, self.standardise(x)), y)


class _Problem:
    def __init__(self, n_classes: int, loss: str, device: torch.device, where: str):
        self.n_classes, self.loss, self.device, self.where = n_classes, loss, device, where

    def path(self, x: np.ndarray, y: np.ndarray, penalties: tuple[float, ...]) -> list[LinearFit]:
        return fit_path(x, y, penalties, n_classes=self.n_classes, loss=self.loss, device=self.device, where=self.where)

    def fit(self, x: np.ndarray, y: np.ndarray, penalty: tuple[float]) -> _Fitted:
        start = time.perf_counter()
        standardise = Standardiser(x)
        (best,) = self.path(standardise(x), y, penalty)
        return _Fitted(standardise, best, len(y), time.perf_counter() - start)

    def fit_best(self, x: np.ndarray, y: np.ndarray, x_held: np.ndarray, y_held: np.ndarray) -> _Fitted:
        """Fit the whole path on (x, y) and choose on the held-out fold, extending the path while its end is best."""
        start = time.perf_counter()
        standardise = Standardiser(x)
        inside, outside = standardise(x), standardise(x_held)
        fits = self.path(inside, y, PENALTIES)
        for _ in range(EXTENSIONS):
            best = choose(fits, lambda fit: predictions(log_proba(fit, outside), y_held))
            if 0 < best < len(fits) - 1:
                break
            if best == 0:
                fits = self.path(inside, y, (fits[0].lam / 10**0.5,)) + fits
            else:
                fits = fits + self.path(inside, y, (fits[-1].lam * 10**0.5,))
        best = choose(fits, lambda fit: predictions(log_proba(fit, outside), y_held))
        if best in (0, len(fits) - 1):
            end = f"{fits[best].lam:.1e}"
            log.warning(
                "%s: the best lambda, %s, lies at the end of its path; a better one may lie beyond", self.where, end
            )
        return _Fitted(standardise, fits[best], len(y), time.perf_counter() - start)


def _report(fitted: _Fitted, refit: int, run: RunFile, x: dict[str, np.ndarray], y: dict[str, np.ndarray]) -> Fit:
    scores = {split: fitted.predict(x[split], y[split]) for split in x}
    if refit:
        seen = [scores.pop("train"), scores.pop("validation")]
        scores = {"train": _joined(seen), **scores}
    best = fitted.best
    return Fit(
        refit=refit, selection=selection(run), n_train=fitted.n_train, n_features=x["train"].shape[1],
        seconds=fitted.seconds, penalty=best.lam, certificate=best.certificate, converged=best.converged,
        iterations=best.iterations, scores=scores,
    )  # fmt: skip


def _joined(parts: list[Predictions]) -> Predictions:
    return Predictions(
        np.concatenate([p.label for p in parts]),
        np.concatenate([p.predicted for p in parts]),
        np.concatenate([p.true_log_probability for p in parts]),
    )
