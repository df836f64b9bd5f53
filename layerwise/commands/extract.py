"""The command layerwise-extract: its options and its output."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from layerwise import commandline, launch
from layerwise.commandline import INPUT, MACHINE, NETWORK, OUTPUT
from layerwise.commands.options import (
    DataDir,
    Device,
    Download,
    Force,
    MaxSize,
    Quiet,
    Read,
    RunOut,
    SkipBroken,
    Verbose,
    check_run_name,
    is_typed,
    takes_fields,
    warn_of_unread,
)
from layerwise.config import RunConfig
from layerwise.errors import UsageError
from layerwise.recipes import recipe
from layerwise.settings import set_fields
from layerwise.units import DEFAULT_SIZE

if TYPE_CHECKING:
    from layerwise.extraction.models.weights import Reading
    from layerwise.extraction.write import Extraction
    from layerwise.runfile.place import Place
    from layerwise.runfile.plan import Plan


Model = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="torchvision:NAME, timm:NAME, hf-hub:OWNER/NAME, or path/to/file.py:FACTORY, a function of yours that is "
        "run and returns the network.",
    ),
]
Arrays = Annotated[
    Path | None,
    typer.Option(
        "--from",
        help="Instead of MODEL: an .npz or .h5 with an array for each layer, labels, and splits.",
        rich_help_panel=INPUT,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        help="File of weights (torch.save or .safetensors), or the library's name of them: IMAGENET1K_V1, a timm tag, "
        "DEFAULT. Without it, or a tag in MODEL: untrained.",
        rich_help_panel=NETWORK,
    ),
]
WeightsKey = Annotated[
    str,
    typer.Option(
        "--weights-key", help="Where the state dict stands in a checkpoint, such as ema.model.", rich_help_panel=NETWORK
    ),
]
StripPrefix = Annotated[
    str,
    typer.Option(
        "--strip-prefix",
        help="What the names of the weights begin with, taken off; others are not read.",
        rich_help_panel=NETWORK,
    ),
]
AllowMissing = Annotated[
    str,
    typer.Option(
        "--allow-missing",
        help="Names that the weights may lack, with commas: the head, such as fc.",
        rich_help_panel=NETWORK,
    ),
]
Arguments = Annotated[
    list[str] | None,
    typer.Option(
        "--model-arg",
        metavar="NAME=VALUE",
        help="Argument of its constructor, such as num_classes=10.",
        rich_help_panel=NETWORK,
    ),
]
TrainedOn = Annotated[
    str | None,
    typer.Option(
        "--trained-on",
        help="What it was trained on: nothing, other-data, train-fold (not the validation fold), or train-split "
        "(all of it: then nothing is chosen on a fold). Needed to write, unless it is known to be untrained.",
        rich_help_panel=NETWORK,
    ),
]
Label = Annotated[
    str | None, typer.Option("--label", help="What tables and figures call the network.", rich_help_panel=NETWORK)
]
Seed = Annotated[
    int,
    typer.Option(
        "--seed",
        help="Seed of untrained weights; of trained ones, the seed of their training.",
        rich_help_panel=NETWORK,
    ),
]
Layers = Annotated[
    str,
    typer.Option(
        "--layers",
        help="auto (the output of each stage), or names and patterns with commas: blocks.*",
        rich_help_panel=NETWORK,
    ),
]
ListLayers = Annotated[
    bool,
    typer.Option(
        "--list-layers", help="Show name, kind and output of every layer, and stop there.", rich_help_panel=OUTPUT
    ),
]
Tokens = Annotated[
    str,
    typer.Option(
        "--tokens",
        help="Of transformers: patch (class token kept apart), class (it alone is read), mean (of the patches), or "
        "K+HxW: K tokens, then H x W patches, such as 1+14x16.",
        rich_help_panel=NETWORK,
    ),
]
Layout = Annotated[
    str,
    typer.Option(
        "--layout",
        help="Where layers put channels: auto (found out and said), channels-first or channels-last (overrules all "
        "layers but convolutions and the like).",
        rich_help_panel=NETWORK,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="data.label=NAME of the data in figures; data.image_size.",
        rich_help_panel=INPUT,
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        "--image-size",
        help="Pixels of a side of the network's input. Default: what it asks for.",
        rich_help_panel=INPUT,
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        "--mean",
        help="Mean a channel of images in [0, 1], with commas, or data (the train fold's).",
        rich_help_panel=INPUT,
    ),
]
Std = Annotated[
    str | None, typer.Option("--std", help="Standard deviation a channel, as --mean.", rich_help_panel=INPUT)
]
BatchSize = Annotated[int, typer.Option("--batch-size", help="Images in the network at once.", rich_help_panel=MACHINE)]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show the bytes of each depth, and stop there.", rich_help_panel=OUTPUT)
]

DEFAULTS = replace(recipe("digits"), store="auto")
BATCH_SIZE = 64


@takes_fields("data.dataset", "data.holdout", "data.subset", "data.test_share", "store", "dtype", defaults=DEFAULTS)
def extract(
    model: Model = None,
    arrays: Arrays = None,
    weights: Weights = None,
    weights_key: WeightsKey = "",
    strip_prefix: StripPrefix = "",
    allow_missing: AllowMissing = "",
    arguments: Arguments = None,
    trained_on: TrainedOn = None,
    label: Label = None,
    seed: Seed = 0,
    layers: Layers = "auto",
    list_layers: ListLayers = False,
    tokens: Tokens = "patch",
    layout: Layout = "auto",
    data_dir: DataDir = None,
    download: Download = False,
    read: Read = "auto",
    skip_broken: SkipBroken = False,
    settings: Settings = None,
    image_size: ImageSize = None,
    mean: Mean = None,
    std: Std = None,
    batch_size: BatchSize = BATCH_SIZE,
    max_size: MaxSize = DEFAULT_SIZE,
    device: Device = "auto",
    out: RunOut = Path("run.h5"),
    force: Force = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **fields: Any,
) -> None:
    """Run any network once over a data set, or take arrays, and keep every depth in one file.

    The file is a run file as layerwise-train writes it, so that every probe and figure works on it.

        layerwise-extract torchvision:resnet18 --dataset digits --image-size 32

        layerwise-extract torchvision:resnet18 --weights IMAGENET1K_V1

        layerwise-extract torchvision:resnet18 --weights w.pt --trained-on other-data

        layerwise-extract --from features.npz --trained-on other-data

    Next: probe-depth run.h5 --probe linear
    """
    commandline.set_verbosity(quiet, verbose)
    check_run_name(out)
    _check_source(model, arrays, batch_size, download=download, dry_run=dry_run)
    # By flag, what speaks of a network or its images; nothing where the flag was not given.
    of_images: dict[str, Any] = {
        "--weights": weights, "--weights-key": weights_key, "--strip-prefix": strip_prefix,
        "--allow-missing": allow_missing, "--model-arg": arguments, "--image-size": image_size, "--mean": mean,
        "--std": std,
        "--skip-broken": skip_broken, "--read": None if read == "auto" else read,
        "--batch-size": None if batch_size == BATCH_SIZE else batch_size, "--download": download,
    }  # fmt: skip
    said: dict[str, Any] = {
        "trained_on": trained_on, "label": label, "seed": seed, "layers": layers, "tokens": tokens, "layout": layout,
        "is_written": not (list_layers or dry_run),
    }  # fmt: skip
    _check_flags(arrays, of_images, data_dir, fields, settings or [])
    config = _configure(fields, settings or [])
    warn_of_unread(data_dir, config.data.dataset)
    place = _place(
        device=device, max_size=max_size, out=out, force=force, data_dir=data_dir, download=download,
        read=read, skip_broken=skip_broken,
    )  # fmt: skip
    from layerwise import ranks

    with ranks.joined(place.device):
        extraction = _of_network(model, of_images, said, config, place) if model else _of_arrays(arrays, said, config)
        plan = None if list_layers or dry_run else extraction.write(place, config.store, config.dtype)
    if launch.number():  # of several processes the first speaks for all
        return
    if list_layers:
        _print_layers(extraction)
    elif plan is None:
        _print_plan(extraction, place, config)
    else:
        _print_written(plan, place)


def _check_source(model: str | None, arrays: Path | None, batch_size: int, *, download: bool, dry_run: bool) -> None:
    if (model is None) == (arrays is None):
        raise UsageError("give either a network, such as torchvision:resnet18, or arrays by --from FILE.")
    if download and dry_run:
        raise UsageError("--dry-run writes nothing, so it cannot --download; fetch the data without --dry-run first.")
    if batch_size < 1:
        raise UsageError(f"--batch-size is {batch_size}, but must be a number of images of at least 1.")


def _check_flags(
    arrays: Path | None,
    of_images: Mapping[str, Any],
    data_dir: Path | None,
    fields: Mapping[str, Any],
    settings: Sequence[str],
) -> None:
    """Raise UsageError where a flag beside --from speaks of a network or its images."""
    if arrays is None:
        return
    given = {
        **of_images, "--dataset": "data.dataset" in fields, "--subset": "data.subset" in fields,
        "--test-share": "data.test_share" in fields, "--fold-seed": "data.fold_seed" in fields,
        "--data-dir": is_typed(data_dir),
        "--set data.image_size": any(setting.startswith("data.image_size") for setting in settings),
    }  # fmt: skip
    if flags := [flag for flag, value in given.items() if value]:
        raise UsageError(f"{flags[0]} speaks of a network or its images, but --from reads arrays; leave it out.")


def _place(*, device: str, max_size: str, **words: Any) -> Place:
    from layerwise.hardware import pick_device
    from layerwise.runfile.place import Place
    from layerwise.units import parse_size

    return Place(device=pick_device(device), max_size=parse_size(max_size), **words)


def _of_arrays(arrays: Path | None, said: Mapping[str, Any], config: RunConfig) -> Extraction:
    from layerwise.extraction.requests import ArraysRequest, from_arrays

    assert arrays is not None  # _check_source
    return from_arrays(ArraysRequest(arrays=arrays, **said), config.data)


def _of_network(
    spec: str, of_images: Mapping[str, Any], said: Mapping[str, Any], config: RunConfig, place: Place
) -> Extraction:
    from layerwise.extraction.requests import NetworkRequest, from_network

    request = NetworkRequest(
        spec=spec,
        arguments=_arguments(of_images["--model-arg"] or []),
        weights=of_images["--weights"],
        reading=_reading(of_images),
        image_size=of_images["--image-size"],
        mean=_constants("--mean", of_images["--mean"]),
        std=_constants("--std", of_images["--std"]),
        batch_size=of_images["--batch-size"] or BATCH_SIZE,
        **said,
    )
    return from_network(request, config.data, place)


def _reading(given: Mapping[str, Any]) -> Reading:
    from layerwise.extraction.models.weights import Reading

    flags = ("--weights-key", "--strip-prefix", "--allow-missing")
    if given["--weights"] is None and (lone := [flag for flag in flags if given[flag]]):
        raise UsageError(f"{lone[0]} speaks of a file of weights. Give it by --weights.")
    names = tuple(name.strip() for name in given["--allow-missing"].split(",") if name.strip())
    return Reading(key=given["--weights-key"], strip_prefix=given["--strip-prefix"], allow_missing=names)


def _print_layers(extraction: Extraction) -> None:
    from layerwise.extraction.layers import describe_layers
    from layerwise.extraction.networks import NetworkExtraction

    if isinstance(extraction, NetworkExtraction):
        print("\n".join(describe_layers(extraction.layers, extraction.chosen)))
        commandline.log.info("* marks the layers that are read; --layers takes others, by name or pattern")
        return
    for j, depth in extraction.depths.items():
        print(f"{j:>5}  {depth.module}  {' x '.join(map(str, depth.facts['source_shape']))}  {depth.facts['form']}")


def _print_plan(extraction: Extraction, place: Place, config: RunConfig) -> None:
    from layerwise.extraction.write import describe_plan, ways
    from layerwise.runfile.plan import require_room

    plan = extraction.plan(config.store, place.max_size, dtype=config.dtype)
    print("\n".join(describe_plan(plan)))
    require_room(plan, place.max_size, place.out, ways=ways())
    print("nothing was written: the same command without --dry-run does it")


def _print_written(plan: Plan, place: Place) -> None:
    for j, depth in plan.depths.items():
        print(f"{j:>5}  {depth.module:<24}  {' x '.join(map(str, depth.shape)):<15}  {depth.facts['form']}")
    print(f"wrote {place.out}")
    commandline.log.info("next: probe-depth %s --probe linear", place.out)


def _configure(fields: Mapping[str, Any], settings: Sequence[str]) -> RunConfig:
    """Return the configuration of data and store, validated as that of a training is."""
    values = dict(fields)
    for text in settings:
        path, equals, value = (word.strip() for word in text.partition("="))
        if not equals or path not in ("data.label", "data.image_size"):
            raise UsageError(f"--set {text!r} is not understood; it takes data.label=NAME or data.image_size=PIXELS.")
        values[path] = value
    return set_fields(DEFAULTS, values)


def _arguments(words: list[str]) -> dict[str, Any]:
    """Return constructor arguments: Python's numbers, tuples, True and False where they read so, else text."""
    found: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--model-arg {word!r} is not understood; write NAME=VALUE, such as num_classes=10.")
        try:
            found[name] = ast.literal_eval(text)
            json.dumps(found[name])  # what the file says of it
        except (ValueError, SyntaxError, TypeError):
            found[name] = text
    return found


def _constants(flag: str, text: str | None) -> tuple[float, ...] | str | None:
    if text is None or text == "data":
        return text
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise UsageError(f"{flag} is {text!r}, but takes numbers with commas, or data.") from None


def extract_command() -> NoReturn:
    """Run layerwise-extract."""
    commandline.run(extract, "layerwise-extract")
