"""A network built elsewhere as an extraction: its layers are read by hooks while it runs once over the data."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from layerwise import ranks
from layerwise.commandline import progress
from layerwise.errors import UserError
from layerwise.extraction.forms import Convention, check_reading, describe_readings, form_of, grids_of
from layerwise.extraction.independence import FirstRow, require_own_values, two_images
from layerwise.extraction.inputs import Batch, Feed
from layerwise.extraction.layer_selection import choose
from layerwise.extraction.layers import Layer, single_tensor, tapped, trace
from layerwise.extraction.origins import Origin
from layerwise.extraction.write import Extraction
from layerwise.hardware import exact_float32
from layerwise.model.batch_norm import settling
from layerwise.model.loan import eagerly
from layerwise.runfile import layout
from layerwise.runfile.depths import DepthStream
from layerwise.runfile.writer import RunWriter

log = logging.getLogger("layerwise.extract")


class NetworkExtraction(Extraction):
    """A network, its inputs, and the layers chosen of it, ready to be listed, forecast and written.

    Making one runs the network on two inputs, and on one of them alone. Raises UserError where it cannot take them or
    gives one image two values, UsageError for layers that are not there.
    """

    def __init__(self, model: nn.Module, feed: Feed, layers: str, convention: Convention, origin: Origin, dataset: str):
        check_reading(convention.tokens, convention.layout)
        self.model, self.feed, self.origin, self.dataset = model, feed, origin, dataset
        self.labels, self.index, self.kept, self.files = feed.labels, feed.index, feed.kept, feed.files
        first = next(feed.batches())
        x, rows, is_image = two_images(first.x), FirstRow(), first.images is not None
        if x.dim() == 4:
            convention = replace(convention, grids=grids_of(*x.shape[2:]))
        with exact_float32(), eagerly():
            self.layers = trace(model, x, convention, is_image=is_image, beside=rows.keep)
            self.chosen = choose(model, self.layers, layers)
            require_own_values(model, x, rows, self.layers, self.chosen)
        forms = ((layer.name, layer.form) for layer in self.chosen if layer.form is not None)
        log.info("read as %s", "; ".join(describe_readings(forms)))
        own = Convention(channels_last=False, tokens="patch")
        self.forms = [form_of(tuple(x.shape[1:]), own)]
        self.depths = {0: self.forms[0].depth("input", tuple(x.shape[1:]))}
        for j, layer in enumerate(self.chosen, start=1):
            assert layer.form is not None and layer.shape is not None
            self.forms.append(layer.form)
            self.depths[j] = layer.form.depth(layer.name, layer.shape)
        self.image_shape = None if first.images is None else first.images.shape[1:]

    def require_unread(self, missing: Sequence[str]) -> None:
        """Raise UserError where a depth may depend on parameters that the weights lacked.

        A module that returns after the last depth is read, or is never called, cannot change any.
        """
        order = [(layer.module, layer.call) for layer in self.layers]
        last = max(order.index((layer.module, layer.call)) for layer in self.chosen)
        before = {module for module, _ in order[: last + 1]}
        for name in missing:
            module = name.rpartition(".")[0]
            if any(one == module or module.startswith(f"{one}.") for one in before):
                raise UserError(
                    f"the weights lack {name}, which depth {len(self.chosen)} ({self.chosen[-1].name}) may depend on. "
                    "Give the whole weights, or choose layers that are computed before it by --layers."
                )

    def prepare(self) -> None:
        """Give all ranks one network, and an untrained one's BatchNorm the statistics of the data."""
        # Each rank has built it: a user's factory that draws without the seed would give each another one.
        ranks.same_on_all([*self.model.parameters(), *self.model.buffers()])
        if self.origin.trained_on == "nothing":
            with eagerly():
                settle_batch_norm(self.model, self.feed)

    @torch.no_grad()
    def run(self, writer: RunWriter, stream: DepthStream, images: bool) -> None:
        places = {(layer.module, layer.call): j for j, layer in enumerate(self.chosen, start=1)}
        kept, read = {}, set[int]()
        if images:
            assert self.image_shape is not None
            kept = {s: writer.rows(layout.images(s), (n, *self.image_shape), np.uint8) for s, n in self.counts.items()}

        def visit(name: str, call: int, inputs: Any, output: Any) -> None:
            if (j := places.get((name, call))) is not None:
                tensor = _expected(self.chosen[j - 1], output, len(batch.x))
                read.add(j)
                stream.take(j, self.forms[j].maps(tensor), self.forms[j].class_token(tensor))

        with eagerly(), tapped(self.model, visit, {layer.module for layer in self.chosen}):
            for batch in shown(self.feed, "extracting", shared=True):
                read.clear()
                self._require_size(batch.x)
                if batch.first is not None:
                    stream.begin_at(next(iter(batch.routes)), batch.first)
                stream.start_batch(batch.routes, len(batch.x))
                stream.take(0, self.forms[0].maps(batch.x))
                self.model(batch.x)
                _require_read(self.chosen, read)
                for split, rows in batch.routes.items() if kept else ():
                    assert batch.images is not None
                    kept[split].append(batch.images[rows])

    def _require_size(self, x: Tensor) -> None:
        size = tuple(self.depths[0].facts["source_shape"])
        if tuple(x.shape[1:]) != size:
            found, first = (" x ".join(map(str, shape)) for shape in (x.shape[1:], size))
            raise UserError(
                f"inputs of {found} come after inputs of {first}, but a run has one size. Bring them to one."
            )


def _expected(layer: Layer, output: Any, n: int) -> Tensor:
    """Return the tensor in a layer's output; raise UserError if it is not as in the first batch."""
    tensor = single_tensor(output)
    if tensor is None or layer.shape is None or tuple(tensor.shape) != (n, *layer.shape):
        found = type(output).__name__ if tensor is None else " x ".join(map(str, tensor.shape))
        raise UserError(
            f"layer {layer.name} returns {found} for a batch of {n}, but {n} x "
            f"{' x '.join(map(str, layer.shape or ()))} is expected, as in the first batch. Bring all inputs to one "
            "size, or choose other layers."
        )
    return tensor


def _require_read(chosen: Sequence[Layer], read: set[int]) -> None:
    """Raise UserError where a layer was not called for a batch: its rows would be taken for those of other images."""
    if missed := [layer.name for j, layer in enumerate(chosen, start=1) if j not in read]:
        raise UserError(
            f"layer {missed[0]} was called for the first images and not for later ones, so that these have no values "
            "there. Choose other layers."
        )


def shown(feed: Feed, what: str, only: str | None = None, *, shared: bool = False) -> Iterator[Batch]:
    """Yield the batches of a feed, or those of one split, under a progress bar. shared: as of `Feed.batches`."""
    with progress() as bar:
        total = sum(len(label) for split, label in feed.labels.items() if only in (None, split))
        task = bar.add_task(what, total=total // ranks.world() if shared else total)
        for batch in feed.batches(only, shared=shared):
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
