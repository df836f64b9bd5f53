"""From a user's words to an extraction: which network with which weights on which data, or which arrays."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import nn

from layerwise.config import DataConfig
from layerwise.datasets import Dataset, load_configured
from layerwise.datasets.reading import ImageReading
from layerwise.errors import UsageError, option
from layerwise.extraction.arrays import ArrayExtraction
from layerwise.extraction.inputs import DatasetFeed, LoaderFeed
from layerwise.extraction.models import spec as zoo
from layerwise.extraction.models.libraries import timm_preset
from layerwise.extraction.models.weight_files import WEIGHT_SUFFIXES
from layerwise.extraction.models.weights import AS_IT_IS, Reading, load_weights
from layerwise.extraction.networks import NetworkExtraction
from layerwise.extraction.origins import TRAINED_ON, Origin, fingerprint_of, holdout_of, require_fold
from layerwise.extraction.preprocessing import Preprocessing, Preset, Wishes, preprocessing_for
from layerwise.extraction.stores import ArrayStore, open_arrays
from layerwise.model.loan import require_readable
from layerwise.runfile.manifest import file_sha256
from layerwise.runfile.place import Place
from layerwise.runfile.writer import dataset_attribute
from layerwise.sharing import loaded_once

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
    reading: Reading = AS_IT_IS
    trained_on: str | None = None
    label: str | None = None
    seed: int = 0
    layers: str = "auto"
    tokens: str = "patch"
    layout: str = "auto"
    image_size: int | None = None
    mean: Constants = None
    std: Constants = None
    batch_size: int = 64
    is_written: bool = True


def from_network(request: NetworkRequest, data: DataConfig, place: Place) -> NetworkExtraction:
    """Build the network, load its weights and the data, and return what is to be extracted.

    Raises UserError or UsageError for whatever of it cannot be.
    """
    word = _word_of(request)
    foreign = zoo.build(request.spec, request.arguments, request.seed, word)
    request = request if word is None else replace(request, weights=None)
    trained_on = _trained_on(request, foreign)
    facts: dict[str, Any] = {} if foreign.weights is None else {"weights": dict(foreign.weights)}
    missing: list[str] = []
    if request.weights is not None:
        missing = load_weights(foreign.module, request.weights, request.reading)
        facts["weights"] = {
            "file": request.weights.name,
            "sha256": file_sha256(request.weights),
            **_said(request.reading),
        }
    data = replace(data, holdout=holdout_of(trained_on, data.holdout))
    label = request.label or (f"{foreign.name}, untrained" if trained_on == "nothing" else foreign.name)
    request = replace(request, trained_on=trained_on, label=label)
    reading = ImageReading(how=place.read, workers=place.workers, skip_broken=place.skip_broken)
    dataset = loaded_once(lambda: load_configured(data, place.data_dir, download=place.download, reading=reading))
    found = from_module(request, foreign.module, dataset, place, facts | {"data": asdict(data)}, foreign.preset)
    found.require_unread(missing)
    return found


def _word_of(request: NetworkRequest) -> str | None:
    """Return the library's name of the weights that are asked for, where they are asked for by name and not by file."""
    word = "" if request.weights is None else str(request.weights)
    of_library = request.spec.partition(":")[0] in ("torchvision", "timm")
    if not of_library or not word or Path(word).exists() or "/" in word or Path(word).suffix in WEIGHT_SUFFIXES:
        return None
    return word


def _said(reading: Reading) -> dict[str, Any]:
    """Return what the file says of how the weights were read, where a user said something."""
    return {name: value for name, value in asdict(reading).items() if value}


def from_module(
    request: NetworkRequest,
    model: nn.Module,
    data: Dataset | Loaders,
    place: Place,
    facts: Mapping[str, Any] = MappingProxyType({}),
    preset: Preset | None = None,
) -> NetworkExtraction:
    """Return the extraction of a frozen network over a data set of images, or over loaders of its own inputs.

    facts: what the file says of weights and data, where they are known. preset: how the network asks for its images.
    """
    assert request.trained_on is not None
    require_readable(model, settles=request.trained_on == "nothing")
    preprocessing = None
    feed: DatasetFeed | LoaderFeed
    if isinstance(data, Dataset):
        if request.trained_on == "train-split" and "validation" in data.splits:
            raise UsageError(
                f"{option('trained_on', 'train-split')} says that no fold is unseen, but the data set has one; load it "
                "by holdout=0."
            )
        preset = preset or timm_preset(model)
        if preset is None and request.trained_on != "nothing":
            _warn_of_preprocessing(request)
        wishes = Wishes(image_size=request.image_size, mean=request.mean, std=request.std)
        preprocessing = preprocessing_for(model.to(place.device), preset, data, wishes)
        log.info("images: %s", _describe(preprocessing, data))
        feed = DatasetFeed(data, preprocessing, request.batch_size, place.device)
        about = _about_images(data, preprocessing)
    else:
        require_fold(request.trained_on, "validation" in data.loaders, "the mapping of loaders")
        feed = LoaderFeed(data.loaders, holdout_of(request.trained_on, data.holdout), place.device)
        about = _about_loaders(feed, data)
    known = {
        "kind": "network", "model": request.spec, "arguments": dict(request.arguments), "weights": None, "data": None,
        "layers": request.layers, "tokens": request.tokens, "layout": request.layout,
        "preprocessing": None if preprocessing is None else preprocessing.facts(),
    }  # fmt: skip
    label = request.label or request.spec
    origin = Origin(label=label, trained_on=request.trained_on, seed=request.seed, facts=known | dict(facts))
    convention = zoo.convention_of(model, request.tokens, request.layout)
    return NetworkExtraction(model.to(place.device), feed, request.layers, convention, origin, about)


def _warn_of_preprocessing(request: NetworkRequest) -> None:
    """Say what is assumed where neither the network nor its user says how it takes its images.

    The size is what it was in the training of a network that was trained on these images.
    """
    words = {"image_size": "size", "mean": "mean", "std": "deviation"}
    if request.trained_on != "other-data":
        del words["image_size"]
    if missing := [name for name in words if getattr(request, name) is None]:
        *first, last = (words[name] for name in missing)
        taken = f"{', '.join(first)} and {last} of these images are" if first else f"{last} of these images is"
        log.warning(
            "%s does not say how it takes its images: %s taken. Give %s as in its training.",
            request.spec, taken, ", ".join(option(name) for name in missing),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Loaders:
    """PyTorch data loaders by split, of a network's own inputs, and what is said of their data.

    classes: names, where there are any. holdout: share of train that becomes the fold of loaders without one.
    """

    loaders: Mapping[str, Any]
    name: str
    classes: tuple[str, ...]
    holdout: float


def _about_images(data: Dataset, preprocessing: Preprocessing) -> str:
    """Return the attribute `dataset` of images that a network sees by way of a preprocessing."""
    prints = {name: split.fingerprint() for name, split in data.splits.items()}
    return dataset_attribute(data.name, data.classes, preprocessing.mean, preprocessing.std, prints)


def _about_loaders(feed: LoaderFeed, data: Loaders) -> str:
    """Return the attribute `dataset` of loaders, of whose inputs nothing is known."""
    count = 1 + max(int(label.max()) for label in feed.labels.values())
    names = data.classes or tuple(str(c) for c in range(count))
    if len(names) < count:
        raise UsageError(f"classes names {len(names)}, but labels reach to {count - 1}; name every class.")
    prints = {split: fingerprint_of(label, feed.index[split]) for split, label in feed.labels.items()}
    return dataset_attribute(data.name, names, (), (), prints)


@dataclass(frozen=True, kw_only=True)
class ArraysRequest:
    """What a user says of arrays made elsewhere, in a file or in memory; fields as of `NetworkRequest`."""

    arrays: Path | ArrayStore
    trained_on: str | None = None
    label: str | None = None
    seed: int = 0
    layers: str = "auto"
    tokens: str = "patch"
    layout: str = "auto"
    is_written: bool = True


def from_arrays(request: ArraysRequest, data: DataConfig) -> ArrayExtraction:
    """Open arrays made elsewhere and return what is to be extracted.

    Of `data`, holdout and label are read. Raises UserError or UsageError for whatever of it cannot be.
    """
    trained_on = request.trained_on or _unsaid("arrays do", "their network", request.is_written)
    store = open_arrays(request.arrays) if isinstance(request.arrays, Path) else request.arrays
    name = _printable(Path(store.name).stem) if isinstance(request.arrays, Path) else "arrays"
    facts = {
        "kind": "arrays", "source": Path(store.name).name, "layers": request.layers, "tokens": request.tokens,
        "layout": request.layout, "holdout": data.holdout,
    }  # fmt: skip
    origin = Origin(label=request.label or name, trained_on=trained_on, seed=request.seed, facts=facts)
    return ArrayExtraction(
        store, origin, layers=request.layers, tokens=request.tokens, layout=request.layout, holdout=data.holdout,
        name=data.label or name,
    )  # fmt: skip


def _trained_on(request: NetworkRequest, foreign: zoo.Foreign) -> str:
    given, spec, is_untrained = request.trained_on, request.spec, foreign.is_untrained
    if given is not None and given not in TRAINED_ON:
        Origin(label=spec, trained_on=given)  # raises
    if is_untrained and request.weights is None:
        if given not in (None, "nothing"):
            raise UsageError(
                f"{spec} without {option('weights')} is untrained, but {option('trained_on')} is {given}. Give its "
                f"{option('weights')}."
            )
        return "nothing"
    if given is None and foreign.weights is not None and request.weights is None:
        log.info(
            "the weights %s were trained elsewhere, which is taken as %s; where their images were yours, say %s",
            foreign.weights["name"], option("trained_on", "other-data"), option("trained_on", "train-split"),
        )  # fmt: skip
        return "other-data"
    if given is None:
        return _unsaid("the weights do" if request.weights else f"{spec} does", "the network", request.is_written)
    if given == "nothing" and (request.weights is not None or foreign.weights is not None):
        raise UsageError(
            f"{option('trained_on', 'nothing')} says that the network is untrained, but {option('weights')} gives it "
            "weights."
        )
    return given


def _unsaid(who: str, network: str, is_written: bool) -> str:
    """Return what stands for --trained-on where nothing is written; else raise UsageError, which asks for it."""
    say_it = (
        f"Say it: {option('trained_on')} nothing, other-data or train-fold (the fold is unseen, so probes may choose "
        "on it), or train-split (it is not)."
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


def _printable(name: str) -> str:
    """Return the name of a file as a name of data: a file's may hold line feeds, and bytes that are no text."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)
