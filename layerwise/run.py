"""Owns a run from configuration to published file: load, train or leave untrained, dump, publish."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from layerwise.blocks import shapes
from layerwise.config import RunConfig
from layerwise.datasets import Dataset, load_dataset
from layerwise.errors import UsageError, unknown
from layerwise.extract import dump_depths, dump_module
from layerwise.network import LayerwiseNetwork
from layerwise.operations import count_problems, heads, weight_bytes
from layerwise.provenance import provenance
from layerwise.publication import refuse_existing
from layerwise.runwriter import RunWriter, create_run
from layerwise.storage import Plan, plan, require_disk, show_size
from layerwise.training import DeviceSplit, Epoch, evaluate, settle_batch_norm, train_greedy

log = logging.getLogger("layerwise.run")

HISTORY_TYPE = np.dtype(
    [
        ("block", "<i4"),
        ("epoch", "<i4"),
        ("learning_rate", "<f8"),
        ("train_loss", "<f8"),
        ("train_accuracy", "<f8"),
        ("validation_loss", "<f8"),
        ("validation_accuracy", "<f8"),
    ]
)


@dataclass(frozen=True)
class DepthScore:
    """Accuracy in [0, 1] of the auxiliary classifier trained at a depth, a split."""

    depth: int
    shape: tuple[int, int, int]
    accuracy: dict[str, float]


def pick_device(name: str) -> torch.device:
    """Return the device named "auto", "cpu" or "cuda"; raise UsageError where it is not to be had."""
    choices = ("auto", "cpu", "cuda")
    if name not in choices:
        raise unknown("device", name, choices)
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda was asked for, but torch sees no GPU here; use --device cpu or auto.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def train_run(
    config: RunConfig, out: Path, *, data_dir: Path | None, device: torch.device, max_size: int, force: bool
) -> list[DepthScore]:
    """Carry out a configuration and publish its run file; return the auxiliaries' accuracies by depth.

    Raises UserError before anything is trained if the output exists, the data are missing, P meets an odd size,
    or the file would not fit.
    """
    refuse_existing(out, force)
    dataset = load_dataset(config.data.dataset, holdout=config.data.holdout, data_dir=data_dir)
    network = LayerwiseNetwork(
        config.network, dataset.image_shape, len(dataset.classes), dataset.mean, dataset.std, config.seed
    ).to(device)
    storage = plan_storage(config, dataset, max_size)
    require_disk(out, storage.total)
    _announce(storage, config, out)
    config = replace(config, store="maps" if storage.maps else "pooled")

    seconds = {}
    start = time.perf_counter()
    history = _train(network, dataset, config)
    seconds["train"] = time.perf_counter() - start
    scores = [] if config.mode == "untrained" else _auxiliary_scores(network, dataset)
    with create_run(out, force=force) as writer:
        start = time.perf_counter()
        _write_head(writer, config, dataset)
        _write_network(writer, network, history, scores)
        dump_depths(writer, network, dataset, storage)
        seconds["dump"] = time.perf_counter() - start
        writer.attributes("provenance", provenance(device, data_dir, seconds))
        if history:
            writer.array("provenance/epoch_seconds", np.array([epoch.seconds for epoch in history]))
    return scores


def plan_storage(config: RunConfig, dataset: Dataset, max_size: int) -> Plan:
    """Plan the run file within `max_size` bytes; raise UserError where P meets an odd size or it would not fit."""
    net, image = config.network, dataset.image_shape
    counts = {name: len(split.label) for name, split in dataset.splits.items()}
    weights = weight_bytes(config, count_problems(net, image, len(dataset.classes)))
    rows = config.training.epochs * len(heads(config))  # each with its seconds, a float64 of /provenance
    history_bytes = rows * (HISTORY_TYPE.itemsize + 8)
    xs = shapes(image, net.depth, net.width, net.downsample)
    return plan(xs, counts, weights, config.store, max_size, history_bytes)


def _announce(storage: Plan, config: RunConfig, out: Path) -> None:
    kept = [
        "pooled features" + (" and whole maps" if storage.maps else "") + f" of depths 0..{config.network.depth}",
        "images" if storage.images else "no images (they do not fit --max-size)",
        "weights",
    ]
    log.info("%s will take %s: %s", out, show_size(storage.total), ", ".join(kept))


def _train(network: LayerwiseNetwork, dataset: Dataset, config: RunConfig) -> list[Epoch]:
    if config.mode == "untrained":
        settle_batch_norm(network, DeviceSplit(dataset.splits["train"], network.mean.device))
        return []
    history = []
    for epoch in train_greedy(network, dataset, config):
        history.append(epoch)
        if epoch.epoch == config.training.epochs - 1:
            spent = sum(e.seconds for e in history if e.block == epoch.block)
            held = f", validation accuracy {epoch.validation.accuracy:.1%}" if epoch.validation else ""
            log.info(
                "block %d/%d: training accuracy %.1f%%%s, %.0f s",
                epoch.block, config.network.depth, 100 * epoch.train.accuracy, held, spent,
            )  # fmt: skip
    return history


@torch.no_grad()
def _auxiliary_scores(network: LayerwiseNetwork, dataset: Dataset) -> list[DepthScore]:
    """Score each frozen block with its auxiliary on the images as they are, without augmentation."""
    device = network.mean.device
    accuracy: list[dict[str, float]] = [{} for _ in network.blocks]
    for name, split in dataset.splits.items():
        data = DeviceSplit(split, device)
        for j, auxiliary in enumerate(network.auxiliaries, start=1):
            head = nn.Sequential(*network.blocks[:j], auxiliary)
            accuracy[j - 1][name] = evaluate(head, data.in_order(network.normalise)).accuracy
    return [DepthScore(j, network.shapes[j], found) for j, found in enumerate(accuracy, start=1)]


def _write_head(writer: RunWriter, config: RunConfig, dataset: Dataset) -> None:
    about = {
        "name": dataset.name,
        "fingerprint": {name: split.fingerprint() for name, split in dataset.splits.items()},
        "classes": dataset.classes,
        "normalisation": {"mean": dataset.mean, "std": dataset.std},
    }
    writer.attributes("/", {"config": config.to_json(), "dataset": json.dumps(about, sort_keys=True)})


def _write_network(
    writer: RunWriter, network: LayerwiseNetwork, history: list[Epoch], scores: list[DepthScore]
) -> None:
    for j, block in enumerate(network.blocks, start=1):
        dump_module(writer, f"blocks/{j:02d}", block, {})
    for score in scores:
        accuracies = {f"{split}_accuracy": value for split, value in score.accuracy.items()}
        dump_module(writer, f"auxiliaries/{score.depth:02d}", network.auxiliaries[score.depth - 1], accuracies)
    if history:
        writer.array("history", np.array([_history_row(epoch) for epoch in history], dtype=HISTORY_TYPE))


def _history_row(epoch: Epoch) -> tuple[float, ...]:
    held = epoch.validation
    unseen = (held.loss, held.accuracy) if held else (np.nan, np.nan)
    return (epoch.block, epoch.epoch, epoch.learning_rate, epoch.train.loss, epoch.train.accuracy, *unseen)
