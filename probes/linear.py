"""Owns the linear probe of a depth: standardised A x_j, a path of penalties, choice, refit, test."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from layerwise.activations import pooled_features, pooled_width
from layerwise.errors import UserError
from layerwise.network import derive_seed
from layerwise.runfile import RunFile
from probes.family import Family, ProbeName
from probes.logistic import LinearFit, fit_path, log_proba
from probes.protocol import Fit, Predictions, choose, joined, predictions, selection
from probes.results import chosen_penalty
from probes.standardiser import Standardiser
from probes.task import NO_CONTROL, Task

log = logging.getLogger("layerwise.probes")

# Half-decades. The path is extended beyond an end while the best value lies there.
PENALTIES = tuple(float(10.0 ** (e / 2)) for e in range(-10, 0))
EXTENSIONS = 6
FIXED_PENALTY = 1e-4
LOSSES = {"linear": "multinomial", "linear-ovr": "ovr"}
DRAWS = 10
# Raw pixels are a reference only where their Gram matrix is of ordinary size.
MOST_PIXELS = 8192


class LinearFamily(Family):
    """The linear probes of a run, "linear" or "linear-ovr": one for each pooling of a depth, or each projection of it.

    Args:
        pools: sides of the average A. At depth 0 the raw pixels are probed too (pooling 0), as a reference.
        features: "native", or "matched": random orthonormal projections of the standardised features to the least
            width over depths >= 1, ten of them at each depth.
    """

    def __init__(
        self,
        run: RunFile,
        task: Task,
        probe: str,
        *,
        pools: Sequence[int] = (2,),
        features: str = "native",
        device: torch.device,
    ):
        self.run, self.task, self.probe, self.features, self.device = run, task, probe, features, device
        self.pools = tuple(pools)
        self.title = f"{probe} probe" + (", features matched to the least width" if features == "matched" else "")

    def depths(self) -> list[int]:
        """Return all depths; for matched features those from 1."""
        return [depth for depth in self.run.depths if depth or self.features == "native"]

    def names(self, depth: int) -> list[ProbeName]:
        """Return a name for each pooling, and the raw pixels at depth 0; for matched features one for each draw."""
        pools = self.pools
        if depth == 0 and self._reads_pixels():
            pools = (*pools, 0)
        draws = range(DRAWS if self.features == "matched" else 1)
        one = ProbeName(
            depth=depth, probe=self.probe, control=self.task.control, target=self.task.target, features=self.features
        )
        return [replace(one, pooling=side, probe_seed=draw) for side in pools for draw in draws]

    def fit(self, depth: int, wanted: Sequence[ProbeName]) -> list[tuple[ProbeName, list[Fit]]]:
        """Fit the wanted probes of a depth by the protocol: the fit on the train fold and, with a fold, the refit."""
        found: list[tuple[ProbeName, list[Fit]]] = []
        for side in dict.fromkeys(name.pooling for name in wanted):
            names = [name for name in wanted if name.pooling == side]
            found += zip(names, self._fit(depth, side, names), strict=True)
        return found

    def _reads_pixels(self) -> bool:
        return self.features == "native" and int(np.prod(self.run.depth_shape(0))) <= MOST_PIXELS and self._has_pixels()

    def _has_pixels(self) -> bool:
        return self.run.images("train") is not None or self.run.maps(0, "train") is not None

    def _fit(self, depth: int, side: int, names: Sequence[ProbeName]) -> list[list[Fit]]:
        data = _Data(self.run, self.task, depth, side, self.device)
        same = self.features == "matched" and self._matched_width(side) == data.x["train"].shape[1]
        fitted: list[list[_Fitted]] = []
        for name in names:
            if same and fitted:  # a square projection is a rotation, which no penalty on |W| sees
                fitted.append(fitted[0])
            else:
                fitted.append(self._solve(name, data))
        # Every choice is made; only now is the test split read, once for all of them.
        data.read("test")
        return [[_report(f, refit, self._selection(), data) for refit, f in enumerate(fits)] for fits in fitted]

    def _solve(self, name: ProbeName, data: _Data) -> list[_Fitted]:
        problem = _Problem(self.probe, len(self.task.classes), self._projection(name, data), self.device, data.where)
        train = data.x["train"], data.y["train"]
        if "validation" not in data.x:
            return [problem.fit(*train, (FIXED_PENALTY,))]
        x, y = (np.concatenate([part["train"], part["validation"]]) for part in (data.x, data.y))
        if self.task.control == "permuted":
            penalty = self._penalty_of_class(name, problem, data)
            return [problem.fit(*train, (penalty,)), problem.fit(x, y, (penalty,))]
        first = problem.fit_best(*train, data.x["validation"], data.y["validation"])
        return [first, problem.fit(x, y, (first.best.lam,))]

    def _penalty_of_class(self, name: ProbeName, problem: _Problem, data: _Data) -> float:
        """Return the penalty chosen for the real labels, since permuted ones leave nothing to choose on."""
        real = getattr(self.task, "task", self.task)
        found = chosen_penalty(self.run, name, NO_CONTROL)
        if found is not None:
            return found
        y = {split: real.labels(split) for split in ("train", "validation")}
        return problem.fit_best(data.x["train"], y["train"], data.x["validation"], y["validation"]).best.lam

    def _selection(self) -> str:
        how = selection(self.run)
        return "control" if how == "validation" and self.task.control == "permuted" else how

    def _projection(self, name: ProbeName, data: _Data) -> np.ndarray | None:
        if self.features == "native":
            return None
        width = data.x["train"].shape[1]
        return random_projection(width, self._matched_width(name.pooling), name.probe_seed, name.depth)

    def _matched_width(self, side: int) -> int:
        return min(pooled_width(self.run, depth, side) for depth in self.depths())


def random_projection(width: int, least: int, draw: int, depth: int) -> np.ndarray:
    """Return a random orthonormal projection float32 [width, least], uniform over all such, for one draw and depth."""
    normal = np.random.default_rng(derive_seed(draw, "matched features", depth)).normal(size=(width, least))
    q, r = np.linalg.qr(normal)
    return (q * np.sign(np.diag(r))).astype(np.float32)


def require_finite(x: np.ndarray, where: str) -> None:
    """Raise UserError with their number if features are not all finite."""
    if np.isfinite(x.sum(dtype=np.float64)):
        return
    nans, infinite = int(np.isnan(x).sum()), int(np.isinf(x).sum())
    raise UserError(
        f"{where}: found {nans} NaN and {infinite} infinite of {x.size} values, expected finite numbers. Train the "
        "network anew with a smaller learning rate, or leave this depth out by --depths."
    )


class _Data:
    """The features and labels of one depth by split; those of the test split only once they are asked for."""

    def __init__(self, run: RunFile, task: Task, depth: int, side: int, device: torch.device):
        self.run, self.task, self.depth, self.side, self.device = run, task, depth, side, device
        self.where = f"depth {depth}"
        self.x: dict[str, np.ndarray] = {}
        self.y: dict[str, np.ndarray] = {}
        for split in run.splits:
            if split != "test":
                self.read(split)

    def read(self, split: str) -> None:
        x = pooled_features(self.run, self.depth, split, side=self.side, device=self.device)
        require_finite(x, f"{self.run.path}, depth {self.depth}, {split} features")
        self.y[split] = self.task.labels(split)
        rows = self.task.rows(split)
        self.x[split] = x if len(rows) == len(x) else x[rows]


class _Fitted:
    """A probe with what stands before it, and how long it took: features are standardised, then perhaps projected."""

    def __init__(
        self, standardise: Standardiser, projection: np.ndarray | None, best: LinearFit, n_train: int, seconds: float
    ):
        self.standardise, self.projection, self.best = standardise, projection, best
        self.n_train, self.seconds = n_train, seconds

    @property
    def n_features(self) -> int:
        return self.best.coef.shape[1]

    def predict(self, x: np.ndarray, y: np.ndarray) -> Predictions:
        return predictions(log_proba(self.best, _seen(x, self.standardise, self.projection)), y)


def _seen(x: np.ndarray, standardise: Standardiser, projection: np.ndarray | None) -> np.ndarray:
    z = standardise(x)
    return z if projection is None else z @ projection


class _Problem:
    def __init__(self, probe: str, n_classes: int, projection: np.ndarray | None, device: torch.device, where: str):
        self.loss, self.n_classes, self.projection = LOSSES[probe], n_classes, projection
        self.device, self.where = device, where

    def path(self, x: np.ndarray, y: np.ndarray, penalties: tuple[float, ...]) -> list[LinearFit]:
        return fit_path(x, y, penalties, n_classes=self.n_classes, loss=self.loss, device=self.device, where=self.where)

    def fit(self, x: np.ndarray, y: np.ndarray, penalty: tuple[float]) -> _Fitted:
        start = time.perf_counter()
        standardise = Standardiser(x)
        (best,) = self.path(_seen(x, standardise, self.projection), y, penalty)
        return _Fitted(standardise, self.projection, best, len(y), time.perf_counter() - start)

    def fit_best(self, x: np.ndarray, y: np.ndarray, x_held: np.ndarray, y_held: np.ndarray) -> _Fitted:
        """Fit the whole path on (x, y) and choose on the held-out fold, extending the path while its end is best."""
        start = time.perf_counter()
        standardise = Standardiser(x)
        inside, outside = (_seen(part, standardise, self.projection) for part in (x, x_held))
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
        return _Fitted(standardise, self.projection, fits[best], len(y), time.perf_counter() - start)


def _report(fitted: _Fitted, refit: int, selection: str, data: _Data) -> Fit:
    scores = {split: fitted.predict(data.x[split], data.y[split]) for split in data.x}
    if refit:
        scores = {"train": joined([scores.pop("train"), scores.pop("validation")]), **scores}
    best = fitted.best
    return Fit(
        refit=refit, selection=selection, n_train=fitted.n_train, n_features=fitted.n_features,
        seconds=fitted.seconds, penalty=best.lam, certificate=best.certificate, converged=best.converged,
        iterations=best.iterations, scores=scores,
    )  # fmt: skip
