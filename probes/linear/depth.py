"""The linear probes of one depth as the protocol plays them: a path and a choice, the refits, their scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from probes.linear.features import DepthData
from probes.linear.problem import FIXED_PENALTY, Fitted, LinearProblem, random_projection
from probes.probe import ProbeName
from probes.protocol import Fit, Key, Kind, Predictions


class LinearFits(Kind[Key, DepthData, Fitted]):
    """What linear probes of a depth have in common, however they are chosen: their predictions and their reports."""

    selection: str

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


class LinearKind(LinearFits[ProbeName]):
    """The linear probes of a depth that read the same features: one, or a draw of the projection each.

    Args:
        width: number of features to which a random projection takes them; None for no projection.
        taken: penalties to take over where they are known, each else chosen on `DepthData.chooser_y`; None to choose on
            the labels that are fitted.
        tell: is told each probe and penalty of a path before it is fitted.
    """

    def __init__(
        self, probe: str, names: Sequence[ProbeName], *, n_classes: int, selection: str, width: int | None,
        taken: Mapping[ProbeName, float | None] | None, tell: Callable[[ProbeName, float], None],
    ):  # fmt: skip
        self.probe, self.names, self.n_classes, self.selection = probe, names, n_classes, selection
        self.width, self.taken, self.tell = width, taken, tell

    def choose(self, data: DepthData) -> dict[ProbeName, Fitted]:
        return {name: self._choose(name, data) for name in self.names}

    def _choose(self, name: ProbeName, data: DepthData) -> Fitted:
        projection = None
        if self.width is not None:
            projection = random_projection(data.width, self.width, name.probe_seed, name.depth)
        problem, tell = LinearProblem(self.probe, self.n_classes, projection), partial(self.tell, name)
        if "validation" not in data.x:
            return problem.fit(data, ["train"], FIXED_PENALTY)
        if self.taken is None:
            return problem.fit_best(data, data.y, tell)
        penalty = self.taken[name]
        if penalty is None:
            penalty = problem.fit_best(data, data.chooser_y, tell).best.lam
        return problem.fit(data, ["train"], penalty)

    def refit(self, data: DepthData, chosen: Mapping[ProbeName, Fitted]) -> dict[ProbeName, Fitted]:
        # The path's fit is a near start: on a few more images the optimum has moved little.
        return {
            name: first.problem.fit(data, ["train", "validation"], first.best.lam, first.best)
            for name, first in chosen.items()
        }
