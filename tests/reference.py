"""Slow and obvious forms, the oracles of what the packages do fast. Nothing here is imported by them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits


def slow_downsample(x: np.ndarray) -> np.ndarray:
    """P by its definition: channel 4 c + 2 a + b of the result is x[:, c, a::2, b::2]."""
    copies = [x[:, c, a::2, b::2] for c in range(x.shape[1]) for a in (0, 1) for b in (0, 1)]
    return np.stack(copies, axis=1)


def slow_average(x: np.ndarray, side: int) -> np.ndarray:
    """A by its definition: region i of n rows covers rows floor(i n / side) to ceil((i + 1) n / side)."""

    def region(i: int, n: int) -> slice:
        return slice(math.floor(i * n / side), math.ceil((i + 1) * n / side))

    h, w = x.shape[2:]
    result = np.empty((*x.shape[:2], side, side))
    for i in range(side):
        for j in range(side):
            result[:, :, i, j] = x[:, :, region(i, h), region(j, w)].mean((2, 3))
    return result


def slow_conv3x3(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """A 3x3 convolution with one pixel of zero padding, position by position."""
    n, _, h, w = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    result = np.zeros((n, len(weight), h, w))
    for row in range(h):
        for column in range(w):
            patch = padded[:, :, row : row + 3, column : column + 3]
            result[:, :, row, column] = np.einsum("ncij,ocij->no", patch, weight)
    return result


def slow_crop_and_flip(image: np.ndarray, top: int, left: int, flip: bool, padding: int) -> np.ndarray:
    """One image [C, H, W]: pad with zeros, cut at (top, left), mirror."""
    _, h, w = image.shape
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
    cut = padded[:, top : top + h, left : left + w]
    return cut[:, :, ::-1] if flip else cut


def slow_sgd(
    weight: np.ndarray,
    bias: np.ndarray,
    batches: list[tuple[np.ndarray, np.ndarray]],
    *,
    epochs: int,
    rates: list[float],
    momentum: float,
    weight_decay: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Softmax regression by SGD with momentum and weight decay; the momentum starts at 0 when the rate changes."""
    parameters = [weight.copy(), bias.copy()]
    velocity = [np.zeros_like(p) for p in parameters]
    for epoch in range(epochs):
        if epoch and rates[epoch] != rates[epoch - 1]:
            velocity = [np.zeros_like(p) for p in parameters]
        for x, y in batches:
            logits = x @ parameters[0].T + parameters[1]
            p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            residual = (p - np.eye(p.shape[1])[y]) / len(y)
            gradients = [residual.T @ x, residual.sum(0)]
            for i in range(2):
                velocity[i] = momentum * velocity[i] + gradients[i] + weight_decay * parameters[i]
                parameters[i] = parameters[i] - rates[epoch] * velocity[i]
    return parameters[0], parameters[1]


def linear_objective(coef, intercept, X, y, lam, loss):
    """Return mean loss + lam/2 |coef|^2 of a linear classifier, as a float64 tensor; written from the definitions."""
    scores = X @ coef.T + intercept
    targets = torch.nn.functional.one_hot(y, len(intercept)).double()
    signs = 2 * targets - 1
    if loss == "multinomial":
        each = -(targets * torch.log_softmax(scores, 1)).sum(1)
    elif loss == "ovr":
        each = torch.logaddexp(-signs * scores, torch.zeros(()).double()).sum(1)
    else:
        each = (torch.relu(1 - signs * scores) ** 2).sum(1)
    return each.mean() + lam / 2 * (coef**2).sum()


def linear_optimum(X, y, lam, loss, n_classes):
    """Return coef, intercept and objective of the best linear classifier, by dense Newton steps, halved to descend."""
    n_features = X.shape[1]

    def objective(theta):
        table = theta.reshape(n_classes, n_features + 1)
        return linear_objective(table[:, :-1], table[:, -1], X, y, lam, loss)

    theta = torch.zeros(n_classes * (n_features + 1), dtype=torch.float64)
    for _ in range(300):
        gradient = torch.autograd.functional.jacobian(objective, theta)
        if gradient.norm() < 1e-12:
            break
        hessian = torch.autograd.functional.hessian(objective, theta).numpy()
        # Equal shifts of all intercepts change nothing for the softmax: the Hessian is singular along them.
        step = -torch.from_numpy(np.linalg.lstsq(hessian, gradient.numpy(), rcond=1e-13)[0])
        length, now = 1.0, objective(theta)
        while objective(theta + length * step) > now + 1e-4 * length * gradient @ step and length > 1e-10:
            length /= 2
        theta = theta + length * step
    table = theta.numpy().reshape(n_classes, n_features + 1)
    return table[:, :-1], table[:, -1], float(objective(theta))


def linear_slope(scores, y, loss):
    """Return the mean loss and its derivative in the scores [n, K], in numpy; written from the definitions."""
    n, targets = len(y), np.eye(scores.shape[1])[y]
    signs = 2 * targets - 1
    if loss == "multinomial":
        top = scores.max(1, keepdims=True)
        p = np.exp(scores - top)
        total = p.sum(1, keepdims=True)
        return (np.log(total[:, 0]) + top[:, 0] - scores[np.arange(n), y]).mean(), (p / total - targets) / n
    if loss == "ovr":
        return np.logaddexp(0, -signs * scores).sum() / n, -signs / (1 + np.exp(signs * scores)) / n
    short = np.maximum(0, 1 - signs * scores)
    return (short**2).sum() / n, -2 * signs * short / n


def linear_optima(X, y, lams, loss, n_classes):
    """Return the objectives of the best linear classifiers of penalties, for problems too large for dense Newton steps.

    scipy's L-BFGS in float64, in coordinates that give the penalised problem a curvature of about 1 all over, each
    penalty from the optimum of the next larger one.
    """
    centred = X - X.mean(0)
    _, values, vectors = np.linalg.svd(centred, full_matrices=False)
    turned = np.column_stack([centred @ vectors.T, np.ones(len(X))])
    shape = n_classes, len(values) + 1
    table, found = np.zeros(shape), {}
    for lam in sorted(lams, reverse=True):
        scale = np.append(np.sqrt(0.1 * values**2 / len(X) + lam), 1)
        ridge = np.append(np.full(len(values), lam), 0)

        def objective(theta, scale=scale, ridge=ridge):
            table = theta.reshape(shape) / scale
            value, slope = linear_slope(turned @ table.T, y, loss)
            gradient = (slope.T @ turned + ridge * table) / scale
            return value + (ridge * table**2).sum() / 2, gradient.ravel()

        options = {"maxiter": 10_000, "maxfun": 20_000, "maxcor": 20, "ftol": 1e-15, "gtol": 1e-6}
        with threadpool_limits(1):  # two threads would spend these small products waiting for each other
            best = minimize(objective, (table * scale).ravel(), jac=True, method="L-BFGS-B", options=options)
        table, found[lam] = best.x.reshape(shape) / scale, best.fun
    return [found[lam] for lam in lams]


def slow_choice(candidates):
    """Return the candidate of a path of penalties that the protocol chooses, by the rule as docs/protocol.md says it.

    candidates: (penalty, validation log-loss in nats, validation accuracy, whether the train fold is without error),
        from the largest penalty down, whether the path goes so far or not.
    """
    for end in range(1, len(candidates) + 1):
        lowest, fell = float("inf"), []
        for _, loss, _, _ in candidates[:end]:
            fell.append(loss < lowest - 0.001)
            lowest = loss if fell[-1] else lowest
        if fell[-2:] == [False, False] or (not fell[-1] and candidates[end - 1][3]):
            break
    return sorted(candidates[:end], key=lambda one: (one[1], -one[2], -one[0]))[0]


def slow_ensemble(logits: list[np.ndarray], weighting: str) -> np.ndarray:
    """Probabilities of an ensemble, image by image: 2^j on logits or on softmax outputs, or equal weights on those."""

    def softmax(z: np.ndarray) -> np.ndarray:
        return np.exp(z - z.max()) / np.exp(z - z.max()).sum()

    total = sum(2**j for j in range(1, len(logits) + 1))
    result = []
    for image in range(len(logits[0])):
        zs = [z[image].astype(np.float64) for z in logits]
        if weighting == "logits":
            result.append(softmax(sum(2**j / total * z for j, z in enumerate(zs, start=1))))
        elif weighting == "softmax":
            result.append(sum(2**j / total * softmax(z) for j, z in enumerate(zs, start=1)))
        else:
            result.append(sum(softmax(z) for z in zs) / len(zs))
    return np.array(result)


def paired_bootstrap(before: np.ndarray, after: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Return accuracy(after) - accuracy(before) on images drawn with replacement, one image at a time."""
    rng = np.random.default_rng(seed)
    n = len(before)
    drawn = (rng.integers(n, size=n) for _ in range(resamples))
    return np.array([after[images].mean() - before[images].mean() for images in drawn])


def mcnemar_exact(before: np.ndarray, after: np.ndarray) -> float:
    """Return twice the smaller tail of the binomial distribution of the images won among those changed, at most 1."""
    won = sum(bool(a and not b) for b, a in zip(before, after, strict=True))
    lost = sum(bool(b and not a) for b, a in zip(before, after, strict=True))
    tail = sum(math.comb(won + lost, i) for i in range(min(won, lost) + 1)) / 2 ** (won + lost)
    return min(1.0, 2 * tail)


def slow_saliency(head, maps, y, step):
    """Return for each filter the mean over images of |dL/ds|, s a factor of its map, by central differences, [M].

    head: from maps [n, C, H, W] to logits.
    """

    def losses(factor, c):
        scaled = maps.clone()
        scaled[:, c] *= factor
        return torch.nn.functional.cross_entropy(head(scaled), y, reduction="none")

    with torch.no_grad():
        slopes = [(losses(1 + step, c) - losses(1 - step, c)) / (2 * step) for c in range(maps.shape[1])]
    return torch.stack([slope.abs().mean() for slope in slopes]).numpy()


def removed(head, maps, y):
    """Return how much each image's loss changes when a filter's map is set to 0, for every filter, [M, n]."""
    with torch.no_grad():
        whole = torch.nn.functional.cross_entropy(head(maps), y, reduction="none")
        changes = []
        for c in range(maps.shape[1]):
            without = maps.clone()
            without[:, c] = 0
            changes.append(torch.nn.functional.cross_entropy(head(without), y, reduction="none") - whole)
    return torch.stack(changes).numpy()


def slow_channel_standardisation(x: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """Maps [n, C, H, W], each channel minus its mean and over its deviation in the maps fitted; constants become 0."""
    result = np.zeros(x.shape)
    for c in range(x.shape[1]):
        values = fitted[:, c].astype(np.float64)
        deviation = values.std()
        result[:, c] = (x[:, c] - values.mean()) / (deviation if deviation > 0 else 1.0)
    return result


def slow_schedule_free_adamw(
    weight: np.ndarray, gradient: Callable[[np.ndarray], np.ndarray], steps: int, *, rate: float, warm_up: float
) -> tuple[np.ndarray, np.ndarray]:
    """Schedule-free AdamW (Defazio et al. 2024, algorithm 1), from the sums of all steps; return y and x after them.

    beta1 0.9, beta2 0.999, epsilon 1e-8, decay 0.01; x is the mean of the iterates z, weighted by their squared rates.
    """
    y, z, square, rates, iterates = weight, weight, 0.0, [], []
    for t in range(1, steps + 1):
        g = gradient(y)
        square = 0.999 * square + 0.001 * g**2
        rates.append(rate * min(1.0, t / warm_up))
        z = z - rates[-1] * (g / (np.sqrt(square / (1 - 0.999**t)) + 1e-8) + 0.01 * y)
        iterates.append(z)
        weights = np.square(rates)
        x = sum(w * one for w, one in zip(weights, iterates, strict=True)) / weights.sum()
        y = 0.1 * z + 0.9 * x
    return y, x


def slow_codelength(
    x: np.ndarray, y: np.ndarray, taken: np.ndarray, penalties: list[float], n_classes: int
) -> tuple[float, float]:
    """Return the bits of the labels y [n] by prequential coding, image by image, and those of a uniform code.

    x: features [n, d], standardised. taken: nested sizes bool [S, n], each fitted with its penalty.
    """

    def objective(theta: np.ndarray, rows: np.ndarray, penalty: float) -> tuple[float, np.ndarray]:
        table = theta.reshape(n_classes, -1)
        p = softmax(x[rows] @ table[:, :-1].T + table[:, -1])
        slope = (p - np.eye(n_classes)[y[rows]]) / len(rows)
        gradient = np.column_stack([slope.T @ x[rows] + penalty * table[:, :-1], slope.sum(0)])
        loss = -np.log(p[np.arange(len(rows)), y[rows]]).mean()
        return loss + penalty / 2 * (table[:, :-1] ** 2).sum(), gradient.ravel()

    def softmax(z: np.ndarray) -> np.ndarray:
        e = np.exp(z - z.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    bits = taken[0].sum() * math.log2(n_classes)
    for known, more, penalty in zip(taken[:-1], taken[1:], penalties[:-1], strict=True):
        begin = np.zeros(n_classes * (x.shape[1] + 1))
        options = {"maxiter": 10_000, "maxfun": 20_000, "ftol": 1e-16, "gtol": 1e-10}
        with threadpool_limits(1):
            rows = np.flatnonzero(known)
            best = minimize(objective, begin, (rows, penalty), jac=True, method="L-BFGS-B", options=options)
        table = best.x.reshape(n_classes, -1)
        for i in np.flatnonzero(more & ~known):
            bits -= math.log2(softmax((table[:, :-1] @ x[i] + table[:, -1])[None])[0, y[i]])
    return float(bits), len(y) * math.log2(n_classes)
