"""Owns an extraction from request to published file: any network, or arrays made elsewhere, become a run file."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from layerwise.budget import Budget, describe_budget, plan_extraction, require_fit
from layerwise.commandline import progress
from layerwise.errors import UsageError, UserError, unknown
from layerwise.feeding import Batch, Feed
from layerwise.forms import TOKENS, Convention, form_of
from layerwise.hardware import exact_float32
from layerwise.layers import select, single_tensor, tapped, trace
from layerwise.provenance import provenance
from layerwise.publication import refuse_existing
from layerwise.runwriter import RunWriter, create_run
from layerwise.storage import free_bytes
from layerwise.streaming import Depth, DepthStream, TooLargeError

log = logging.getLogger("layerwise.extract")

TRAINED_ON = ("nothing", "other-data", "train-fold", "train-split")
TRACED = 2  # images that show what each layer returns
DEFAULT_MAX_SIZE = 8 * 10**9


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where an extraction goes and what may be kept: the machine's side of it.

    store: "pooled", "maps" or "auto" (maps where they fit). max_size: bytes.
    """

    out: Path
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    store: str = "auto"
    max_size: int = DEFAULT_MAX_SIZE
    force: bool = False
    data_dir: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a file says of where its activations come from; `facts` is kept as JSON.

    label: what figures call the network. trained_on: one of `TRAINED_ON`; after "train-split" no fold is unseen.
    seed: tells repetitions apart that figures average.
    """

    label: str
    trained_on: str
    seed: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.trained_on not in TRAINED_ON:
            raise unknown("--trained-on", self.trained_on, TRAINED_ON)
        if not self.label or not self.label.isprintable():
            raise UsageError(f"--label is {self.label!r}, but must be one line of text.")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"--seed is {self.seed}, but must be an integer in [0, 2^32).")

    def to_json(self) -> str:
        """Return all of it as JSON with sorted keys."""
        own = {"label": self.label, "trained_on": self.trained_on, "seed": self.seed}
        return json.dumps({**self.facts, **own}, sort_keys=True)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The data as a run file describes them: name, class names, normalisation, and a digest of each split."""

    name: str
    classes: Sequence[str]
    mean: Sequence[float]
    std: Sequence[float]
    fingerprint: Mapping[str, str]

    def to_json(self) -> str:
        """Return the root attribute `dataset`."""
        about = {
            "name": self.name,
            "fingerprint": dict(self.fingerprint),
            "classes": list(self.classes),
            "normalisation": {"mean": list(self.mean), "std": list(self.std)},
        }
        return json.dumps(about, sort_keys=True)


def holdout_of(trained_on: str, holdout: float) -> float:
    """Return the share set apart for validation: none where the network has seen the whole train split."""
    return 0.0 if trained_on == "train-split" else holdout


def fingerprint_of(labels: np.ndarray, index: np.ndarray) -> str:
    """Return a SHA-256 of labels and positions, for data whose inputs are not kept."""
    return hashlib.sha256(labels.tobytes() + index.tobytes()).hexdigest()


class Extraction:
    """A network, its inputs, and the layers chosen of it, ready to be listed, forecast and written.

    Making one runs the network on two inputs. Raises UserError where it cannot take them, UsageError for layers that
    are not there.
    """

    def __init__(self, model: nn.Module, feed: Feed, layers: str, convention: Convention):
        if convention.tokens not in TOKENS:
            raise unknown("--tokens", convention.tokens, TOKENS)
        self.model, self.feed = model, feed
        first = next(feed.batches())
        x = first.x[:TRACED]
        with exact_float32():
            self.layers = trace(model, x, convention)
        self.chosen = select(model, self.layers, layers)
        own = Convention(channels_last=False, tokens="patch")
        self.depths = {0: Depth("input", tuple(x.shape[1:]), form_of(tuple(x.shape[1:]), own))}
        for j, layer in enumerate(self.chosen, start=1):
            assert layer.form is not None and layer.shape is not None
            self.depths[j] = Depth(layer.name, layer.shape, layer.form)
        self.image_shape = None if first.images is None else first.images.shape[1:]

    @property
    def counts(self) -> dict[str, int]:
        """Number of samples of each split."""
        return {name: len(label) for name, label in self.feed.labels.items()}

    def budget(self, store: str, max_size: int, in_float32: set[int] | None = None) -> Budget:
        """Return what would be kept within `max_size` bytes."""
        image = 0 if self.image_shape is None else int(np.prod(self.image_shape)) * sum(self.counts.values())
        return plan_extraction(self.depths, self.counts, image, store, max_size, in_float32 or set())

    def write(self, target: Target, origin: Origin, subject: Subject) -> Budget:
        """Run the network once over all inputs and publish the run file; return what it holds."""
        refuse_existing(target.out, target.force)
        require_room(self.budget(target.store, target.max_size), target)
        with exact_float32():
            if origin.trained_on == "nothing":
                settle_batch_norm(self.model, self.feed)
            return write_run(target, origin, subject, self.feed, self.budget, self._run)

    @torch.no_grad()
    def _run(self, writer: RunWriter, stream: DepthStream, images: bool) -> None:
        places = {(layer.module, layer.call): j for j, layer in enumerate(self.chosen, start=1)}
        kept = {}
        if images:
            assert self.image_shape is not None
            kept = {s: writer.rows(f"images/{s}", (n, *self.image_shape), np.uint8) for s, n in self.counts.items()}

        def visit(name: str, call: int, output: Any) -> None:
            if (j := places.get((name, call))) is not None:
                tensor = single_tensor(output)
                assert tensor is not None
                stream.take(j, tensor)

        with tapped(self.model, visit, {layer.module for layer in self.chosen}):
            for batch in shown(self.feed, "extracting"):
                stream.start_batch(batch.routes, len(batch.x))
                stream.take(0, batch.x)
                self.model(batch.x)
                for split, rows in batch.routes.items() if kept else ():
                    assert batch.images is not None
                    kept[split].append(batch.images[rows])


def shown(feed: Feed, what: str, only: str | None = None) -> Iterator[Batch]:
    """Yield the batches of a feed, or those of one split, under a progress bar."""
    with progress() as bar:
        total = sum(len(label) for split, label in feed.labels.items() if only in (None, split))
        task = bar.add_task(what, total=total)
        for batch in feed.batches(only):
            yield batch
            bar.advance(task, len(batch.x))


@torch.no_grad()
def settle_batch_norm(model: nn.Module, feed: Feed) -> None:
    """Give an untrained network's BatchNorm the running statistics of one label-free pass over the train fold.

    As `layerwise-train --mode untrained` does. Every batch weighs the same; one of a single row is left out.
    The network ends in eval mode.
    """
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    norms = [part for part in model.modules() if isinstance(part, kinds) and part.track_running_stats]
    if not norms:
        return
    log.info("untrained: BatchNorm takes its statistics from one pass over the train fold")
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for batch in shown(feed, "BatchNorm statistics", "train"):
        rows = batch.routes.get("train")
        x = batch.x[:0] if rows is None else batch.x[rows]
        if len(x) > 1:
            model(x)
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
        norm.eval()


def require_room(budget: Budget, target: Target) -> None:
    """Raise UserError, after the table of bytes, where a run file does not fit its limit or the disk."""
    free = free_bytes(target.out)
    try:
        require_fit(budget, target.max_size, "--max-size allows")
        require_fit(budget, free, "the disk has free")
    except UserError:
        for line in describe_budget(budget):
            log.warning("%s", line)
        raise


def write_run(
    target: Target,
    origin: Origin,
    subject: Subject,
    feed: Any,
    budget_of: Callable[[str, int, set[int]], Budget],
    run: Callable[[RunWriter, DepthStream, bool], None],
) -> Budget:
    """Write and publish a run file from one pass of `run`; from two, where a depth turns out not to fit float16."""
    in_float32: set[int] = set()
    start = time.perf_counter()
    while True:
        budget = budget_of(target.store, target.max_size, in_float32)
        require_room(budget, target)
        log.info("%s", list(describe_budget(budget))[-1])
        try:
            with create_run(target.out, force=target.force) as writer:
                writer.attributes("/", {"dataset": subject.to_json(), "extraction": origin.to_json()})
                for split, label in feed.labels.items():
                    writer.array(f"samples/{split}/label", label)
                    writer.array(f"samples/{split}/index", feed.index[split])
                counts = {split: len(label) for split, label in feed.labels.items()}
                stream = DepthStream(writer, budget.depths, counts, maps=budget.maps, in_float32=in_float32)
                run(writer, stream, budget.images)
                stream.finish()
                seconds = {"extract": time.perf_counter() - start}
                writer.attributes("provenance", provenance(target.device, target.data_dir, seconds))
            return budget
        except TooLargeError as error:
            in_float32 |= error.depths
            names = ", ".join(budget.depths[j].module for j in sorted(error.depths))
            log.info("%s: values beyond float16, so float32 is kept there, in a second pass", names)
