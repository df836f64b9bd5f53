"""The one way to the activations of a depth: stored maps where the file has them, else recomputed.

Every reader of activations (probes, analysis) asks here and does not know which it gets. Stored values are
rounded to float16 where they fit; recomputed ones are float32 from the frozen blocks of the file and its images or,
where it holds none, the folder that these came from (`layerwise.images`).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerwise.datasets.dataset import OWN
from layerwise.errors import UsageError, UserError, unknown
from layerwise.extraction.preprocessing import Preprocessing
from layerwise.hardware import exact_float32
from layerwise.images import Images, NoImages, images_of, reread_images
from layerwise.model.blocks import average
from layerwise.model.maps import maps_of, rows_within
from layerwise.model.narrowing import narrow_all
from layerwise.model.network import LayerwiseNetwork, Normalisation, freeze
from layerwise.runfile import Rows, RunFile
from layerwise.runfile.given import Run, opened, path_of
from layerwise.runfile.layout import POOL_SIDE
from layerwise.spoken import python_call

SOURCES = ("auto", "stored", "recompute", "folder")
READ_BATCH = 256


class Activations:
    """x_j of one split: maps [n, C, H, W] by any rows, float32, on the device that will use them.

    source: "stored", "recompute" (from images in the file) or "folder" (from those that it was made of), as chosen.
    at_once: images that are read and computed together where nobody asks for a number of them: READ_BATCH, or fewer
    where their maps are so large that memory would not hold them.
    """

    def __init__(
        self,
        rows: Images,
        compute: Callable[[Tensor], Tensor] | None,
        depth: int,
        device: torch.device,
        at_once: int = READ_BATCH,
    ):
        self._rows = rows
        self._compute = compute
        self._depth = depth
        self._device = device
        self.at_once = at_once
        self.source = "stored" if compute is None else "recompute" if isinstance(rows, Rows) else "folder"

    def __repr__(self) -> str:
        return f"Activations(depth {self._depth}, {len(self)} images, {self.source}, on {self._device})"

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def is_contiguous(self) -> bool:
        """Whether a thread of its own may `read`, since no HDF5 handle is needed for it."""
        return getattr(self._rows, "is_contiguous", True)  # an array in memory is read by anybody

    @property
    def row_bytes(self) -> int:
        """Bytes that are read for one sample."""
        return self._rows.nbytes // max(1, len(self._rows))

    def __getitem__(self, key: Any) -> Tensor:
        """Return what the same subscript of all x_j, [n, C, H, W], would be; the first axis is that of the samples.

        Raises IndexError where it does not begin with rows.
        """
        first, *rest = key if isinstance(key, tuple) and key else (key,)
        if first is None or first is Ellipsis:
            raise IndexError("activations are read by samples first: give rows, a slice or a mask of them")
        numbers = np.arange(len(self))[first]
        x = self.compute(self.read(np.ravel(numbers)))
        x = x.reshape(*np.shape(numbers), *x.shape[1:])
        return x[(*[slice(None)] * np.ndim(numbers), *rest)] if rest else x

    def read(self, rows: slice | np.ndarray) -> np.ndarray:
        """Return rows as they are kept: maps in their own type, or uint8 images; `compute` makes x_j of them."""
        return np.ascontiguousarray(self._rows[rows])

    def compute(self, values: np.ndarray) -> Tensor:
        """Return x_j [n, C, H, W] on the device from what `read` returned."""
        x = torch.from_numpy(values).to(self._device)
        if self._compute is None:
            return x.to(torch.float32)
        with torch.no_grad(), exact_float32():
            parts = [self._compute(part) for part in x.split(self.at_once)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def batches(self, size: int | None = None) -> Iterator[Tensor]:
        """Yield all rows in order, `size` at a time, or `at_once`."""
        size = size or self.at_once
        for start in range(0, len(self), size):
            yield self[start : start + size]


@python_call("layerwise-extract")
def open_activations(
    run: Run,
    depth: int,
    split: str,
    *,
    source: str = "auto",
    device: torch.device | None = None,
    data_dir: Path | str | None = None,
) -> Activations:
    """Return the activations x_j of one depth and split.

    Args:
        run: a run file, open or by its path; a path is opened for as long as the activations are in use.
        depth: 0 (the normalised image) to J.
        source: "stored" (maps in the file), "recompute" (images, of the file or else of their folder, and blocks),
            "folder" (of their folder in any case), or "auto": stored if they are there, else recomputed.
        data_dir: the folder of the images, where the file holds none; None for the one they were in. Each file of it
            is compared with its digest.

    Raises:
        UserError: the file lacks what the source needs, with the command that would store it; or images that are not
            what the run was made of.
    """
    if data_dir is not None:
        run = run.reopened(data_dir) if isinstance(run, RunFile) else RunFile(path_of(run), data_dir)
    return read_activations(run, depth, split, source=source, device=device)


def read_activations(
    run: Run, depth: int, split: str, *, source: str = "auto", device: torch.device | None = None
) -> Activations:
    """Return what `open_activations` returns, with errors in the words of whoever calls."""
    if source not in SOURCES:
        raise unknown("source", source, SOURCES)
    device = device or torch.device("cpu")
    run = run if isinstance(run, RunFile) else RunFile(path_of(run))
    run = run.reopened() if run.is_closed else run  # which refuses another file that took its name
    maps = stored_maps(run, depth, split)
    if source == "stored" or (source == "auto" and maps is not None):
        if maps is None:
            raise UserError(f"{run.path} holds no whole maps of depth {depth}. {_again(run, '--store maps')}")
        return Activations(maps, None, depth, device, rows_within(READ_BATCH, prod(run.depth_shape(depth))))
    if (compute := _computed(run, depth, device)) is None:
        raise UserError(f"{run.path} holds no blocks{_nor_maps(source)}. {_again(run, '--store maps')}")
    return Activations(require_images(run, split, source), compute, depth, device, _at_once(run, depth))


def require_images(run: RunFile, split: str, source: str = "auto") -> Images:
    """Return the uint8 images of a split; raise UserError, with the command that keeps them, where there are none."""
    try:
        return reread_images(run, split) if source == "folder" else images_of(run, split)
    except NoImages as error:
        lacking = f"{run.path} holds no images{_nor_maps(source)}"
        raise UserError(f"{lacking}. {error} {_again(run, '--max-size SIZE')}") from None


@python_call("probe-depth")
def pooled_features(
    run: Run, depth: int, split: str, *, side: int = POOL_SIDE, device: torch.device | None = None
) -> np.ndarray:
    """Return A x_j flattened, float32 [n, C side side], or x_j itself, [n, C H W], for side 0.

    Stored pooled features serve where the file has them, else maps are averaged.

    Raises:
        UserError: maps smaller than side x side, or a file that has neither maps nor what computes them.
    """
    return read_pooled(run, depth, split, side=side, device=device)


def read_pooled(
    run: Run, depth: int, split: str, *, side: int = POOL_SIDE, device: torch.device | None = None
) -> np.ndarray:
    """Return what `pooled_features` returns, with errors in the words of whoever calls."""
    with opened(run) as one:
        stored = one.pooled(depth, split) if side == POOL_SIDE else None
        if stored is not None:
            return stored[:].reshape(len(stored), -1).astype(np.float32, copy=False)
        return np.concatenate(list(pooled_batches(one, depth, split, side=side, device=device)))


def pooled_batches(
    run: RunFile, depth: int, split: str, *, side: int, device: torch.device | None = None,
    rows: slice = slice(None),
) -> Iterator[np.ndarray]:  # fmt: skip
    """Yield what `pooled_features` returns in batches, always averaged from whole maps; raise as it does.

    rows: a slice of step 1 of those that are wanted.
    """
    height, width = run.depth_shape(depth)[1:]
    if not isinstance(side, int | np.integer) or side < 0:
        raise UsageError(f"side is {side!r}; expected that of the average A, from 1 on, or 0 for x_j as it is.")
    if side > min(height, width):
        raise UserError(
            f"depth {depth} has maps of {height}x{width}, which cannot be averaged to {side}x{side}. Leave this depth "
            "out by --depths, or give a smaller --pool."
        )
    maps = read_activations(run, depth, split, device=device)
    first, stop, _ = rows.indices(len(maps))
    for start in range(first, stop, maps.at_once):
        x = maps[start : min(start + maps.at_once, stop)]
        yield (average(x, side) if side else x).flatten(1).cpu().numpy()


def _computed(run: RunFile, depth: int, device: torch.device) -> Callable[[Tensor], Tensor] | None:
    """Return what makes x_j of images: the blocks of the file; of a network built elsewhere its preprocessing alone."""
    if depth == 0 and run.config is not None and run.weights("blocks", 1) is not None:
        constants = run.dataset["normalisation"]
        return Normalisation(tuple(constants["mean"]), tuple(constants["std"])).to(device)
    if (network := load_network(run, device)) is not None:
        return lambda images: network.advance(network.normalise(images), 0, depth)
    facts = (run.extraction or {}).get("preprocessing")
    return Preprocessing.from_facts(facts) if depth == 0 and facts else None


def stored_maps(run: RunFile, depth: int, split: str) -> Rows | None:
    """Return x_j [n, C, H, W] as the file holds it: whole maps, or A x_j where A changes nothing."""
    maps = run.maps(depth, split)
    if maps is None and (pooled := run.pooled(depth, split)) is not None:
        is_whole = pooled.shape[1:] == run.depth_shape(depth)
        return pooled if is_whole and run.config is None else None
    return maps


def pooled_width(run: RunFile, depth: int, side: int) -> int:
    """Return the number of features that `pooled_features` gives an image."""
    stored = run.pooled(depth, run.splits[0]) if side == POOL_SIDE else None
    if stored is not None:
        return int(np.prod(stored.shape[1:]))
    channels, height, width = run.depth_shape(depth)
    return channels * (side**2 or height * width)


def load_network(run: RunFile, device: torch.device) -> LayerwiseNetwork | None:
    """Return the frozen network that a run file holds, on `device`, or None for a file without blocks."""
    config, info = run.config, run.dataset
    if config is None or run.weights("blocks", 1) is None:
        return None
    normalisation = info["normalisation"]
    network = LayerwiseNetwork(
        config.network,
        run.depth_shape(0),
        len(info["classes"]),
        tuple(normalisation["mean"]),
        tuple(normalisation["std"]),
        config.seed,
    )
    if config.network.prune_to:
        narrow_all(network, range(1, config.network.depth + 1))
    for kind, modules in (("blocks", network.blocks), ("auxiliaries", network.auxiliaries)):
        for j, module in enumerate(modules, start=1):
            weights = run.weights(kind, j)
            if weights is not None:
                shape = {name: tensor.shape for name, tensor in module.state_dict().items()}
                try:
                    module.load_state_dict({n: torch.from_numpy(v).reshape(shape[n]) for n, v in weights.items()})
                except (KeyError, RuntimeError):
                    raise UserError(
                        f"{run.path} is damaged: {kind} {j} lacks weights of its configuration. Take an intact copy."
                    ) from None
    freeze(network)
    return network.to(device)


def _at_once(run: RunFile, depth: int) -> int:
    """Return how many images are computed together up to a depth."""
    image, config = run.depth_shape(0), run.config
    if config is None or depth == 0:
        return rows_within(READ_BATCH, 3 * prod(image))
    return rows_within(READ_BATCH, maps_of(config.network, image, len(run.dataset["classes"])).forward(depth))


def _nor_maps(source: str) -> str:
    return " and no whole maps" if source == "auto" else ""


def _again(run: RunFile, flag: str) -> str:
    if run.extraction is not None:
        # A network built elsewhere is not in the file, so whole maps must be; and only /provenance knows every option.
        program, *words = json.loads(run.provenance.get("command", '[""]'))
        is_command = Path(program).name == "layerwise-extract"
        made = f" (`{shlex.join(['layerwise-extract', *words])}`)" if is_command else ""
        return f"Make it again with --store maps and another --out, as /provenance says it was made{made}."
    if run.config is None:
        return f"Make it again with {flag}."
    # The file knows its configuration, but not where the images are, nor blocks and data of one's own.
    own = ["the same network"] if run.config.network.factory else []
    if run.config.data.dataset != "digits":
        own.append("the same images" if run.config.data.dataset == OWN else "the folder of its images, --data-dir")
    beside = f" with {' and '.join(own)}" if own else ""
    again = f"layerwise-train --config {run.path.name} {flag} --out {run.path.stem}-again.h5"
    return f"Make it again with them{',' if own else ''}{beside}: `{again}`"
