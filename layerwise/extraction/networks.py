"""A network built elsewhere as an extraction: its layers are read by hooks while it runs once over the data."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from layerwise.commandline import progress
from layerwise.errors import option, unknown
from layerwise.extraction.forms import TOKENS, Convention, form_of
from layerwise.extraction.inputs import Batch, Feed
from layerwise.extraction.layers import single_tensor, tapped, trace
from layerwise.extraction.origins import Origin
from layerwise.extraction.selection import choose
from layerwise.extraction.write import Extraction
from layerwise.hardware import exact_float32
from layerwise.model.batch_norm import settling
from layerwise.runfile import layout
from layerwise.runfile.depths import DepthStream
from layerwise.runfile.writer import RunWriter

log = logging.getLogger("layerwise.extract")

TRACED = 2  # images that show what each layer returns


class NetworkExtraction(Extraction):
    """A network, its inputs, and the layers chosen of it, ready to be listed, forecast and written.

    Making one runs the network on two inputs. Raises UserError where it cannot take them, UsageError for layers that
    are not there.
    """

    def __init__(self, model: nn.Module, feed: Feed, layers: str, convention: Convention, origin: Origin, dataset: str):
        if convention.tokens not in TOKENS:
            raise unknown(option("tokens"), convention.tokens, TOKENS)
        self.model, self.feed, self.origin, self.dataset = model, feed, origin, dataset
        self.labels, self.index = feed.labels, feed.index
        first = next(feed.batches())
        x = first.x[:TRACED]
        with exact_float32():
            self.layers = trace(model, x, convention)
        self.chosen = choose(model, self.layers, layers)
        own = Convention(channels_last=False, tokens="patch")
        self.forms = [form_of(tuple(x.shape[1:]), own)]
        self.depths = {0: self.forms[0].depth("input", tuple(x.shape[1:]))}
        for j, layer in enumerate(self.chosen, start=1):
            assert layer.form is not None and layer.shape is not None
            self.forms.append(layer.form)
            self.depths[j] = layer.form.depth(layer.name, layer.shape)
        self.image_shape = None if first.images is None else first.images.shape[1:]

    def prepare(self) -> None:
        """Give an untrained network's BatchNorm the statistics of the data."""
        if self.origin.trained_on == "nothing":
            settle_batch_norm(self.model, self.feed)

    @torch.no_grad()
    def run(self, writer: RunWriter, stream: DepthStream, images: bool) -> None:
        places = {(layer.module, layer.call): j for j, layer in enumerate(self.chosen, start=1)}
        kept = {}
        if images:
            assert self.image_shape is not None
            kept = {s: writer.rows(layout.images(s), (n, *self.image_shape), np.uint8) for s, n in self.counts.items()}

        def visit(name: str, call: int, inputs: Any, output: Any) -> None:
            if (j := places.get((name, call))) is not None:
                tensor = single_tensor(output)
                assert tensor is not None
                stream.take(j, self.forms[j].maps(tensor), self.forms[j].class_token(tensor))

        with tapped(self.model, visit, {layer.module for layer in self.chosen}):
            for batch in shown(self.feed, "extracting"):
                stream.start_batch(batch.routes, len(batch.x))
                stream.take(0, self.forms[0].maps(batch.x))
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
    """Give an untrained network's BatchNorm the statistics of the train fold, as `--mode untrained` does.

    Batches of a single row are left out, since BatchNorm refuses one row of a vector: it has no variance.
    """
    with settling(model) as has_norms:
        if not has_norms:
            return
        log.info("untrained: BatchNorm takes its statistics from one pass over the train fold")
        for batch in shown(feed, "BatchNorm statistics", "train"):
            rows = batch.routes.get("train")
            x = batch.x[:0] if rows is None else batch.x[rows]
            if len(x) > 1:
                model(x)
