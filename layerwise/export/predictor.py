"""The trained network as one module: blocks up to a depth with the auxiliary there, or an ensemble.

It is one module of plain PyTorch layers that maps images to class scores, so that it can be traced and used without
this package.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerwise.activations import load_network
from layerwise.errors import UsageError, UserError, option, unknown
from layerwise.model.ensemble import WEIGHTINGS
from layerwise.model.network import LayerwiseNetwork, normalise
from layerwise.runfile import RunFile

# What a predictor takes: pixels in 0..255; pixels in [0, 1]; x_0, standardised a channel.
INPUTS = ("uint8", "float", "normalised")


class Predictor(nn.Module):
    """Frozen blocks 1..j with some of their auxiliaries: images [n, C, H, W] to class scores float32 [n, n_classes].

    joined: the depths whose auxiliaries are read, ascending; the last one is j. weighting: None for the logits of the
    one auxiliary, or one of WEIGHTINGS for the log-probabilities of their ensemble. takes: one of INPUTS.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: LayerwiseNetwork, joined: tuple[int, ...], weighting: str | None, takes: str):
        super().__init__()
        self.joined, self.weighting, self.takes = joined, weighting, takes
        self.blocks = nn.ModuleList(network.blocks[: joined[-1]])
        self.auxiliaries = nn.ModuleList(network.auxiliaries[j - 1] for j in joined)
        self.register_buffer("mean", network.normalisation.mean.clone())
        self.register_buffer("std", network.normalisation.std.clone())
        # Channels last is how this package computes; programs of others expect the order that shapes name.
        self.to(memory_format=torch.contiguous_format)
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        x = self._normalised(images)
        logits = []
        for j, block in enumerate(self.blocks, start=1):
            x = block(x)
            if j in self.joined:
                logits.append(self.auxiliaries[self.joined.index(j)](x))
        return logits[0] if self.weighting is None else join(logits, self.weighting)

    def _normalised(self, images: Tensor) -> Tensor:
        if self.takes == "uint8":
            return normalise(images, self.mean, self.std)
        return images if self.takes == "normalised" else (images - self.mean) / self.std


def join(logits: list[Tensor], weighting: str) -> Tensor:
    """Return log-probabilities [n, n_classes] of the ensemble of auxiliaries 1..J (layerwise.model.ensemble).

    In float32: probabilities are added by their logarithms, so that none of them becomes 0.
    """
    weights = [1.0 if weighting == "uniform" else 2.0**j for j in range(1, len(logits) + 1)]
    shares = [weight / sum(weights) for weight in weights]
    if weighting == "logits":
        return F.log_softmax(torch.stack([w * z for w, z in zip(shares, logits, strict=True)]).sum(0), dim=1)
    parts = [F.log_softmax(z, dim=1) + math.log(w) for w, z in zip(shares, logits, strict=True)]
    return torch.logsumexp(torch.stack(parts), dim=0)


def auxiliary_depths(run: RunFile) -> list[int]:
    """Return the depths whose trained auxiliary the file holds; raise UserError where there is none."""
    if run.config is None:
        raise UserError(
            f"{run.path} has no network: it was extracted from one built elsewhere, or from arrays. Export that "
            "network by the code that builds it; `layerwise-export` takes the runs of `layerwise-train`."
        )
    if not run.trained_depths:
        raise UserError(
            f"{run.path} has no trained auxiliary classifier (mode {run.config.mode}), and so nothing that predicts "
            "classes. Export a run of --mode greedy, parallel or end-to-end."
        )
    return run.trained_depths


def build_predictor(
    run: RunFile, depth: int | None = None, weighting: str | None = None, takes: str = "uint8"
) -> Predictor:
    """Build the predictor of one depth of a run, on the CPU.

    Args:
        depth: j, at which the run has a trained auxiliary; None for the last.
        weighting: None for the auxiliary of that depth alone, or how all auxiliaries up to it are joined.
        takes: one of INPUTS.

    Raises UserError where the run has no such auxiliary, or no two to join.
    """
    if takes not in INPUTS:
        raise unknown("input", takes, INPUTS)
    if weighting is not None and weighting not in WEIGHTINGS:
        raise unknown("ensemble", weighting, WEIGHTINGS)
    depths = auxiliary_depths(run)
    last = depths[-1] if depth is None else depth
    if last not in depths:
        have = f"{depths[0]} to {depths[-1]}" if len(depths) > 1 else f"{depths[0]} alone"
        raise UsageError(f"{option('depth')} is {last}, but {run.path} has trained auxiliary classifiers at {have}.")
    if weighting is not None and len(depths) == 1:
        raise UsageError(
            f"{run.path} has one trained auxiliary classifier, at depth {last}, and so no ensemble. Omit "
            f"{option('ensemble')}."
        )
    network = load_network(run, torch.device("cpu"))
    assert network is not None  # a file with auxiliaries has blocks
    joined = (last,) if weighting is None else tuple(j for j in depths if j <= last)
    return Predictor(network, joined, weighting, takes)
