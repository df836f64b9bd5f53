"""A run from configuration to published file: load, train or leave untrained, score, dump, publish."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import torch

from layerwise import ranks, sharing
from layerwise.commandline import if_stopped
from layerwise.config import RunConfig
from layerwise.datasets import Dataset, Sizes, load_configured
from layerwise.datasets.reading import ImageReading
from layerwise.datasets.survey import folder_facts
from layerwise.errors import UsageError
from layerwise.hardware import pick_precision, products
from layerwise.model.architectures import network_shapes, settled
from layerwise.model.counts import count_problems
from layerwise.model.global_norm import make_global
from layerwise.model.network import LayerwiseNetwork
from layerwise.runfile import layout
from layerwise.runfile.depths import publish_run
from layerwise.runfile.place import Place
from layerwise.runfile.plan import Plan, plan, require_room
from layerwise.runfile.provenance import provenance
from layerwise.runfile.rounding import asked_in_float32
from layerwise.runfile.writer import RunWriter, dataset_attribute
from layerwise.training.batches import DeviceSplit
from layerwise.training.checkpoint import Checkpoint, open_checkpoint, prefix_begun_with, refuse_existing_run
from layerwise.training.dump import depths_of, dump_depths, dump_module
from layerwise.training.history import HISTORY_TYPE, Epoch, history_table
from layerwise.training.loop import settle_batch_norm, train, whiten
from layerwise.training.operations import match_operations, pruning_bytes, weight_bytes
from layerwise.training.pruning import Pruned, accuracy_attributes, score_pruning
from layerwise.training.replacement import Taken
from layerwise.training.report import Report
from layerwise.training.scoring import DepthScores, score_auxiliaries
from layerwise.training.stage_batches import resolve_prefix
from layerwise.units import show_seconds, show_size

log = logging.getLogger("layerwise.run")


def train_run(
    config: RunConfig, place: Place, taken: Taken | None = None, dataset: Dataset | None = None
) -> list[DepthScores]:
    """Carry out a configuration and publish its run file; return what its auxiliaries score, by depth.

    A training that was stopped goes on from its last epoch. `taken`: data and trained blocks of a finished run of which
    this one differs in its last problem alone. `dataset`: data that no configuration names. Raises UserError before
    anything is trained if the output exists, the data are missing, P meets an odd size, the file would not fit, or a
    stopped training was another one.
    """
    ranks.by_first(lambda: refuse_existing_run(place.out, place.force))
    if dataset is None:
        dataset = taken.dataset if taken else load_data(config, place)
    sizes = dataset.sizes
    config = ranks.by_first(lambda: resolve(config, sizes, place.device, prefix_begun_with(place.out)))
    if config.training.matched_epochs:
        log.info("%s for %d epochs, which spend what greedy training does", config.mode, config.training.epochs)
    network = LayerwiseNetwork(
        config.network, dataset.image_shape, len(dataset.classes), dataset.mean, dataset.std, config.seed
    ).to(place.device)
    whiten(network, dataset.splits["train"])
    make_global(network, place.device)
    storage = plan_storage(config, dataset.sizes, place.max_size)
    require_room(storage, place.max_size, place.out)
    _announce(storage, config, place.out)
    config = replace(config, store="maps" if storage.maps else "pooled")
    fingerprint = {name: split.fingerprint() for name, split in dataset.splits.items()}
    with open_checkpoint(place.out, config, fingerprint) as checkpoint, if_stopped(lambda: _kept(checkpoint)):
        goes_on = checkpoint.load(network)
        if not goes_on and taken:
            taken.give(network, checkpoint)
        ranks.same_on_all(network.state_dict().values())
        start = time.perf_counter()
        if config.mode == "untrained":
            with products("fp32"):
                settle_batch_norm(network, DeviceSplit(dataset.splits["train"], place.device))
            log.info("untrained: every weight is as it was drawn, BatchNorm has the statistics of one pass")
        else:
            done = checkpoint.history if goes_on else []
            with Report(config.training.epochs, place.tensorboard, done) as report, products(config.precision):
                train(network, dataset, config, checkpoint, report)
        seconds = {"train": time.perf_counter() - start}
        _say_waited(dataset, seconds["train"])
        ranks.same_on_all(network.state_dict().values())  # what each rank scores and dumps is one network
        source = {"source_run_id": taken.run_id} if taken else {}
        return _publish(config, place, network, dataset, storage, checkpoint, fingerprint, seconds, source)


def _say_waited(dataset: Dataset, seconds: float) -> None:
    """Say which share of a training was spent waiting for images, where they were decoded meanwhile.

    On a GPU this is the host's time, which runs ahead of the device: the device waited for less.
    """
    if waited := sum(split.waited for split in dataset.splits.values()):
        log.info("training took %s, %.0f%% of it waiting for images", show_seconds(seconds), 100 * waited / seconds)


def load_data(config: RunConfig, place: Place) -> Dataset:
    """Return the data set of a configuration, from the place's folder."""
    return sharing.loaded_once(
        lambda: load_configured(
            config.data, place.data_dir, download=place.download, subset_is_most=place.subset_is_most,
            reading=reading_of(place, config),
        )
    )  # fmt: skip


def reading_of(place: Place, config: RunConfig | None = None) -> ImageReading:
    """Return how a machine reads the images of a folder, for a configuration where one is known."""
    reading = ImageReading(how=place.read, workers=place.workers, skip_broken=place.skip_broken)
    return reading.of_originals(config is not None and config.training.is_resized)


def _kept(checkpoint: Checkpoint) -> str:
    """Say what a training that is stopped now leaves."""
    if checkpoint.path is not None and checkpoint.path.exists():
        return f"What was trained is kept in {checkpoint.folder}: the same command goes on from there."
    return "No epoch was finished; the same command begins anew."


def resolve(config: RunConfig, sizes: Sizes, device: torch.device, begun: str | None = None) -> RunConfig:
    """Return the configuration with what was left to the run decided: precision, prefix, epochs to match operations.

    sizes: of the data. begun: the prefix of a stopped training of the same output, which "auto" takes up.

    Raises UsageError for settings that these images do not allow.
    """
    if (count := sizes.total_train) < config.data.subset:  # a recipe's, of which the data have fewer
        log.info("all %d training images are used; the recipe takes at most %d", count, config.data.subset)
        config = replace(config, data=replace(config.data, subset=0))
    config = replace(config, network=settled(config.network, sizes.image))
    _check_images(config, sizes.image, sizes.train)
    if config.match == "operations":
        config = match_operations(config, sizes)
    config = replace(config, precision=pick_precision(config.precision, device))
    return resolve_prefix(config, sizes, device, begun)


def _check_images(config: RunConfig, image: tuple[int, int, int], n_train: int) -> None:
    cfg, side = config.training, min(image[1:])
    if cfg.crop_padding > side:
        raise UsageError(
            f"training.crop_padding is {cfg.crop_padding}, but the images are {image[1]}x{image[2]}: at most {side} "
            "leaves something of them in every crop."
        )
    if cfg.crop_fill == "reflect" and cfg.crop_padding >= side:
        raise UsageError(
            f"training.crop_padding is {cfg.crop_padding}, but images of {image[1]}x{image[2]} can be reflected by at "
            f"most {side - 1} pixels (--set training.crop_fill=zeros allows {side})."
        )
    if config.network.average == 1 and config.network.has_batch_norm and n_train % cfg.batch_size == 1:
        raise UsageError(
            f"the last batch of {n_train} images in batches of {cfg.batch_size} has one image, of which BatchNorm "
            "cannot take statistics after averaging to 1x1. Give another --set training.batch_size=..."
        )


def plan_storage(config: RunConfig, sizes: Sizes, max_size: int) -> Plan:
    """Plan the run file within `max_size` bytes; raise UserError where P meets an odd size or it would not fit."""
    net, image = config.network, sizes.image
    counts = sizes.counts
    weights = weight_bytes(config, count_problems(net, image, sizes.n_classes)) + pruning_bytes(net)
    finetuning = config.training.finetune_epochs if net.prune_to else 0
    rows = sum(
        config.epochs_of(j) + finetuning for j in config.heads
    )  # each with its seconds, a float64 of /provenance
    history_bytes = rows * (HISTORY_TYPE.itemsize + 8)
    scored = counts.get("validation", 0) + counts["test"]
    output_bytes = 4 * sizes.n_classes * scored * len(config.heads)
    depths = depths_of(network_shapes(net, image))
    storage = plan(
        depths,
        counts,
        in_float32=asked_in_float32(depths, config.dtype),
        store=config.store,
        max_size=max_size,
        image_bytes=sizes.total * prod(image),
        weight_bytes=weights + output_bytes,
        history_bytes=history_bytes,
        file_bytes=sizes.file_bytes,
    )
    require_room(storage, max_size)
    return storage


def _announce(storage: Plan, config: RunConfig, out: Path) -> None:
    kept = [
        "pooled features" + (" and whole maps" if storage.maps else "") + f" of depths 0..{config.network.depth}",
        "images" if storage.images else "no images (they do not fit --max-size)",
        "weights",
    ]
    log.info("%s will take %s: %s", out, show_size(storage.total), ", ".join(kept))


def _publish(
    config: RunConfig,
    place: Place,
    network: LayerwiseNetwork,
    dataset: Dataset,
    storage: Plan,
    checkpoint: Checkpoint,
    fingerprint: dict[str, str],
    seconds: dict[str, float],
    source: dict[str, str],
) -> list[DepthScores]:
    if place.device.type == "cuda":  # whose float32 kernels without TF32 want channels first
        network.to(memory_format=torch.contiguous_format)
    start = time.perf_counter()
    with products("fp32"):
        scores = score_auxiliaries(network, dataset, config.heads, mirrored=config.mirrored)
        _score_pruned(network, dataset, scores, checkpoint.pruned)
    seconds["score"] = time.perf_counter() - start
    start = time.perf_counter()

    def write(writer: RunWriter, in_float32: frozenset[int]) -> None:
        _write_head(writer, config, dataset, fingerprint)
        _write_network(writer, network, scores)
        _write_history(writer, checkpoint.history)
        dump_depths(writer, network, dataset, storage, in_float32, config.dtype)
        seconds["dump"] = time.perf_counter() - start
        machine = provenance(place.device, place.data_dir, seconds) | {"images": dataset.kept, "ranks": ranks.world()}
        machine |= folder_facts(dataset.splits["train"].files)
        writer.attributes(layout.PROVENANCE, machine | source)

    with products("fp32"):
        in_float32 = asked_in_float32(storage.depths, config.dtype)
        publish_run(place.out, force=place.force, write=write, in_float32=in_float32)
    return scores


def _score_pruned(
    network: LayerwiseNetwork, dataset: Dataset, scores: Sequence[DepthScores], pruned: Mapping[int, Pruned]
) -> None:
    """Score every auxiliary before its block was pruned, right after it, and fine-tuned, in the records themselves."""
    score_pruning(network, dataset, pruned)
    for score in scores:
        if (record := pruned.get(score.depth)) is not None:
            record.accuracy |= {("finetuned", split): value for split, value in score.accuracy.items()}
            score.pruned = record


def _write_head(writer: RunWriter, config: RunConfig, dataset: Dataset, fingerprint: dict[str, str]) -> None:
    about = dataset_attribute(dataset.name, dataset.classes, dataset.mean, dataset.std, fingerprint)
    writer.attributes(layout.ROOT, {"config": config.to_json(), "dataset": about})


def _write_network(writer: RunWriter, network: LayerwiseNetwork, scores: Sequence[DepthScores]) -> None:
    for j, block in enumerate(network.blocks, start=1):
        dump_module(writer, "blocks", j, block, {})
    for score in scores:
        auxiliary = network.auxiliaries[score.depth - 1]
        dump_module(writer, "auxiliaries", score.depth, auxiliary, score.attributes())
        for split, logits in score.logits.items():
            writer.array(layout.outputs(score.depth, split), logits)
        if score.pruned is not None:
            writer.attributes(layout.pruning(score.depth), accuracy_attributes(score.pruned))
            writer.array(layout.kept_filters(score.depth), score.pruned.kept)
            writer.array(layout.saliencies(score.depth), score.pruned.saliency)


def _write_history(writer: RunWriter, history: Sequence[Epoch]) -> None:
    if history:
        writer.array(layout.HISTORY, history_table(history))
        writer.array(layout.EPOCH_SECONDS, np.array([epoch.seconds for epoch in history]))
