"""Slow and obvious forms of what analysis/geometry measures: n x n matrices, loops over classes, weights of images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def slow_hsic(x: np.ndarray, y: np.ndarray) -> float:
    """HSIC of linear kernels by Song et al. 2007, equation 4, as it stands there."""
    n, one = len(x), np.ones(len(x))
    K, L = x @ x.T, y @ y.T
    np.fill_diagonal(K, 0)
    np.fill_diagonal(L, 0)
    middle = (one @ K @ one) * (one @ L @ one) / ((n - 1) * (n - 2))
    return (np.trace(K @ L) + middle - 2 / (n - 2) * (one @ K @ L @ one)) / (n * (n - 3))


def slow_similarity(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """CKA by n x n kernels, debiased and biased, and the angle of the best rotation of one onto the other."""
    H = np.eye(len(x)) - 1 / len(x)
    K, L = H @ x @ x.T @ H, H @ y @ y.T @ H
    a, b = (H @ z / np.linalg.norm(H @ z) for z in (x, y))
    return {
        "cka": slow_hsic(x, y) / np.sqrt(slow_hsic(x, x) * slow_hsic(y, y)),
        "cka_biased": np.trace(K @ L) / np.sqrt(np.trace(K @ K) * np.trace(L @ L)),
        "procrustes": np.arccos(min(1.0, np.linalg.svd(a.T @ b, compute_uv=False).sum())),
    }


def slow_spectrum(x: np.ndarray, w: np.ndarray) -> dict[str, float]:
    """Effective rank and participation ratio of the covariance of images that weigh w."""
    S = _covariance(x, w / w.sum())
    values = np.linalg.eigvalsh(S)
    p = values[values > 1e-12 * values.max()] / np.trace(S)
    return {
        "effective_rank": float(np.exp(-sum(p * np.log(p)))),
        "participation_ratio": np.trace(S) ** 2 / np.trace(S @ S),
    }


def slow_classes(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> dict[str, float]:
    """The measures of classes that have a derivative, of images that weigh w, class by class and pair by pair."""
    w, K = w / w.sum(), int(y.max()) + 1
    mu = w @ x
    pi = [w[y == c].sum() for c in range(K)]
    means = np.stack([w[y == c] @ x[y == c] / pi[c] for c in range(K)])
    W = sum(pi[c] * _covariance(x[y == c], w[y == c] / pi[c]) for c in range(K))
    B = sum(pi[c] * np.outer(means[c] - mu, means[c] - mu) for c in range(K))
    M = means - means.mean(0)
    norms = np.linalg.norm(M, axis=1)
    P = np.linalg.pinv(_covariance(x, w), rcond=1e-10, hermitian=True) @ M.T
    spread = [np.trace(_covariance(x[y == c], w[y == c] / pi[c])) for c in range(K)]
    pairs = [(c, k) for c in range(K) for k in range(c)]
    return {
        "nc1": np.trace(W @ np.linalg.pinv(B, rcond=1e-8, hermitian=True)) / K,
        "nc2_norms": norms.std() / norms.mean(),
        "nc2_angles": np.mean([abs(M[c] @ M[k] / norms[c] / norms[k] + 1 / (K - 1)) for c, k in pairs]),
        "nc3": np.linalg.norm(P / np.linalg.norm(P) - M.T / np.linalg.norm(M)),
        "cdnv": np.mean([(spread[c] + spread[k]) / 2 / sum((means[c] - means[k]) ** 2) for c, k in pairs]),
        "fisher_ratio": np.trace(B) / np.trace(W),
    }


def slow_decisions(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """NC4, margin and the error of the nearest class mean: image by image, each with means made without it."""
    K = int(y.max()) + 1
    table, *_ = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), np.eye(K)[y], rcond=None)
    by_least_squares = (np.column_stack([x, np.ones(len(x))]) @ table).argmax(1)
    means = np.stack([x[y == c].mean(0) for c in range(K)])
    by_means = [np.linalg.norm(means - one, axis=1).argmin() for one in x]
    margins = []
    for i, one in enumerate(x):
        rest = np.arange(len(x)) != i
        distances = [np.linalg.norm(x[rest & (y == c)].mean(0) - one) for c in range(K)]
        own = distances.pop(y[i])
        # Another class's mean is made of all its images, whether this one is left out or not.
        margins.append((min(distances) - own) / (min(distances) + own))
    return float(np.mean(by_least_squares != by_means)), float(np.mean(margins)), float(np.mean(np.array(margins) <= 0))


def slow_dimensions(x: np.ndarray) -> dict[str, float]:
    """TwoNN, its largest tenth of ratios censored, and Levina and Bickel with 20 neighbours, from all distances."""
    r = np.sort([[np.sqrt(((a - b) ** 2).sum()) for b in x] for a in x], axis=1)[:, 1:]
    inverse = [np.mean([np.log(one[19] / one[j]) for j in range(19)]) for one in r]
    ratios = sorted(np.log(one[1] / one[0]) for one in r)
    m = int(np.ceil(0.9 * len(x)))
    censored = ratios[:m] + [ratios[m - 1]] * (len(x) - m)
    return {"twonn": (m - 1) / sum(censored), "mle": 1 / np.mean(inverse)}


def standard_errors(of: Callable[[np.ndarray], dict[str, float]], n: int) -> dict[str, float]:
    """Standard errors over images of a function of their weights [n], by differences: sd(n df/dw) / sqrt(n)."""
    slopes = []
    for i in range(n):
        step = np.zeros(n)
        step[i] = 1e-5
        above, below = of(1 + step), of(1 - step)
        slopes.append([n * (above[name] - below[name]) / 2e-5 for name in above])
    return dict(zip(of(np.ones(n)), np.std(slopes, axis=0, ddof=1) / np.sqrt(n), strict=True))


def jackknife_errors(of: Callable[[np.ndarray], dict[str, float]], n: int) -> dict[str, float]:
    """Standard errors over images by leaving each out: of takes the numbers of those that stay."""
    left = [of(np.delete(np.arange(n), i)) for i in range(n)]
    return {name: float(np.sqrt((n - 1) / n * n * np.var([one[name] for one in left]))) for name in left[0]}


def _covariance(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    apart = x - w @ x
    return sum(one * np.outer(a, a) for one, a in zip(w, apart, strict=True))
