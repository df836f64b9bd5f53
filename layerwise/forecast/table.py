"""The forecast of a run: parameters, operations, bytes, memory and time, and the table that shows them.

The data set is loaded, since the sizes of its splits decide everything; nothing is written.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

import torch

from layerwise.config import RunConfig
from layerwise.datasets import Sizes
from layerwise.datasets.dataset import load_sizes
from layerwise.datasets.reading import free_memory, is_held
from layerwise.forecast.large import seconds_of
from layerwise.forecast.memory import Memory, forecast_memory
from layerwise.model.counts import Problem, count_problems
from layerwise.runfile.place import Place
from layerwise.runfile.plan import Plan
from layerwise.training.operations import Operations, count_operations
from layerwise.training.run import plan_storage, reading_of, resolve
from layerwise.training.stage_batches import kept_bytes
from layerwise.units import show_seconds, show_size

# Fixed views for which a kept prefix is forecast where the run augments anew in each epoch. Over ten seeds four of them
# cost 0.5 points (-0.4 to 1.4) of accuracy in 8 epochs, a single one 0.8 (docs/performance.md).
SHOWN_VIEWS = 4
# Operations a second of the GPU for which hours are stated on any machine: an H100, by 40% of its 790e12 in bfloat16.
GPU_NAME, GPU_SPEED = "an H100 at 40% of its bfloat16 peak (stated, not measured)", 316e12
GPU_LEAST = 600  # seconds of training there; what takes less has small maps, by which no GPU comes near that speed


@dataclass(frozen=True)
class Forecast:
    """The cost of a run.

    seconds: of "training", "scoring", "dump"; prefixes: both choices of where the frozen blocks' output comes from.
    images: how those of a folder would be read, in words; is_streamed: whether anew in each epoch.
    """

    config: RunConfig
    device: torch.device
    sizes: Sizes
    problems: list[Problem]
    operations: Operations
    storage: Plan
    memory: Memory
    seconds: dict[str, float]
    prefixes: tuple[PrefixForecast, ...] = ()
    images: str = ""
    is_streamed: bool = False


@dataclass(frozen=True)
class PrefixForecast:
    """The cost of training with the frozen blocks' output recomputed, or kept: operations, seconds, bytes kept."""

    config: RunConfig
    operations: int
    seconds: float
    kept: int


def forecast_run(config: RunConfig, place: Place) -> Forecast:
    """Forecast a run; nothing is written, and only single batches are computed.

    Raises:
        UserError: the data are missing, P meets an odd size, or the run file would not fit place.max_size bytes.
    """
    reading = reading_of(place, config)
    sizes = load_sizes(config.data, place.data_dir, subset_is_most=place.subset_is_most, reading=reading)
    images, is_streamed = _images(config, sizes, place)
    config = resolve(config, sizes, place.device)
    storage = plan_storage(config, sizes, place.max_size)
    seconds = seconds_of(config, sizes, storage, place.device)
    return Forecast(
        config=config,
        device=place.device,
        sizes=sizes,
        problems=count_problems(config.network, sizes.image, sizes.n_classes),
        operations=count_operations(config, sizes),
        storage=storage,
        memory=forecast_memory(config, sizes, streamed=is_streamed),
        seconds=seconds,
        prefixes=tuple(_forecast_prefixes(config, sizes, storage, place.device, seconds["training"])),
        images=images,
        is_streamed=is_streamed,
    )


def _images(config: RunConfig, sizes: Sizes, place: Place) -> tuple[str, bool]:
    """Say how the images of a folder would be read, and return whether anew in each epoch."""
    if config.data.dataset != "imagefolder":
        return "", False
    bytes_of, room = {name: count * prod(sizes.image) for name, count in sizes.counts.items()}, free_memory()
    held = is_held(bytes_of, reading_of(place, config), room)
    free = f" ({show_size(room)} is free)" if room else ""
    how = "held in memory" if held else "decoded anew in each epoch"
    return f"{show_size(sum(bytes_of.values()))}, {how}{free}", not held


def _forecast_prefixes(
    config: RunConfig, sizes: Sizes, storage: Plan, device: torch.device, seconds: float
) -> Iterator[PrefixForecast]:
    """Yield the forecast of both choices, the recomputed prefix first, where the mode leaves a choice.

    seconds: of the training as it is configured.
    """
    if config.mode != "greedy" or config.network.depth == 1:
        return
    views = SHOWN_VIEWS if config.training.augments and not config.training.views else config.training.views
    for prefix, n in (("recompute", config.training.views), ("cache", views)):
        other = replace(config, training=replace(config.training, prefix=prefix, views=n))
        is_own = other == config
        taken = seconds if is_own else seconds_of(other, sizes, storage, device, ("training",))["training"]
        kept = kept_bytes(other, sizes) if prefix == "cache" else 0
        yield PrefixForecast(other, sum(count_operations(other, sizes).training), taken, kept)


def describe_forecast(forecast: Forecast) -> Iterator[str]:
    """Yield the lines that show a forecast, none wider than 80 columns."""
    config, net = forecast.config, forecast.config.network
    yield f"{config.recipe}, {config.mode}: k = {net.k}, J = {net.depth}, M = {net.width}, seed {config.seed}"
    trained = f"{config.training.epochs} epochs of {config.precision} products"
    yield "no weight is trained" if config.mode == "untrained" else trained
    if net.prune_to:
        epochs = config.training.finetune_epochs
        yield f"each block pruned to {net.prune_to} (as M), then {epochs} epochs of fine-tuning"
    sizes = ", ".join(f"{name} {n:,}" for name, n in forecast.sizes.counts.items())
    yield f"{config.data.dataset}: {sizes} images"
    yield ""
    yield _row("depth", "C x H x W", "block", "auxiliary", "training", "in the")
    yield _row("", "", "parameters", "parameters", "operations", "file")
    yield from _depth_lines(forecast)
    yield ""
    yield from _total_lines(forecast)
    yield ""
    yield "nothing was done: the same command without --dry-run does it"


def _depth_lines(forecast: Forecast) -> Iterator[str]:
    sizes = [show_size(count) for count in forecast.storage.depth_bytes]
    yield _row("0", _show_shape(forecast.sizes.image), "", "", "", sizes[0])
    for j, (problem, spent) in enumerate(zip(forecast.problems, forecast.operations.training, strict=True), start=1):
        block, auxiliary = (f"{part.parameters:,}" for part in (problem.block, problem.auxiliary))
        yield _row(str(j), _show_shape(problem.shape), block, auxiliary, f"{spent:.3e}", sizes[j])


def _row(depth: str, shape: str, block: str, auxiliary: str, operations: str, size: str) -> str:
    return f"{depth:>5}  {shape:<15}  {block:>11}  {auxiliary:>11}  {operations:>10}  {size:>9}"


def _total_lines(forecast: Forecast) -> Iterator[str]:
    blocks = sum(p.block.parameters for p in forecast.problems)
    auxiliaries = sum(p.auxiliary.parameters for p in forecast.problems)
    yield from _wrapped("parameters", f"{blocks + auxiliaries:,}: blocks {blocks:,}, auxiliaries {auxiliaries:,}")
    spent, memory, seconds = forecast.operations, forecast.memory, forecast.seconds
    parts = {"training": sum(spent.training), "scoring": spent.scoring, "dump": spent.dump}
    yield from _wrapped("operations", _sum(f"{spent.total:.3e}", {n: f"{count:.2e}" for n, count in parts.items()}))
    if forecast.images:
        yield from _wrapped("images", forecast.images)
    yield from _wrapped("run file", _show_file(forecast.storage))
    peak = f"about {show_size(memory.total)}, in {memory.phase}; Python and its libraries come on top"
    yield from _wrapped("peak memory", peak)
    whole = f"about {show_seconds(sum(seconds.values()))} on this {forecast.device.type}"
    yield from _wrapped("time", _sum(whole, {name: show_seconds(value) for name, value in seconds.items()}))
    if forecast.is_streamed and forecast.problems and sum(spent.training):
        yield from _wrapped("a second", _show_rates(forecast))
    if forecast.prefixes:
        yield from _wrapped("prefix", "; ".join(_show_prefix(forecast.config, found) for found in forecast.prefixes))


def _show_rates(forecast: Forecast) -> str:
    """Say how many images a second the training of each block takes, here and on a stated GPU, and the hours there."""
    config, spent = forecast.config, forecast.operations.training
    blocks = [j for j in config.heads if spent[j - 1]] if config.mode == "greedy" else [len(spent)]
    images = [forecast.sizes.train * config.epochs_of(j) for j in blocks]
    operations = [spent[j - 1] for j in blocks] if config.mode == "greedy" else [sum(spent)]

    def rates(speed: float) -> str:
        return ", ".join(f"{speed * n / count:,.0f}" for n, count in zip(images, operations, strict=True))

    of = f"blocks {blocks[0]}..{blocks[-1]}" if config.mode == "greedy" else "training"
    here = sum(spent) / forecast.seconds["training"]
    text, seconds = f"{of} take {rates(here)} images on this {forecast.device.type}", sum(spent) / GPU_SPEED
    if seconds < GPU_LEAST:
        return text
    return (
        f"{text}; {rates(GPU_SPEED)} on {GPU_NAME}, where training takes {show_seconds(seconds)} if images come as fast"
    )


def _show_prefix(config: RunConfig, found: PrefixForecast) -> str:
    """Name one of the two choices with its cost, and whether it is the run's."""
    views = found.config.training.views
    fixed = f" of {views} fixed views (--views {views})" if views and found.config.training.prefix == "cache" else ""
    kept = f", {show_size(found.kept)} kept" if found.kept else ""
    chosen = " (this run)" if found.config == config else ""
    cost = f"{found.operations:.2e} operations in training, about {show_seconds(found.seconds)}{kept}"
    return f"{found.config.training.prefix}{fixed}{chosen}: {cost}"


def _show_file(storage: Plan) -> str:
    kept = {
        "depths": sum(storage.depth_bytes),
        "images": storage.images * storage.image_bytes,
        "weights and outputs": storage.weight_bytes,
        "labels": storage.sample_bytes,
        "history": storage.history_bytes,
    }
    parts = _sum(show_size(storage.total), {name: show_size(count) for name, count in kept.items() if count})
    stored = "pooled features and whole maps" if storage.maps else "pooled features"
    return f"{parts}; depths hold {stored} as float16 (a depth with values beyond it takes twice as much)"


def _sum(whole: str, parts: dict[str, str]) -> str:
    return f"{whole}: " + ", ".join(f"{name} {part}" for name, part in parts.items())


def _wrapped(name: str, text: str) -> list[str]:
    return textwrap.wrap(text, 80, initial_indent=f"{name:<13}", subsequent_indent=13 * " ")


def _show_shape(shape: tuple[int, int, int]) -> str:
    return " x ".join(map(str, shape))
