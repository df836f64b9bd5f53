"""Owns the fits of one linear probe at one depth: features standardised, perhaps projected; a path; a choice."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from layerwise.model.seeds import derive_seed
from probes.linear.features import Projected, features
from probes.probe import ProbeName
from probes.protocol import Fit, Kind, Predictions, choose, joined, predictions
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


@dataclass(frozen=True)
class DepthData:
    """Features and labels of one or two splits of a depth.

    Attributes:
        x, y: features [n, ...] and labels [n] by split.
        real: labels on which a penalty is chosen, by split: those of `y`, unless these are permuted.
        file: name of the run file, for messages.
        max_memory: bytes; features of which twice their size exceeds it are read block by block.
    """

    x: dict[str, Rows | np.ndarray]
    y: dict[str, np.ndarray]
    real: dict[str, np.ndarray]
    file: str
    depth: int
    device: torch.device
    max_memory: int | None

    @property
    def width(self) -> int:
        """Number of features."""
        return int(np.prod(next(iter(self.x.values())).shape[1:]))

    def fits_memory(self, n: int) -> bool:
        """Return whether the features of n images may be held at once, by the rule of `path.fit_path`."""
        return self.max_memory is None or 8 * n * self.width <= self.max_memory

    def where(self, split: str) -> str:
        """Return the words with which a message about the features of a split begins."""
        return f"{self.file}, depth {self.depth}, {split} features"


def read_depth(
    task: Task, depth: int, splits: Sequence[str], *, side: int, device: torch.device, max_memory: int | None
) -> DepthData:
    """Return the features A x_j and the labels of some splits of a depth; side: of the average A."""
    run = task.run
    x = {s: features(run, task, depth, s, side=side, device=device, max_memory=max_memory) for s in splits}
    y = {split: task.labels(split) for split in splits}
    real = y if task.chooser is task else {split: task.chooser.labels(split) for split in splits}
    return DepthData(x, y, real, str(run.path), depth, device, max_memory)


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

    def predict(self, data: DepthData) -> Predictions:
        """Return what the probe says of the images of all splits of the data, end to end."""
        return joined([self.seen.predict([self.best], data.x[s], data.y[s], data.where(s))[0] for s in data.x])


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


class LinearKind(Kind[ProbeName, DepthData, Fitted]):
    """The linear probes of a depth that read the same features: one, or a draw of the projection each.

    Args:
        width: number of features to which a random projection takes them; None for no projection.
        taken: penalties to take over where they are known, each else chosen on `DepthData.real`; None to choose on
            the labels that are fitted.
    """

    def __init__(
        self, probe: str, names: Sequence[ProbeName], *, n_classes: int, selection: str, width: int | None,
        taken: Mapping[ProbeName, float | None] | None,
    ):  # fmt: skip
        self.probe, self.names, self.n_classes, self.selection = probe, names, n_classes, selection
        self.width, self.taken = width, taken

    def choose(self, data: DepthData) -> dict[ProbeName, Fitted]:
        return {name: self._choose(name, data) for name in self.names}

    def _choose(self, name: ProbeName, data: DepthData) -> Fitted:
        projection = None
        if self.width is not None:
            projection = random_projection(data.width, self.width, name.probe_seed, name.depth)
        problem = LinearProblem(self.probe, self.n_classes, projection, data)
        if "validation" not in data.x:
            return problem.fit(("train",), FIXED_PENALTY)
        if self.taken is None:
            return problem.fit_best(data.y)
        penalty = self.taken[name]
        return problem.fit(("train",), problem.fit_best(data.real).best.lam if penalty is None else penalty)

    def refit(self, data: DepthData, chosen: Mapping[ProbeName, Fitted]) -> dict[ProbeName, Fitted]:
        again = {}
        for name, first in chosen.items():
            problem = LinearProblem(self.probe, self.n_classes, first.seen.projection, data)
            again[name] = problem.fit(("train", "validation"), first.best.lam, first.best)
        return again

    def counts(self, data: DepthData) -> dict[str, int]:
        return {split: len(labels) for split, labels in data.y.items()}

    def predict(self, fitted: Sequence[Fitted], data: DepthData) -> list[Predictions]:
        return [one.predict(data) for one in fitted]

    def report(self, fitted: Fitted, refit: int) -> Fit:
        best = fitted.best
        return Fit(
            refit=refit, selection=self.selection, n_train=fitted.n_train, n_features=best.coef.shape[1],
            seconds=fitted.seconds, penalty=best.lam, certificate=best.certificate, converged=best.converged,
            iterations=best.iterations,
        )  # fmt: skip
