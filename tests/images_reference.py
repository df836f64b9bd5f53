"""Slow forms of the measures of single images: an image at a time, by their definitions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from layerwise.runfile import RunFile
from probes.probe import ProbeName
from probes.protocol import Fit, Predictions
from probes.results.predictions import save_predictions


def prediction_depth(predicted: Sequence[Sequence[int]]) -> list[int]:
    """Return of each image the first place from which on every prediction is the last one."""
    return [
        next(j for j in range(len(row)) if all(row[later] == row[-1] for later in range(j, len(row))))
        for row in predicted
    ]


def error_consistency(first: Sequence[int], second: Sequence[int], label: Sequence[int]) -> tuple[float, float, float]:
    """Return observed and expected consistency of right and wrong, and kappa, as Geirhos et al. 2020 write them."""
    n = len(label)
    same = sum((a == y) == (b == y) for a, b, y in zip(first, second, label, strict=True)) / n
    p, q = (sum(a == y for a, y in zip(one, label, strict=True)) / n for one in (first, second))
    expected = p * q + (1 - p) * (1 - q)
    return same, expected, (same - expected) / (1 - expected)


def agreement(counts: np.ndarray, predicted: Sequence[int], label: Sequence[int]) -> dict[str, float]:
    """Return how predictions agree with votes, a voter at a time."""
    own, most, wrong, any_wrong = [], [], [], []
    for row, said, true in zip(counts.astype(int), predicted, label, strict=True):
        voters = [c for c, number in enumerate(row) for _ in range(number)]
        own.append(sum(voter == said for voter in voters) / len(voters))
        most.append(row[said] == max(row))
        if said != true:
            wrong.append(own[-1])
            others = [c for c in range(len(row)) if c != true]
            any_wrong.append(sum(sum(voter == c for voter in voters) / len(voters) for c in others) / len(others))
    means = (float(np.mean(one)) for one in (own, most, wrong, any_wrong))
    return dict(zip(("votes", "votes_most", "votes_wrong", "votes_any_wrong"), means, strict=True))


def people(counts: np.ndarray) -> float:
    """Return how often two different voters of an image agree, over all ordered pairs of them."""
    shares = []
    for row in counts.astype(int):
        voters = [c for c, number in enumerate(row) for _ in range(number)]
        pairs = [(a, b) for i, a in enumerate(voters) for j, b in enumerate(voters) if i != j]
        if pairs:
            shares.append(sum(a == b for a, b in pairs) / len(pairs))
    return float(np.mean(shares))


def entropy(row: np.ndarray) -> float:
    """Return the entropy of the votes on one image, in bits."""
    return -sum(number / row.sum() * math.log2(number / row.sum()) for number in row if number)


def keep(run: RunFile, predicted: np.ndarray, probe: str = "linear", pooling: int = 2, refit: int = 1) -> None:
    """Put made-up predictions [n, depths] beside a run, as probe-depth would have left them."""
    label = run.labels("test")
    half = np.log(np.full(len(label), 0.5))
    fitted = []
    for depth, column in enumerate(predicted.T):
        scores = {"test": Predictions(label, column, half, half)}
        fit = Fit(refit=refit, selection="fixed", n_train=9, n_features=4, seconds=0.0, scores=scores)
        fitted.append((ProbeName(depth=depth, probe=probe, pooling=pooling), [fit]))
    save_predictions(run, run.indices("test"), fitted)


def made_up(run: RunFile, depths: int = 3, seed: int = 0) -> np.ndarray:
    """Return predictions [n, depths] that are right more often from depth to depth."""
    rng, label = np.random.default_rng(seed), run.labels("test")
    chance = np.linspace(0.3, 0.9, depths)
    guess = rng.integers(0, 10, (len(label), depths))
    return np.where(rng.random((len(label), depths)) < chance, label[:, None], guess)
