"""The scores of a finished run: what each trained auxiliary, and the ensemble up to it, says of every split.

This is a pass of its own before the dump: what it says is written above the depths, and a dump may be repeated for
float32. One pass for both would save little (digits: scoring takes 0.14 s of a run of 10 s).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from layerwise import ranks
from layerwise.datasets import Dataset, Split
from layerwise.model.ensemble import WEIGHTINGS, ensemble
from layerwise.model.network import LayerwiseNetwork
from layerwise.top5 import TOP5_FROM, is_in_top5
from layerwise.training.batches import DeviceSplit, evaluation_batch
from layerwise.training.pruning import Pruned

KEPT = ("validation", "test")  # splits whose logits a run file keeps


@dataclass
class DepthScores:
    """What the auxiliary of one depth says: accuracy in [0, 1] by split, and logits float32 [n, n_classes].

    top5: the same with any of the five likeliest classes, where there are at least ten.
    ensembles: accuracy of the ensemble of all auxiliaries up to this depth, by (weighting, split).
    mirrored: accuracy by split of the mean of the logits of each image and its mirror image, where that is asked for.
    pruned: what pruning did to the block; None where nothing was pruned.
    """

    depth: int
    shape: tuple[int, int, int]
    accuracy: dict[str, float] = field(default_factory=dict)
    top5: dict[str, float] = field(default_factory=dict)
    logits: dict[str, np.ndarray] = field(default_factory=dict)
    ensembles: dict[tuple[str, str], float] = field(default_factory=dict)
    mirrored: dict[str, float] = field(default_factory=dict)
    pruned: Pruned | None = None

    def attributes(self) -> dict[str, float]:
        """Return the accuracies by the names that files give them: test_accuracy, ensemble_logits_test_accuracy."""
        own = {f"{split}_accuracy": value for split, value in self.accuracy.items()}
        own |= {f"{split}_accuracy_top5": value for split, value in self.top5.items()}
        own |= {f"mirrored_{split}_accuracy": value for split, value in self.mirrored.items()}
        return own | {f"ensemble_{w}_{split}_accuracy": value for (w, split), value in self.ensembles.items()}


@torch.no_grad()
def score_auxiliaries(
    network: LayerwiseNetwork, dataset: Dataset, depths: Sequence[int], *, mirrored: bool = False
) -> list[DepthScores]:
    """Score the auxiliaries of the given depths on the images as they are, in float32, one pass for all of them.

    The ensembles join all of the given depths up to each, where there are several. mirrored: whether to score, apart
    and in a second pass over validation and test images, the mean of the logits of each image and its mirror image.
    """
    scores = [DepthScores(j, network.shapes[j]) for j in depths]
    for name, split in dataset.splits.items() if depths else ():
        right, inside = np.zeros((2, len(depths)), np.int64)
        kept: list[list[np.ndarray]] = []
        for logits, label in _logits(network, split, depths):
            for i, own in enumerate(logits):
                is_right = own.argmax(1) == label
                right[i] += is_right.sum()
                inside[i] += (is_right | is_in_top5(own, own[np.arange(len(label)), label])).sum()
            if name in KEPT:  # of train, which may be a million images of a thousand classes, the counts alone
                kept.append(logits)
        for i, score in enumerate(scores):
            score.accuracy[name] = right[i] / len(split.label)
            if network.n_classes >= TOP5_FROM:
                score.top5[name] = inside[i] / len(split.label)
        if kept:
            _score_kept(scores, name, split, [np.concatenate(own) for own in zip(*kept, strict=True)])
            if mirrored:
                _score_mirrored(scores, name, split, network)
    return scores


def _score_kept(scores: Sequence[DepthScores], name: str, split: Split, logits: Sequence[np.ndarray]) -> None:
    """Keep the logits of a split, and score the ensembles up to each depth."""
    for i, score in enumerate(scores):
        score.logits[name] = logits[i]
        for weighting in WEIGHTINGS if len(scores) > 1 else ():
            joined = ensemble(logits[: i + 1], weighting).argmax(1)
            score.ensembles[weighting, name] = float((joined == split.label).mean())


def _score_mirrored(scores: Sequence[DepthScores], name: str, split: Split, network: LayerwiseNetwork) -> None:
    """Score the mean of the logits that are kept of each image, and those of its mirror image."""
    parts = [logits for logits, _ in _logits(network, split, [score.depth for score in scores], flip=True)]
    for score, other in zip(scores, (np.concatenate(own) for own in zip(*parts, strict=True)), strict=True):
        score.mirrored[name] = float(((score.logits[name] + other).argmax(1) == split.label).mean())


def _logits(
    network: LayerwiseNetwork, split: Split, depths: Sequence[int], *, flip: bool = False
) -> Iterator[tuple[list[np.ndarray], np.ndarray]]:
    """Yield the logits [n, n_classes] of each auxiliary and the labels [n] of a batch, or of its mirror images."""
    at_once, n = evaluation_batch(network), len(split.label)
    sizes = [min(at_once, n - start) for start in range(0, n, at_once)]
    like = torch.empty(len(depths), network.n_classes, device=network.device)
    every = ranks.in_turns(_own_logits(network, split, depths, at_once, flip=flip), like, sizes)
    for start, found in zip(range(0, n, at_once), every, strict=True):
        yield list(found.cpu().numpy().swapaxes(0, 1)), split.label[start : start + at_once]


def _own_logits(
    network: LayerwiseNetwork, split: Split, depths: Sequence[int], at_once: int, *, flip: bool
) -> Iterator[Tensor]:
    """Yield the logits [n, depths, n_classes] of the batches whose turn is this rank's."""
    for x, _ in DeviceSplit(split, network.device).in_order(network.normalise, at_once, in_turns=True):
        x, found = x.flip(3) if flip else x, []
        for j, block in enumerate(network.blocks[: max(depths)], start=1):
            x = block(x)
            if j in depths:
                found.append(network.auxiliaries[j - 1](x))
        yield torch.stack(found, 1)
