"""Small problems for the tests of the linear probe's solver."""

from __future__ import annotations

import numpy as np
import torch
from reference import linear_objective
from sklearn.datasets import load_digits

from probes.solver.design_matrix import DesignMatrix
from probes.solver.folds import Targets
from probes.solver.losses import Logistic, Softmax, SquaredHinge
from probes.solver.rows import Features

PATH = [1e-1, 1e-2, 1e-3, 1e-5]


def blobs(n=120, d=5, n_classes=3, seed=0):
    """Overlapping classes with correlated features of unit variance; no penalty separates them."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    X = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=(n_classes, d))[y]
    return (X - X.mean(0)) / X.std(0), y


def digits():
    """Return scikit-learn's digits, standardised, and their labels."""
    X, y = load_digits(return_X_y=True)
    deviation = X.std(0)
    return (X - X.mean(0)) / np.where(deviation > 0, deviation, 1), y


def objective_of(fit, X, y):
    coef, intercept = torch.from_numpy(fit.coef), torch.from_numpy(fit.intercept)
    return float(linear_objective(coef, intercept, torch.as_tensor(X).double(), torch.as_tensor(y), fit.lam, fit.loss))


def problem(loss, labels, n_classes, weights=None):
    """Return the loss of one label vector and penalty; weights [n] of sum 1."""
    rows = torch.zeros(1 if loss == "multinomial" else n_classes, dtype=torch.long)
    targets = Targets(labels[None], None if weights is None else weights[None], rows, len(labels))
    if loss == "multinomial":
        share = torch.bincount(labels, weights, minlength=n_classes).double()
        return Softmax(targets, share[None] / share.sum())
    return (Logistic if loss == "ovr" else SquaredHinge)(targets, torch.arange(n_classes))


def plain(X):
    return DesignMatrix(Features(X), torch.device("cpu"))
