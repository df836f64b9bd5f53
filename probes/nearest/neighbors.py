"""k nearest neighbours (knn) and the nearest class mean (ncm) on A x_j.

Both read what the linear probe reads, A x_j flattened, each feature centred and scaled to deviation 1 on the images
fitted. Neighbours are exact: every pair of images is compared, in blocks on the device, whatever their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from layerwise.hardware import exact_float32
from layerwise.top5 import TOP5_FROM, is_in_top5
from probes.protocol import Predictions, joined, predictions
from probes.solver.rows import Rows, row_blocks

NEIGHBORS = (1, 2, 5, 10, 20, 50, 100)
DISTANCES = ("euclidean", "cosine")
# At most ROWS images are compared with COLUMNS others at a time, and both hold at most VALUES features: 8 MiB each.
ROWS, COLUMNS, VALUES = 1024, 2048, 1 << 21


@dataclass(frozen=True)
class Vote:
    """How the nearest neighbours decide: their number k, and by which distance they are nearest."""

    neighbors: int
    distance: str


class NearestNeighbors:
    """Images among which the neighbours of others are found.

    Args:
        x: standardised features float32 [n, d], or rows of them that are read on demand, once for each block of
            images whose neighbours are sought. y: labels int64 [n].
    """

    def __init__(self, x: Rows | np.ndarray, y: np.ndarray, n_classes: int, device: torch.device):
        self.x, self.y = x, torch.from_numpy(y).to(device)
        self.n_classes, self.device = n_classes, device
        self._rows, self._columns = (max(1, min(most, VALUES // x.shape[1])) for most in (ROWS, COLUMNS))

    def predict(
        self, x: Rows | np.ndarray, y: np.ndarray, votes: Sequence[Vote], *, own: bool = False
    ) -> dict[Vote, Predictions]:
        """Return what each vote says of images with features x [n, d] and labels y [n].

        The class with most neighbours is predicted; of classes that tie, the one with the nearest neighbour. Its
        probability is by Laplace's rule of succession (votes + 1) / (k + number of classes).

        Args:
            own: whether x are the images themselves in their order; none is then its own neighbour.
        """
        label = torch.from_numpy(y).to(self.device)
        found: dict[Vote, list[tuple[Tensor, ...]]] = {vote: [] for vote in votes}
        for distance in dict.fromkeys(vote.distance for vote in votes):
            alike = [vote for vote in votes if vote.distance == distance]
            start = 0
            for nearest in self._nearest(x, max(vote.neighbors for vote in alike), distance, own):
                part = label[start : start + len(nearest)]
                start += len(nearest)
                for vote in alike:
                    found[vote].append(_decide(self.y[nearest[:, : vote.neighbors]], part, self.n_classes))
        return {
            vote: self._joined(y, [torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)])
            for vote, parts in found.items()
        }

    def _joined(self, y: np.ndarray, columns: Sequence[np.ndarray]) -> Predictions:
        predicted, true, top, in_top5 = columns
        return Predictions(y, predicted, true, top, in_top5=in_top5 if self.n_classes >= TOP5_FROM else None)

    def _nearest(self, x: Rows | np.ndarray, k: int, distance: str, own: bool) -> Iterator[Tensor]:
        """Yield, for some images at a time, the numbers of their k nearest images, int64 [m, k], nearest first."""
        for start in range(0, len(x), self._rows):
            queries = self._placed(x[start : start + self._rows], distance)
            nearness = torch.empty(len(queries), 0, device=self.device)
            numbers = torch.empty(len(queries), 0, dtype=torch.int64, device=self.device)
            for first in range(0, len(self.x), self._columns):
                new = self._nearness(queries, first, distance)
                if own and first < start + len(queries) and start < first + self._columns:
                    new.diagonal(start - first).fill_(-torch.inf)
                new, places = new.topk(min(k, new.shape[1]), dim=1)
                both = torch.cat([nearness, new], 1), torch.cat([numbers, places + first], 1)
                nearness, kept = both[0].topk(min(k, both[0].shape[1]), dim=1)
                numbers = both[1].gather(1, kept)
            yield numbers[:, : len(self.x) - own]

    def _nearness(self, queries: Tensor, first: int, distance: str) -> Tensor:
        """Return a number for each pair, greater where images are nearer, of a block of images from `first` on."""
        images = self._placed(self.x[first : first + self._columns], distance)
        with exact_float32():
            products = queries @ images.T
        # |q - x|^2 = |q|^2 - 2 (q.x - |x|^2 / 2), and |q|^2 is the same for all x.
        return products if distance == "cosine" else products - (images**2).sum(1) / 2

    def _placed(self, x: np.ndarray, distance: str) -> Tensor:
        placed = torch.from_numpy(x).to(self.device)
        return F.normalize(placed, dim=1) if distance == "cosine" else placed


def _decide(classes: Tensor, label: Tensor, n_classes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the predicted class, log-probabilities of the true one and of that, and top-5, from classes [n, k]."""
    k = classes.shape[1]
    counts = classes.new_zeros(len(classes), n_classes).scatter_add_(1, classes, torch.ones_like(classes))
    # Below 1 in all, the more the nearer the nearest neighbour of the class: it decides between equal counts alone.
    rank = torch.arange(k, device=classes.device).expand_as(classes)
    nearest = torch.full_like(counts, k).scatter_reduce_(1, classes, rank, "amin")
    score = counts - nearest / (k + 1)
    predicted, own = score.argmax(1), score.gather(1, label[:, None])[:, 0]
    log = ((counts.double() + 1) / (k + n_classes)).log()
    in_top5 = is_in_top5(score, own) | (predicted == label)
    return predicted, log.gather(1, label[:, None])[:, 0], log.gather(1, predicted[:, None])[:, 0], in_top5


class NearestMean:
    """Classes as spherical Gaussians of one variance and equal frequency: the nearest mean is the likeliest class.

    Args:
        x: standardised features float32 [n, d], or rows of them that are read on demand. y: labels int64 [n].

    Source: Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 2009, section 4.3. A class without
    images has probability 0.
    """

    def __init__(self, x: Rows | np.ndarray, y: np.ndarray, n_classes: int):
        counts = np.bincount(y, minlength=n_classes)
        sums, square = torch.zeros(n_classes, x.shape[1], dtype=torch.float64), 0.0
        for rows in row_blocks(len(x), x.shape[1]):
            block = torch.from_numpy(x[rows]).double()
            sums.index_add_(0, torch.from_numpy(y[rows]), block)
            square += float(block.square().sum())
        self._known = counts > 0
        self.means = sums.numpy() / np.maximum(counts, 1)[:, None]
        # The mean squared distance of an image to its class's mean: |x|^2 - |mean|^2 on average, over d features.
        scatter = square - float((counts * (self.means**2).sum(1)).sum())
        self.variance = max(scatter / (len(x) * x.shape[1]), 1e-12)

    def predict(self, x: Rows | np.ndarray, y: np.ndarray) -> Predictions:
        """Return what the means say of images with features x [n, d] and labels y [n]."""
        blocks = row_blocks(len(x), max(self.means.shape))
        return joined([self._predict(x[rows].astype(np.float64), y[rows]) for rows in blocks])

    def _predict(self, x: np.ndarray, y: np.ndarray) -> Predictions:
        # |x|^2 is the same for all classes.
        squared = (self.means**2).sum(1) - 2 * x @ self.means.T
        score = np.where(self._known, -squared / (2 * self.variance), -np.inf)
        return predictions(torch.from_numpy(score).log_softmax(1).numpy(), y)
