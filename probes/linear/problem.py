"""Owns the fits of one linear probe at one depth: features standardised, perhaps projected; a path; a choice."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from layerwise.model.seeds import derive_seed
from layerwise.runfile import RunFile
from probes.linear.features import Projected, features
from probes.protocol import Predictions, choose, predictions
from probes.solver.fit import LinearFit, log_proba
from probes.solver.path import fit_path
from probes.solver.rows import Features, Rows, Stacked
from probes.solver.standardiser import Standardiser
from probes.tasks.task import Task

log = logging.getLogger("layerwise.probes")

# Half-decades. The path is extended beyond an end while the best value lies there.
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


class DepthData:
    """The features and labels of one depth by split; those of the test split only once they are asked for."""

    def __init__(self, run: RunFile, task: Task, depth: int, side: int, device: torch.device, max_memory: int | None):
        self.run, self.task, self.depth, self.side = run, task, depth, side
        self.device, self.max_memory = device, max_memory
        self.x: dict[str, Rows | np.ndarray] = {}
        self.y: dict[str, np.ndarray] = {}
        for split in run.splits:
            if split != "test":
                self.read(split)

    def read(self, split: str) -> None:
        self.x[split] = features(
            self.run, self.task, self.depth, split, side=self.side, device=self.device, max_memory=self.max_memory
        )
        self.y[split] = self.task.labels(split)

    @property
    def width(self) -> int:
        return int(np.prod(self.x["train"].shape[1:]))

    def fits_memory(self, n: int) -> bool:
        """Return whether the features of n images may be held at once, by the rule of `path.fit_path`."""
        return self.max_memory is None or 8 * n * self.width <= self.max_memory

    def where(self, split: str) -> str:
        return f"{self.run.path}, depth {self.depth}, {split} features"


class Seen:
    """How a probe sees features: standardised, by those it is fitted to, and then perhaps projected."""

    def __init__(self, x: Rows | np.ndarray, projection: np.ndarray | None, data: DepthData, where: str):
        self.projection, self.data, self.standardise = projection, data, Standardiser(x, data.device, where)

    def __call__(self, x: Rows | np.ndarray) -> tuple[Rows | np.ndarray, Standardiser | None]:
        """Return the source and the standardiser with which the solver is to read it."""
        if self.projection is None:
            return x, self.standardise
        return Projected(x, self.standardise, self.projection), None

    def predict(self, fits: Sequence[LinearFit], x: Rows | np.ndarray, y: np.ndarray, where: str) -> list[Predictions]:
        """Return what each fit says of features, which are read once for all on a GPU, and in blocks on a CPU."""
        source: Rows | np.ndarray | torch.Tensor
        source, standardise = self(x)
        if self.data.device.type == "cuda" and self.data.fits_memory(len(x)):
            source, standardise = Features(source, standardise).whole(self.data.device), None
        return [predictions(log_proba(fit, source, where, standardiser=standardise), y) for fit in fits]


class Fitted:
    """A fitted probe with how it sees features, the number of images it was fitted to, and how long it took."""

    def __init__(self, seen: Seen, best: LinearFit, n_train: int, seconds: float):
        self.seen, self.best, self.n_train, self.seconds = seen, best, n_train, seconds

    def predict(self, data: DepthData, split: str) -> Predictions:
        return self.seen.predict([self.best], data.x[split], data.y[split], data.where(split))[0]


class LinearProblem:
    """One probe of one depth: how its fits are made."""

    def __init__(self, probe: str, n_classes: int, projection: np.ndarray | None, data: DepthData):
        self.loss, self.n_classes, self.projection, self.data = LOSSES[probe], n_classes, projection, data

    def fit(self, splits: Sequence[str], penalty: float, start: LinearFit | None = None) -> Fitted:
        """Fit one penalty to the given splits joined end to end."""
        begin = time.perf_counter()
        x = Stacked(*(self.data.x[split] for split in splits))
        y = np.concatenate([self.data.y[split] for split in splits])
        seen = self._seen(x, " + ".join(splits))
        (best,) = self._path(seen, x, y, (penalty,), start)
        return Fitted(seen, best, len(y), time.perf_counter() - begin)

    def fit_best(self, y: Mapping[str, np.ndarray]) -> Fitted:
        """Fit the whole path on the train fold and choose on the validation fold, extending it while its end is best.

        Args:
            y: labels by split, those of the task or of another one on the same images.
        """
        begin = time.perf_counter()
        x, held = self.data.x["train"], self.data.x["validation"]
        seen = self._seen(x, "train")
        fits = self._path(seen, x, y["train"], PENALTIES, None)
        said = seen.predict(fits, held, y["validation"], self.data.where("validation"))
        for _ in range(EXTENSIONS):
            best = choose(said, lambda one: one)
            if 0 < best < len(fits) - 1:
                break
            beyond = fits[best].lam * (10**-0.5 if best == 0 else 10**0.5)
            new = self._path(seen, x, y["train"], (beyond,), fits[best])
            of_new = seen.predict(new, held, y["validation"], self.data.where("validation"))
            fits, said = (new + fits, of_new + said) if best == 0 else (fits + new, said + of_new)
        best = choose(said, lambda one: one)
        if best in (0, len(fits) - 1):
            log.warning(
                "depth %d: the best lambda, %.1e, lies at the end of its path; a better one may lie beyond",
                self.data.depth,
                fits[best].lam,
            )
        return Fitted(seen, fits[best], len(y["train"]), time.perf_counter() - begin)

    def _seen(self, x: Rows | np.ndarray, split: str) -> Seen:
        return Seen(x, self.projection, self.data, self.data.where(split))

    def _path(
        self,
        seen: Seen,
        x: Rows | np.ndarray,
        y: np.ndarray,
        penalties: tuple[float, ...],
        start: LinearFit | None,
    ) -> list[LinearFit]:
        source, standardise = seen(x)
        return fit_path(
            source, y, penalties, n_classes=self.n_classes, loss=self.loss, standardiser=standardise, start=start,
            max_memory=self.data.max_memory, device=self.data.device, where=f"depth {self.data.depth}",
        )  # fmt: skip
