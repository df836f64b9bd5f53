"""The Python API of `layerwise`, as its `__all__` names it.

The functions do what the commands do. Those that write a run file return it opened for reading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import nn

from layerwise.config import DataConfig, NetworkConfig, RunConfig
from layerwise.configfile import read_config
from layerwise.datasets import Dataset
from layerwise.datasets.dataset import OWN
from layerwise.datasets.own import own_dataset
from layerwise.errors import UsageError, UserError
from layerwise.export import Exported, export_run
from layerwise.extraction.requests import ArraysRequest, Loaders, NetworkRequest, from_arrays, from_module
from layerwise.extraction.stores import MemoryStore
from layerwise.hardware import ordinary_torch, pick_device
from layerwise.model.custom import Network, register
from layerwise.model.loan import on_loan, unwrapped
from layerwise.recipes import recipe as recipe_named
from layerwise.runfile import RunFile
from layerwise.runfile.given import Run, opened, path_of
from layerwise.runfile.place import Place
from layerwise.settings import set_fields
from layerwise.spoken import python_call
from layerwise.training.run import train_run
from layerwise.units import DEFAULT_MAX_SIZE

# Of a configuration, where a call gives the data: what the folder of a recipe's own would be asked for.
_OWN_DATA = {"data.dataset": OWN, "data.subset": 0, "data.test_share": 0.0, "data.image_size": 0, "data.eval_resize": 0}


@python_call("layerwise-train")
def open_run(path: Run, network: Network | None = None, data_dir: Path | str | None = None) -> RunFile:
    """Open a run file for reading; use it as a context manager, or close it. It can be pickled, for workers.

    network: of a run of blocks of your own, what `train` was given; needed only where activations are computed again.
    data_dir: of a file that holds no images, their folder, for what needs them (CNN probes, other poolings, an atlas);
    None for where they were. Each file is compared with its digest.

    Raises UserError if it is missing, damaged, incomplete, or no run file.
    """
    given = None if network is None else register(network)
    run = RunFile(path_of(path), data_dir)
    trained = None if run.config is None else run.config.network
    if given is not None and (trained is None or not trained.factory):
        run.close()
        raise UserError(f"{run.path} holds no blocks of your own, and needs none. Leave out network.")
    if given is not None and trained is not None and not _are_same(given, trained):
        run.close()
        raise UserError(
            f"{run.path} was trained with other blocks, {trained.factory} (the SHA-256 or the name differs). Give as "
            "network what it was trained with: the same code, and of modules the same first weights."
        )
    return run


def _are_same(given: Mapping[str, Any], trained: NetworkConfig) -> bool:
    """Return whether registered blocks are those of a configuration; a file, which has one digest, may define many."""
    name = given["network.factory"].rpartition(":")[2]
    return (given["network.factory_sha256"], name) == (trained.factory_sha256, trained.factory.rpartition(":")[2])


@python_call("layerwise-train")
@ordinary_torch()
def train(
    recipe: str = "digits",
    *,
    out: Path | str,
    config: RunConfig | Path | str | None = None,
    data: Dataset | Mapping[str, Any] | None = None,
    data_name: str = "",
    network: Network | None = None,
    settings: Mapping[str, Any] | None = None,
    data_dir: Path | str | None = None,
    device: str = "auto",
    max_size: int = DEFAULT_MAX_SIZE,
    read: str = "auto",
    skip_broken: bool = False,
    force: bool = False,
    quiet: bool = False,
) -> RunFile:
    """Train a network block by frozen block, as `layerwise-train` does, and return its run file, opened.

    Args:
        recipe: the configuration to start from: "digits", "fashion-mnist", "cifar10-small" and others, which the error
            for an unknown one lists.
        out: run file to write.
        config: in place of a recipe: a configuration, or a run file or TOML file that holds one.
        data: your own, in place of the recipe's: {"train": ..., "test": ...} (and "validation"), each a pair (images,
            labels) or a data set of PyTorch with such items; images uint8 [n, C, H, W], or such divided by 255, labels
            numbers from 0 on or words. Or a data set of layerwise.datasets. The run file holds their SHA-256, and a
            stopped training goes on with no others. data_name: what files, tables and figures call them.
        network: blocks in place of the paper's: a function that returns a list of torch.nn.Module, one a block, or
            "path/to/file.py:factory"; or such a list or a Sequential, whose training begins with the weights it has.
        settings: fields that replace those of the recipe, by dotted path: {"network.k": 1, "training.epochs": 3};
            docs/settings.md has them all.
        data_dir: folder that holds the data set, where it is not bundled.
        device: auto, cpu or cuda.
        max_size: most bytes that the run file may take.
        read: of a folder of images, "memory", "stream" (decoded anew in each epoch), or "auto", what the machine has
            room for; the results are equal. skip_broken: leave out its files that cannot be read.
        force: replace `out` if it exists. quiet: show nothing meanwhile.

    Raises UserError where the command would print one line.
    """
    if data is not None and "data.dataset" in (settings or {}):
        raise UsageError('data and settings={"data.dataset": ...} both say what to train on. Leave out one of the two.')
    own = {} if network is None else register(network)
    own |= {} if data is None else _OWN_DATA | {"data.label": data_name}
    begun = recipe_named(recipe) if config is None else config
    begun = begun if isinstance(begun, RunConfig) else read_config(Path(begun))
    asked = set_fields(begun, {**own, **(settings or {})})
    place = Place(
        out=Path(out),
        device=pick_device(device),
        data_dir=None if data_dir is None else Path(data_dir),
        max_size=max_size,
        read=read,
        skip_broken=skip_broken,
        force=force,
        subset_is_most=config is None and "data.subset" not in (settings or {}),
    )
    train_run(asked, place, dataset=None if data is None else own_dataset(data, asked.data))
    return RunFile(out)


@python_call("layerwise-extract")
@ordinary_torch()
def extract_network(
    model: nn.Module,
    data: Dataset | Mapping[str, Any],
    *,
    out: Path | str,
    trained_on: str,
    label: str = "",
    seed: int = 0,
    layers: str | Sequence[str] = "auto",
    tokens: str = "patch",
    layout: str = "auto",
    image_size: int | None = None,
    mean: float | tuple[float, ...] | str | None = None,
    std: float | tuple[float, ...] | str | None = None,
    data_name: str = "data",
    classes: tuple[str, ...] = (),
    holdout: float = 0.1,
    batch_size: int = 64,
    store: str = "auto",
    dtype: str = "auto",
    max_size: int = DEFAULT_MAX_SIZE,
    device: str = "auto",
    force: bool = False,
    quiet: bool = False,
) -> RunFile:
    """Run a network once over data and keep every depth in a run file; return it, opened.

    Args:
        model: any network. It is read in eval mode, and left as it was: mode, gradients, buffers, device. If it was
            trained on nothing, its BatchNorm takes, and keeps, statistics of one label-free pass over the train fold.
        data: a data set of layerwise.datasets.load_dataset, whose uint8 images are preprocessed here; or PyTorch data
            loaders {"train": ..., "test": ...} (and "validation") of pairs (x, label), x as the network takes it.
        out: run file to write.
        trained_on: what the network was trained on: "nothing", "other-data", "train-fold", or "train-split" (the
            validation fold was seen, so there is none). After "train-fold" loaders need a "validation".
        label: what tables and figures call it; its class where empty. seed: tells repetitions apart, for averages.
        layers: "auto" (the output of each stage), or names and patterns, comma-separated or a list.
        tokens: of transformers: "patch", "class" to read the class token alone, "mean" of the patches, or "K+HxW": K
            tokens (a class token first), then patches on a grid of H x W.
        layout: where channels stand in what layers return: "auto" finds it out and says it; "channels-first" or
            "channels-last" overrule it, but for convolutions and the like, which have them first.
        image_size, mean, std: of the preprocessing of a data set: pixels of a side; values a channel, or "data".
        data_name, classes, holdout, batch_size: `data_name` and `classes` of loaders; share of train that becomes the
            validation fold of loaders without one; images of a data set in the network at once.
        store: "pooled", "maps", or "auto" (maps where they fit). max_size: most bytes the file may take.
        dtype: number type of what is kept: "float16", "float32", or "auto", float16 where it loses nothing.
        device: auto, cpu or cuda. force: replace `out` if it exists. quiet: say nothing of what was assumed.

    Raises UserError for layers that are not there, data that do not fit the network, or a file that would not fit.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"model is a {type(model).__name__}, but a torch.nn.Module, with its weights, is needed.")
    if not isinstance(data, Dataset | Mapping):
        raise UsageError(
            f"data is a {type(data).__name__}; expected a data set of layerwise.datasets.load_dataset, or loaders "
            'by name, {"train": ..., "test": ...} and, where wanted, "validation".'
        )
    place = Place(out=Path(out), device=pick_device(device), max_size=max_size, force=force)
    request = NetworkRequest(
        spec=type(model).__name__, trained_on=trained_on, label=label or None, seed=seed,
        layers=layers if isinstance(layers, str) else ",".join(layers), tokens=tokens, layout=layout,
        image_size=image_size, mean=_channels(mean), std=_channels(std), batch_size=batch_size,
    )  # fmt: skip
    given = (
        data if isinstance(data, Dataset) else Loaders(loaders=data, name=data_name, classes=classes, holdout=holdout)
    )
    with on_loan(unwrapped(model), settles=trained_on == "nothing") as lent:
        from_module(request, lent, given, place).write(place, store, dtype)
    return RunFile(out)


def _channels(values: float | tuple[float, ...] | str | None) -> tuple[float, ...] | str | None:
    return values if values is None or isinstance(values, str | tuple) else tuple(np.ravel(values).tolist())


@python_call("layerwise-extract")
@ordinary_torch()
def extract_arrays(
    arrays: Mapping[str, ArrayLike] | Path | str,
    *,
    out: Path | str,
    trained_on: str,
    label: str = "",
    seed: int = 0,
    layers: str = "auto",
    tokens: str = "patch",
    layout: str = "auto",
    data_name: str = "",
    holdout: float = 0.1,
    store: str = "auto",
    dtype: str = "auto",
    max_size: int = DEFAULT_MAX_SIZE,
    force: bool = False,
    quiet: bool = False,
) -> RunFile:
    """Keep activations that were computed elsewhere in a run file; return it, opened.

    Args:
        arrays: a file, .npz or .h5, or arrays by name: one [n, ...] a layer in the order of depth (one named "input" is
            depth 0), "labels" [n], and where wanted "splits" [n] (train, validation, test), "index" [n], "classes".
            Grouped arrays are named "train/layer1" and so on.
        out, trained_on, label, seed, layers, tokens, layout, holdout, store, dtype, max_size, force, quiet: as of
            `extract_network`.
        data_name: what the data go by in tables and figures; the name of the file where empty.

    Raises UserError for arrays that are no run: lengths that differ, labels missing, NaN, a file that would not fit.
    """
    if not isinstance(arrays, Mapping | Path | str):
        raise UsageError(
            f"arrays is a {type(arrays).__name__}; expected a file, or arrays by name, "
            '{"layer1": ..., "labels": ...}.'
        )
    source = MemoryStore(arrays) if isinstance(arrays, Mapping) else Path(arrays)
    request = ArraysRequest(
        arrays=source, trained_on=trained_on, label=label or None, seed=seed, layers=layers, tokens=tokens,
        layout=layout,
    )  # fmt: skip
    extraction = from_arrays(request, DataConfig(dataset="arrays", holdout=holdout, label=data_name))
    extraction.write(Place(out=Path(out), max_size=max_size, force=force), store, dtype)
    return RunFile(out)


@python_call("layerwise-export")
@ordinary_torch()
def export_network(
    run: Run,
    *,
    out: Path | str,
    depth: int | None = None,
    ensemble: str | None = None,
    takes: str = "uint8",
    force: bool = False,
) -> Exported:
    """Export a trained network up to a depth, as `layerwise-export` does, once its outputs are found to be the run's.

    Args:
        run: a run of `train`, by its path or open; one of blocks of your own by `open_run(path, network=...)`.
        out: file to write, .pt2 (PyTorch) or .onnx.
        depth: whose auxiliary classifier predicts; the last one by default.
        ensemble: join all auxiliaries up to that depth: "logits", "softmax" or "uniform"; None for the one alone.
        takes: "uint8" (pixels in 0..255), "float" (in [0, 1]), or "normalised" (x_0). The file maps such images
            [n, C, H, W] to logits float32 [n, n_classes], an ensemble to log-probabilities.
        force: replace `out` if it exists.

    Raises UserError where the command would print one line.
    """
    with opened(run) as one:
        return export_run(one, Path(out), depth=depth, weighting=ensemble, takes=takes, force=force)
