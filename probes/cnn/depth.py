"""The CNN-p probes of one depth as the protocol plays them: one fit of each on all of the fold, and its scores."""

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

    So there is nothing to choose here, and no fit on the train fold, but where that is all there is.

    Args:
        candidates: design and learning rate of each probe.
    """

    def __init__(
        self, train: Train, candidates: Mapping[ProbeName, Candidate], *, selection: str, precision: str
    ):  # fmt: skip
        self.train, self.candidates = train, candidates
        self.selection, self.precision = selection, precision

    def choose(self, data: Labelled) -> dict[ProbeName, Trained]:
        return self._trained(data) if self.selection == "seen" else {}

    def refit(self, data: Labelled, chosen: Mapping[ProbeName, Trained]) -> dict[ProbeName, Trained]:
        return self._trained(data)

    def _trained(self, data: Labelled) -> dict[ProbeName, Trained]:
        trained = self.train(data, len(data), list(self.candidates.values()))
        return {name: trained[candidate] for name, candidate in self.candidates.items()}

    def counts(self, data: Labelled) -> dict[str, int]:
        return data.counts

    def predict(self, fitted: Sequence[Trained], data: Labelled) -> list[Predictions]:
        return predict(fitted, data, self.precision)

    def report(self, fitted: Trained, refit: int) -> Fit:
        return Fit(
            refit=refit, selection=self.selection, n_train=fitted.n_train, n_features=fitted.n_features,
            seconds=fitted.seconds, learning_rate=fitted.learning_rate, iterations=fitted.epochs,
            batch_size=fitted.batch_size,
        )  # fmt: skip
