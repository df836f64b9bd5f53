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
from layerwise.training.batches import EVALUATION_BATCH, DeviceSplit
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
        logits = _logits(network, split, depths)
        if mirrored and name in KEPT:
            both = zip(scores, logits, _logits(network, split, depths, flip=True), strict=True)
            for score, own, other in both:
                score.mirrored[name] = float(((own + other).argmax(1) == split.label).mean())
        for i, score in enumerate(scores):
            score.accuracy[name] = float((logits[i].argmax(1) == split.label).mean())
            if logits[i].shape[1] >= TOP5_FROM:
                inside = is_in_top5(logits[i], logits[i][np.arange(len(split.label)), split.label])
                score.top5[name] = float((inside | (logits[i].argmax(1) == split.label)).mean())
            if name in KEPT:
                score.logits[name] = logits[i]
                for weighting in WEIGHTINGS if len(depths) > 1 else ():
                    joined = ensemble(logits[: i + 1], weighting).argmax(1)
                    score.ensembles[weighting, name] = float((joined == split.label).mean())
    return scores


def _logits(network: LayerwiseNetwork, split: Split, depths: Sequence[int], *, flip: bool = False) -> list[np.ndarray]:
    """Return the logits [n, n_classes] of each auxiliary, of the images or, with `flip`, of their mirror images."""
    sizes = [min(EVALUATION_BATCH, len(split.label) - s) for s in range(0, len(split.label), EVALUATION_BATCH)]
    like = torch.empty(len(depths), network.n_classes, device=network.device)
    every = ranks.in_turns(_own_logits(network, split, depths, flip=flip), like, sizes)
    return list(torch.cat([found.cpu() for found in every]).numpy().swapaxes(0, 1))


def _own_logits(network: LayerwiseNetwork, split: Split, depths: Sequence[int], *, flip: bool) -> Iterator[Tensor]:
    """Yield the logits [n, depths, n_classes] of the batches whose turn is this rank's."""
    for x, _ in DeviceSplit(split, network.device).in_order(network.normalise, in_turns=True):
        x, found = x.flip(3) if flip else x, []
        for j, block in enumerate(network.blocks[: max(depths)], start=1):
            x = block(x)
            if j in depths:
                found.append(network.auxiliaries[j - 1](x))
        yield torch.stack(found, 1)
