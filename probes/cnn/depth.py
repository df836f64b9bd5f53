"""The CNN-p probes of one depth as the protocol plays them: the fits on the train fold, the refits, their scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from probes.cnn.reading import Labelled
from probes.cnn.training import Candidate, Trained, predict
from probes.probe import ProbeName
from probes.protocol import Fit, Kind, Predictions

# Trains candidates together on the first n images of the data.
Train = Callable[[Labelled, int, Sequence[Candidate]], dict[Candidate, Trained]]


class CnnKind(Kind[ProbeName, Labelled, Trained]):
    """The CNN-p probes of one depth, trained together; their learning rates are chosen already, for all depths.

    Args:
        candidates: design and learning rate of each probe.
        on_fold: the probes that are fitted on the train fold too.
        tried: fits on the train fold that are there already, since they chose the rate.
    """

    def __init__(
        self, train: Train, candidates: Mapping[ProbeName, Candidate], on_fold: Sequence[ProbeName],
        tried: Mapping[Candidate, Trained], *, selection: str, precision: str,
    ):  # fmt: skip
        self.train, self.candidates, self.on_fold, self.tried = train, candidates, on_fold, tried
        self.selection, self.precision = selection, precision

    def choose(self, data: Labelled) -> dict[ProbeName, Trained]:
        wanted = {name: self.candidates[name] for name in self.on_fold}
        untrained = [candidate for candidate in wanted.values() if candidate not in self.tried]
        fold = data.counts["train"]
        trained = {**self.tried, **(self.train(data, fold, untrained) if untrained else {})}
        return {name: trained[candidate] for name, candidate in wanted.items()}

    def refit(self, data: Labelled, chosen: Mapping[ProbeName, Trained]) -> dict[ProbeName, Trained]:
        trained = self.train(data, len(data), list(self.candidates.values()))
        return {name: trained[candidate] for name, candidate in self.candidates.items()}

    def counts(self, data: Labelled) -> dict[str, int]:
        return data.counts

    def predict(self, fitted: Sequence[Trained], data: Labelled) -> list[Predictions]:
        return predict([one.module for one in fitted], data, range(len(data)), self.precision)

    def report(self, fitted: Trained, refit: int) -> Fit:
        return Fit(
            refit=refit, selection=self.selection, n_train=fitted.n_train, n_features=fitted.n_features,
            seconds=fitted.seconds, learning_rate=fitted.learning_rate, iterations=fitted.epochs,
        )  # fmt: skip
