"""Nearest neighbours and class means against scikit-learn and against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.preprocessing import normalize

from probes.nearest import neighbors
from probes.nearest.neighbors import NearestMean, NearestNeighbors, Vote

CPU = torch.device("cpu")


def made(n: int = 400, d: int = 7, n_classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n)
    x = rng.normal(size=(n, d)) + rng.normal(size=(n_classes, d))[y]
    return x.astype(np.float32), y


def slow(x: np.ndarray, y: np.ndarray, query: np.ndarray, vote: Vote, n_classes: int) -> tuple[int, np.ndarray]:
    """Return the predicted class and log-probabilities [n_classes] of one query, by a loop."""
    if vote.distance == "cosine":
        distance = [1 - a @ query / np.linalg.norm(a) / np.linalg.norm(query) for a in x.astype(float)]
    else:
        distance = [np.linalg.norm(a - query) for a in x.astype(float)]
    nearest = [y[i] for i in np.argsort(distance)[: vote.neighbors]]
    counts = [nearest.count(c) for c in range(n_classes)]
    best = [c for c in range(n_classes) if counts[c] == max(counts)]
    predicted = min(best, key=nearest.index)
    return predicted, np.log((np.array(counts) + 1) / (vote.neighbors + n_classes))


@pytest.mark.parametrize("blocks", [(1024, 16384), (7, 50)])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_every_vote_is_that_of_a_loop(monkeypatch: pytest.MonkeyPatch, blocks: tuple[int, int], distance: str) -> None:
    monkeypatch.setattr(neighbors, "ROWS", blocks[0])
    monkeypatch.setattr(neighbors, "COLUMNS", blocks[1])
    x, y = made()
    query, label = made(60, seed=1)
    votes = [Vote(k, distance) for k in (1, 2, 6, 60)]
    found = NearestNeighbors(x, y, 4, CPU).predict(query, label, votes)
    for vote in votes:
        expected = [slow(x, y, q, vote, 4) for q in query]
        assert found[vote].predicted.tolist() == [predicted for predicted, _ in expected]
        true = [log[c] for (_, log), c in zip(expected, label, strict=True)]
        assert found[vote].true_log_probability == pytest.approx(true)


def test_top5_of_neighbours_are_the_five_classes_with_most_votes_and_of_equal_ones_the_nearest() -> None:
    x, y = made(300, n_classes=12)
    query, label = made(60, n_classes=12, seed=1)
    for k in (1, 3, 40):
        (found,) = NearestNeighbors(x, y, 12, CPU).predict(query, label, [Vote(k, "euclidean")]).values()
        for q, own, inside in zip(query, label, found.in_top5, strict=True):
            nearest = y[np.argsort(np.linalg.norm(x.astype(float) - q, axis=1))[:k]].tolist()
            ranked = sorted(set(nearest), key=lambda c: (-nearest.count(c), nearest.index(c)))
            assert inside == (own in ranked[:5])  # a class without a vote never is


def test_odd_votes_between_two_classes_are_those_of_scikit_learn() -> None:
    x, y = made(1500, 20, 2)
    query, label = made(300, 20, 2, seed=3)
    for k in (1, 5, 21):
        ours = NearestNeighbors(x, y, 2, CPU).predict(query, label, [Vote(k, "euclidean")])
        theirs = KNeighborsClassifier(k, algorithm="brute").fit(x, y).predict(query)
        assert np.array_equal(ours[Vote(k, "euclidean")].predicted, theirs)
    unit = KNeighborsClassifier(5).fit(normalize(x), y).predict(normalize(query))
    ours = NearestNeighbors(x, y, 2, CPU).predict(query, label, [Vote(5, "cosine")])
    assert np.array_equal(ours[Vote(5, "cosine")].predicted, unit)


@pytest.mark.parametrize("blocks", [(1024, 16384), (7, 50), (50, 7)])
def test_an_image_is_not_its_own_neighbour(monkeypatch: pytest.MonkeyPatch, blocks: tuple[int, int]) -> None:
    monkeypatch.setattr(neighbors, "ROWS", blocks[0])
    monkeypatch.setattr(neighbors, "COLUMNS", blocks[1])
    x, y = made(120)
    vote = Vote(1, "euclidean")
    model = NearestNeighbors(x, y, 4, CPU)
    own = model.predict(x, y, [vote], own=True)[vote]
    for i in range(len(x)):
        others = np.delete(np.arange(len(x)), i)
        assert own.predicted[i] == slow(x[others], y[others], x[i], vote, 4)[0]
    assert model.predict(x, y, [vote])[vote].accuracy == 1
    assert own.accuracy < 1


def test_no_more_neighbours_than_there_are_images() -> None:
    x, y = made(9)
    vote = Vote(9, "euclidean")
    found = NearestNeighbors(x, y, 4, CPU).predict(x, y, [vote], own=True)[vote]
    counts = np.bincount(y, minlength=4)
    assert np.exp(found.true_log_probability) == pytest.approx(counts[y] / (8 + 4))


def test_the_nearest_mean_is_that_of_scikit_learn() -> None:
    x, y = made()
    query, label = made(200, seed=2)
    assert np.array_equal(
        NearestMean(x, y, 4).predict(query, label).predicted, NearestCentroid().fit(x, y).predict(query)
    )


def test_probabilities_of_the_nearest_mean_are_those_of_spherical_gaussians() -> None:
    x, y = made(d=3)
    model = NearestMean(x, y, 4)
    means = [x[y == c].astype(float).mean(0) for c in range(4)]
    variance = np.mean([(a - means[c]) ** 2 for a, c in zip(x.astype(float), y, strict=True)])
    assert model.variance == pytest.approx(variance)
    density = np.exp([[-((a - m) ** 2).sum() / (2 * variance) for m in means] for a in x.astype(float)])
    expected = np.log(density / density.sum(1, keepdims=True))[np.arange(len(y)), y]
    assert model.predict(x, y).true_log_probability == pytest.approx(expected)


def test_a_class_without_images_is_never_predicted() -> None:
    x, y = made()
    found = NearestMean(x, y, 6).predict(x, y)
    assert set(found.predicted) <= {0, 1, 2, 3}
    assert np.isfinite(found.true_log_probability).all()
