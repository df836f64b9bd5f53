"""Ensembles: the predictions of all auxiliary classifiers up to a depth J, weighted and summed.

The paper weights auxiliary j by 2^j, normalised to sum 1, on logits for CIFAR-10 and on softmax outputs for ImageNet
(section 4.1). A uniform mean of softmax outputs is the third choice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

WEIGHTINGS = ("logits", "softmax", "uniform")


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return log-probabilities float64 [n, n_classes] of logits [n, n_classes]."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def ensemble(logits: Sequence[np.ndarray], weighting: str) -> np.ndarray:
    """Return log-probabilities float64 [n, n_classes] of the ensemble of auxiliaries 1..J.

    Args:
        logits: [n, n_classes] of auxiliary 1, 2, ..., J.
        weighting: "logits" (2^j on logits), "softmax" (2^j on probabilities) or "uniform" (equal, on probabilities).
    """
    weights = np.ones(len(logits)) if weighting == "uniform" else 2.0 ** np.arange(1, len(logits) + 1)
    weights /= weights.sum()
    if weighting == "logits":
        return log_softmax(sum(w * z.astype(np.float64) for w, z in zip(weights, logits, strict=True)))
    mixed = sum(w * np.exp(log_softmax(z)) for w, z in zip(weights, logits, strict=True))
    with np.errstate(divide="ignore"):
        return np.log(mixed)
