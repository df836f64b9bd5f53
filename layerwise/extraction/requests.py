"""Owns how a user's words become an extraction: which network with which weights on which data, or which arrays."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from layerwise.config import DataConfig
from layerwise.datasets import Dataset, load_configured
from layerwise.errors import UsageError
from layerwise.extraction import models as zoo
from layerwise.extraction.arrays import ArrayRun
from layerwise.extraction.inputs import DatasetFeed
from layerwise.extraction.networks import Extraction
from layerwise.extraction.origins import TRAINED_ON, Origin, Subject, Target, holdout_of
from layerwise.extraction.preprocessing import Preprocessing, Preset, Wishes, preprocessing_for
from layerwise.extraction.stores import ArrayStore, open_arrays
from layerwise.extraction.weights import load_weights
from layerwise.runfile.manifest import file_sha256

log = logging.getLogger("layerwise.extract")

Constants = tuple[float, ...] | str | None


@dataclass(frozen=True, kw_only=True)
class NetworkRequest:
    """What a user says of a network; fields as the options of layerwise-extract.

    is_written: whether a file is to be written, for which trained_on must be said; layers and bytes need it not.
    """

    spec: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    trained_on: str | None = None
    label: str | None = None
    seed: int = 0
    layers: str = "auto"
    tokens: str = "patch"
    image_size: int | None = None
    mean: Constants = None
    std: Constants = None
    batch_size: int = 64
    is_written: bool = True


def from_network(
    request: NetworkRequest, data: DataConfig, target: Target, *, download: bool = False
) -> tuple[Extraction, Origin, Subject]:
    """Build the network, load weights and data, and return what is to be extracted, its origin and its data.

    Raises UserError or UsageError for whatever of it cannot be.
    """
    foreign = zoo.build(request.spec, request.arguments, request.seed)
    trained_on = _trained_on(request, foreign.is_untrained)
    if request.weights is not None:
        load_weights(foreign.module, request.weights)
    holdout = holdout_of(trained_on, data.holdout)
    data = DataConfig(**{**asdict(data), "holdout": holdout})
    dataset = load_configured(data, target.data_dir, download=download)
    wishes = Wishes(image_size=request.image_size, mean=request.mean, std=request.std)
    made, preprocessing = on_images(
        foreign.module, dataset, target, wishes, request.layers, request.tokens, request.batch_size, foreign.preset
    )
    weights = None
    if request.weights is not None:
        weights = {"file": request.weights.name, "sha256": file_sha256(request.weights)}
    facts = {
        "kind": "network", "model": request.spec, "arguments": dict(request.arguments), "weights": weights,
        "layers": request.layers, "tokens": request.tokens, "preprocessing": preprocessing.facts(),
        "data": asdict(data),
    }  # fmt: skip
    label = request.label or (f"{foreign.name}, untrained" if trained_on == "nothing" else foreign.name)
    origin = Origin(label=label, trained_on=trained_on, seed=request.seed, facts=facts)
    return made, origin, subject_of(dataset, preprocessing)


def on_images(
    model: nn.Module,
    dataset: Dataset,
    target: Target,
    wishes: Wishes,
    layers: str,
    tokens: str,
    batch_size: int,
    preset: Preset | None = None,
) -> tuple[Extraction, Preprocessing]:
    """Return the extraction of a frozen network over a data set of images, and the preprocessing it uses."""
    preprocessing = preprocessing_for(model, preset, dataset, wishes)
    log.info("images: %s", _describe(preprocessing, dataset))
    feed = DatasetFeed(dataset, preprocessing, batch_size, target.device)
    convention = zoo.convention_of(model, tokens)
    return Extraction(model.to(target.device), feed, layers, convention), preprocessing


def subject_of(dataset: Dataset, preprocessing: Preprocessing) -> Subject:
    """Return what a run file says of a data set that a network saw by way of a preprocessing."""
    return Subject(
        name=dataset.name,
        classes=dataset.classes,
        mean=preprocessing.mean,
        std=preprocessing.std,
        fingerprint={name: split.fingerprint() for name, split in dataset.splits.items()},
    )


@dataclass(frozen=True, kw_only=True)
class ArraysRequest:
    """What a user says of arrays made elsewhere, in a file or in memory; fields as of `NetworkRequest`."""

    arrays: Path | ArrayStore
    trained_on: str | None = None
    label: str | None = None
    seed: int = 0
    layers: str = "auto"
    tokens: str = "patch"
    is_written: bool = True


def from_arrays(request: ArraysRequest, data: DataConfig) -> tuple[ArrayRun, Origin, Subject]:
    """Open arrays made elsewhere and return what is to be extracted, its origin and its data.

    Of `data`, holdout and label are read. Raises UserError or UsageError for whatever of it cannot be.
    """
    trained_on = request.trained_on or _unsaid("arrays do", "their network", request.is_written)
    store = open_arrays(request.arrays) if isinstance(request.arrays, Path) else request.arrays
    name = Path(store.name).stem if isinstance(request.arrays, Path) else "arrays"
    facts = {
        "kind": "arrays", "source": Path(store.name).name, "layers": request.layers, "tokens": request.tokens,
        "holdout": data.holdout,
    }  # fmt: skip
    origin = Origin(label=request.label or name, trained_on=trained_on, seed=request.seed, facts=facts)
    run = ArrayRun(store, layers=request.layers, tokens=request.tokens, trained_on=trained_on, holdout=data.holdout)
    return run, origin, run.subject(data.label or name)


def _trained_on(request: NetworkRequest, is_untrained: bool) -> str:
    given, spec = request.trained_on, request.spec
    if given is not None and given not in TRAINED_ON:
        Origin(label=spec, trained_on=given)  # raises
    if is_untrained and request.weights is None:
        if given not in (None, "nothing"):
            raise UsageError(f"{spec} without --weights is untrained, but --trained-on is {given}. Give its --weights.")
        return "nothing"
    if given is None:
        return _unsaid("the weights do" if request.weights else f"{spec} does", "the network", request.is_written)
    if given == "nothing" and request.weights is not None:
        raise UsageError("--trained-on nothing says that the network is untrained, but --weights gives it weights.")
    return given


def _unsaid(who: str, network: str, is_written: bool) -> str:
    """Return what stands for --trained-on where nothing is written; else raise UsageError, which asks for it."""
    say_it = (
        "Say it: --trained-on nothing, other-data or train-fold (the fold is unseen, so probes may choose on it), or "
        "train-split (it is not)."
    )
    unknown = f"{who} not say whether {network} has seen the validation fold."
    if is_written:
        raise UsageError(f"{unknown} {say_it}")
    log.info("%s To write the file, %s", unknown, say_it[0].lower() + say_it[1:])
    return "other-data"


def _describe(preprocessing: Preprocessing, dataset: Dataset) -> str:
    channels, height, width = dataset.image_shape
    steps = [f"{channels}x{height}x{width} as they are"]
    if preprocessing.channels != channels:
        steps.append(f"repeated to {preprocessing.channels} channels")
    if preprocessing.resize and preprocessing.resize != min(height, width):
        steps.append(f"resized to {preprocessing.resize} ({preprocessing.interpolation})")
    if preprocessing.crop and not preprocessing.crop == height == width:
        steps.append(f"the middle {preprocessing.crop} x {preprocessing.crop}")
    constants = (" ".join(f"{value:.3g}" for value in values) for values in (preprocessing.mean, preprocessing.std))
    return "; ".join([*steps, "mean {}, std {}".format(*constants)])
