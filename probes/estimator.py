"""Any classifier of scikit-learn's grammar as a probe of A x_j, by the protocol of all others.

It reads what the linear probe reads, standardised on the images that it is fitted to. One classifier has nothing to
choose; of several the validation fold chooses, by accuracy. It comes without a certificate: whether it has converged
is between the user and the classifier.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sklearn.base import clone, is_classifier
from sklearn.model_selection import ParameterGrid
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from layerwise.commandline import progress
from layerwise.errors import UsageError, UserError
from layerwise.runfile import RunFile
from layerwise.runfile.manifest import sha256
from probes.pooled import Data, PooledFamily
from probes.probe import ProbeName
from probes.protocol import Fit, Kind, Predictions, best_candidate, choose_and_refit, predictions
from probes.results.table import read_rows, rows_of
from probes.solver.rows import Rows
from probes.tasks.task import Task

# So begin the probes of this project: no row of another may be taken for theirs.
_RESERVED = re.compile(r"(linear|cnn|knn|ncm|auxiliary|ensemble|codelength)\b")
_NAME = re.compile(r"[A-Za-z][\w.-]*")


@dataclass(frozen=True)
class Classifiers:
    """The classifiers of one probe, of which the validation fold chooses where they are several.

    name: of the probe in its rows. is_standardised: whether features are standardised before them.

    Raises UsageError for what is no classifier, and for a name that is another probe's.
    """

    name: str
    candidates: tuple[Any, ...]
    is_standardised: bool = True

    def __post_init__(self) -> None:
        for one in self.candidates:
            if isinstance(one, type) or not hasattr(one, "fit") or not is_classifier(one):
                what = f"the class {one.__name__}" if isinstance(one, type) else f"a {type(one).__name__}"
                raise UsageError(
                    f"found {what} in the place of a probe; expected the name of one, or a classifier of "
                    "scikit-learn's grammar, such as LogisticRegression()."
                )
        if not _NAME.fullmatch(str(self.name)) or _RESERVED.match(self.name):
            raise UsageError(
                f"a classifier cannot be called {self.name!r} in the rows; expected letters, digits, dots and hyphens, "
                "and no beginning of this project's own probes (linear, cnn, knn, ...). Give another name=..."
            )

    def shown(self, which: int) -> str:
        """Return one candidate as the rows call it, with what tells the others apart."""
        # Without the address of a function among its parameters, which is another in each process.
        texts = [re.sub(r" at 0x[0-9a-f]+", "", " ".join(repr(one).split())) for one in self.candidates]
        text = texts[which] + ("" if self.is_standardised else ", not standardised")
        if len(texts) == 1:
            return text
        return f"{text}; of {len(texts)} ({sha256(chr(10).join(texts).encode())[:6]})"


def classifiers(probe: Any, name: str | None, grid: Mapping[str, Any] | None, standardise: bool) -> Classifiers:
    """Return the classifiers that a user gives: one, one with a grid of its parameters, or several to choose from."""
    given = list(probe) if isinstance(probe, list | tuple) else [probe]
    if grid is not None:
        if len(given) != 1:
            raise UsageError(f"grid is of one classifier, but {len(given)} were given. Give one, or no grid.")
        try:
            given = [clone(given[0]).set_params(**values) for values in ParameterGrid(dict(grid))]
        except (TypeError, ValueError) as error:
            raise UsageError(f"grid does not fit {type(given[0]).__name__}: {error}") from None
    return Classifiers(name or type(given[0]).__name__, tuple(given), standardise)


@dataclass
class Fitted:
    """A pipeline of standardisation and classifier after a fit to n images; which: of the candidates."""

    pipeline: Pipeline
    which: int
    n: int
    seconds: float

    def predict(self, x: Rows | np.ndarray, y: np.ndarray, n_classes: int) -> Predictions:
        """Return what it says of features x [n, d] with labels y [n]; NaN for log-probabilities that it has not."""
        classes, images = self.pipeline.classes_.astype(int), np.arange(len(y))
        predicted = self.pipeline.predict(x).astype(np.int64)
        log_probability = np.full((len(y), n_classes), np.nan)
        if hasattr(self.pipeline, "predict_proba"):
            log_probability[:] = -np.inf  # of a class that it has not seen
            with np.errstate(divide="ignore"):
                log_probability[:, classes] = np.log(self.pipeline.predict_proba(x))
        found = predictions(log_probability, y)
        top5 = None if found.in_top5 is None or np.isnan(log_probability).any() else found.in_top5 | (predicted == y)
        return replace(found, predicted=predicted, top_log_probability=log_probability[images, predicted], in_top5=top5)


class EstimatorKind(Kind[ProbeName, Data, Fitted]):
    """One probe of a user's classifiers at one depth."""

    def __init__(self, name: ProbeName, asked: Classifiers, selection: str, n_classes: int):
        self.name, self.asked, self.selection, self.n_classes = name, asked, selection, n_classes

    def choose(self, data: Data) -> dict[ProbeName, Fitted]:
        n, count = data.counts["train"], len(self.asked.candidates)
        if count == 1 or "validation" not in data.counts:
            return {self.name: self._fit(0, data, n, data.y)}
        fits = [self._fit(i, data, n, data.real) for i in range(count)]
        scored = [one.predict(data.x[n:], data.real[n:], self.n_classes) for one in fits]
        best = fits[best_candidate(range(count), scored.__getitem__)]
        return {self.name: best if data.real is data.y else self._fit(best.which, data, n, data.y)}

    def refit(self, data: Data, chosen: Mapping[ProbeName, Fitted]) -> dict[ProbeName, Fitted]:
        return {name: self._fit(first.which, data, len(data.y), data.y) for name, first in chosen.items()}

    def _fit(self, which: int, data: Data, n: int, y: np.ndarray) -> Fitted:
        begin = time.perf_counter()
        first = StandardScaler() if self.asked.is_standardised else "passthrough"
        pipeline = Pipeline([("standardise", first), ("classify", clone(self.asked.candidates[which]))])
        try:
            pipeline.fit(data.x[:n], y[:n])
        except ValueError as error:  # what this classifier says of these data
            raise UserError(
                f"{self.asked.shown(which)} cannot be fitted at depth {self.name.depth}: {' '.join(str(error).split())}"
            ) from error
        return Fitted(pipeline, which, n, time.perf_counter() - begin)

    def counts(self, data: Data) -> dict[str, int]:
        return data.counts

    def predict(self, fitted: Sequence[Fitted], data: Data) -> list[Predictions]:
        return [one.predict(data.x, data.y, self.n_classes) for one in fitted]

    def report(self, fitted: Fitted, refit: int) -> Fit:
        return Fit(
            refit=refit, selection=self.selection, n_train=fitted.n, n_features=int(fitted.pipeline.n_features_in_),
            seconds=fitted.seconds, estimator=self.asked.shown(fitted.which),
        )  # fmt: skip


class EstimatorFamily(PooledFamily):
    """A user's classifiers at every depth of a run, as one probe."""

    def __init__(
        self, run: RunFile, task: Task, asked: Classifiers, *, pools: Sequence[int] = (2,), device: torch.device
    ):
        super().__init__(run, task, pools=pools, device=device)
        self.asked, self.probe, self.title = asked, asked.name, f"{asked.name} probe"

    @property
    def selection(self) -> str:
        """What chooses among the classifiers; "fixed" where there is one."""
        return "fixed" if len(self.asked.candidates) == 1 else super().selection

    def kind(self, name: ProbeName) -> EstimatorKind:
        return EstimatorKind(name, self.asked, self.selection, self.n_classes)

    def fit(self, depth: int, wanted: Sequence[ProbeName]) -> list[tuple[ProbeName, list[Fit]]]:
        """Fit the wanted probes of a depth by the protocol."""
        depths = self.depths()
        with progress() as bar:
            bar.add_task(f"depth {depth}: {self.title}", total=len(depths), completed=depths.index(depth))
            return super().fit(depth, wanted)

    def estimators(self, depth: int) -> list[tuple[ProbeName, Any]]:
        """Return the pipelines of a depth, with which the rows were made; those of earlier calls are fitted again."""
        fitted = self.fitted if self.fitted is not None else {}
        for name in self.names(depth):
            if name not in fitted:
                _, chosen, refitted = choose_and_refit(self.kind(name), self._open(name), self.run.splits)
                fitted |= chosen | refitted
        return [(name, fitted[name].pipeline) for name in self.names(depth)]

    def require_same(self, depths: Sequence[int], may_force: bool = True) -> None:
        """Raise UserError where rows of this name are of other classifiers, and would be taken for these."""
        way = "Give name=... to keep both" + (", or force=True to replace them." if may_force else ".")
        table, known = read_rows(self.run), {self.asked.shown(i) for i in range(len(self.asked.candidates))}
        for name in (name for depth in depths for name in self.names(depth)):
            other = [text for text in rows_of(table, name)["estimator"].fillna("").unique() if text not in known]
            if other:
                raise UserError(
                    f"{self.run.path} has rows of {name.probe!r} at depth {name.depth} by {other[0]}, and not by "
                    f"{self.asked.shown(0)}. {way}"
                )
