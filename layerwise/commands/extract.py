"""Owns the command layerwise-extract: its words and its output, nothing of its work."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from layerwise import commandline
from layerwise.commands.options import DataDir, Device, Quiet, Verbose
from layerwise.config import DataConfig, set_fields
from layerwise.datasets import DATASETS
from layerwise.errors import UsageError
from layerwise.recipes import recipe

if TYPE_CHECKING:
    from layerwise.extraction.arrays import ArrayRun
    from layerwise.extraction.networks import Extraction
    from layerwise.extraction.origins import Origin, Subject, Target


def extract(
    network: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="torchvision:NAME, timm:NAME, or path/to/file.py:FACTORY, a function of yours that is run and returns "
            "the network.",
        ),
    ] = None,
    arrays: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Instead of MODEL: an .npz or .h5 with an array for each layer, labels, and splits."
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option("--weights", help="Saved state dict (torch.save or .safetensors). Without it: untrained."),
    ] = None,
    arguments: Annotated[
        list[str] | None,
        typer.Option("--model-arg", metavar="NAME=VALUE", help="Argument of its constructor, such as num_classes=10."),
    ] = None,
    trained_on: Annotated[
        str | None,
        typer.Option(
            "--trained-on",
            help="What it was trained on: nothing, other-data, train-fold (not the validation fold), or train-split "
            "(all of it: then nothing is chosen on a fold). Needed to write, unless it is known to be untrained.",
        ),
    ] = None,
    label: Annotated[str | None, typer.Option("--label", help="What tables and figures call the network.")] = None,
    seed: Annotated[
        int, typer.Option("--seed", help="Seed of untrained weights; of trained ones, the seed of their training.")
    ] = 0,
    layers: Annotated[
        str,
        typer.Option("--layers", help="auto (the output of each stage), or names and patterns with commas: blocks.*"),
    ] = "auto",
    list_layers: Annotated[
        bool, typer.Option("--list-layers", help="Show name, kind and output of every layer, and stop there.")
    ] = False,
    tokens: Annotated[
        str,
        typer.Option("--tokens", help="Of transformers: patch (class token kept apart), or class (it alone is read)."),
    ] = "patch",
    dataset: Annotated[str, typer.Option("--dataset", help=f"{', '.join(DATASETS[:-1])}, or imagefolder.")] = "digits",
    data_dir: DataDir = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch the data set into --data-dir if it is not there.")
    ] = False,
    subset: Annotated[
        int, typer.Option("--subset", help="Use so many images of the train split, stratified by class; 0 for all.")
    ] = 0,
    holdout: Annotated[
        float, typer.Option("--holdout", help="Share of the train split set apart for validation.")
    ] = 0.1,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="data.label=NAME of the data in figures; data.image_size."),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option("--image-size", help="Pixels of a side of the network's input. Default: what it asks for."),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option("--mean", help="Mean a channel of images in [0, 1], with commas, or data (the train fold's)."),
    ] = None,
    std: Annotated[str | None, typer.Option("--std", help="Standard deviation a channel, as --mean.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Images in the network at once.")] = 64,
    store: Annotated[
        str,
        typer.Option("--store", help="pooled (A x_j, 2x2), maps (x_j whole beside it), or auto (maps where they fit)."),
    ] = "auto",
    max_size: Annotated[str, typer.Option("--max-size", help="Most that the run file may take.")] = "8GB",
    device: Device = "auto",
    out: Annotated[Path, typer.Option("--out", "-o", help="Run file to write.")] = Path("run.h5"),
    force: Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the bytes of each depth, and stop there.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run any network once over a data set, or take arrays, and keep every depth in one file.

    The file is a run file as layerwise-train writes it, so that every probe and figure works on it.

        layerwise-extract torchvision:resnet18 --dataset digits --image-size 32

        layerwise-extract torchvision:resnet18 --weights w.pt --trained-on other-data

        layerwise-extract --from features.npz --trained-on other-data

    Next: probe-depth run.h5 --probe linear
    """
    commandline.set_verbosity(quiet, verbose)
    if out.suffix != ".h5" or out.name.endswith(".predictions.h5"):
        raise UsageError(f"--out is {str(out)!r}, but a run file's name ends in .h5, and not in .predictions.h5.")
    if (network is None) == (arrays is None):
        raise UsageError("give either a network, such as torchvision:resnet18, or arrays by --from FILE.")
    if download and dry_run:
        raise UsageError("--dry-run does nothing, and so cannot --download; fetch the data without --dry-run first.")
    if batch_size < 1:
        raise UsageError(f"--batch-size is {batch_size}, but must be a number of images of at least 1.")
    if arrays is not None:
        given = {
            "--weights": weights, "--model-arg": arguments, "--image-size": image_size, "--mean": mean, "--std": std,
            "--dataset": dataset != "digits", "--subset": subset, "--download": download,
            "--batch-size": batch_size != 64, "--data-dir": _is_typed(data_dir),
            "--set data.image_size": any(setting.startswith("data.image_size") for setting in settings or []),
        }  # fmt: skip
        if flags := [flag for flag, value in given.items() if value]:
            raise UsageError(f"{flags[0]} speaks of a network or its images, but --from reads arrays; leave it out.")
    data = _data(dataset, subset, holdout, settings or [])

    from layerwise.extraction.origins import Target
    from layerwise.extraction.requests import ArraysRequest, NetworkRequest, from_arrays, from_network
    from layerwise.hardware import pick_device
    from layerwise.units import parse_size

    is_written = not (list_layers or dry_run)
    made: tuple[Extraction | ArrayRun, Origin, Subject]
    target = Target(
        out=out, device=pick_device(device), store=store, max_size=parse_size(max_size), force=force, data_dir=data_dir
    )
    if arrays is not None:
        arrays_request = ArraysRequest(
            arrays=arrays, trained_on=trained_on, label=label, seed=seed, layers=layers, tokens=tokens,
            is_written=is_written,
        )  # fmt: skip
        made = from_arrays(arrays_request, data)
    else:
        assert network is not None
        request = NetworkRequest(
            spec=network, arguments=_arguments(arguments or []), weights=weights,
            trained_on=trained_on, label=label, seed=seed, layers=layers, tokens=tokens,
            image_size=image_size, mean=_constants("--mean", mean), std=_constants("--std", std),
            batch_size=batch_size, is_written=is_written,
        )  # fmt: skip
        made = from_network(request, data, target, download=download)
    extraction, origin, subject = made
    if list_layers:
        _print_layers(extraction)
    elif dry_run:
        _print_budget(extraction, target)
    else:
        _write(extraction, origin, subject, target)


def _print_layers(subject: Extraction | ArrayRun) -> None:
    from layerwise.extraction.layers import describe_layers
    from layerwise.extraction.networks import Extraction

    if isinstance(subject, Extraction):
        print("\n".join(describe_layers(subject.layers, subject.chosen)))
        return
    for j, depth in subject.depths.items():
        print(f"{j:>5}  {depth.module}  {' x '.join(map(str, depth.facts['source_shape']))}  {depth.facts['form']}")


def _print_budget(subject: Extraction | ArrayRun, target: Target) -> None:
    from layerwise.extraction.write import WAYS, describe_plan
    from layerwise.runfile.plan import require_room

    plan = subject.plan(target.store, target.max_size)
    print("\n".join(describe_plan(plan)))
    require_room(plan, target.max_size, target.out, ways=WAYS)
    print("nothing was written: the same command without --dry-run does it")


def _write(extraction: Extraction | ArrayRun, origin: Origin, subject: Subject, target: Target) -> None:
    for j, depth in extraction.write(target, origin, subject).depths.items():
        print(f"{j:>5}  {depth.module:<24}  {' x '.join(map(str, depth.shape)):<15}  {depth.facts['form']}")
    print(f"wrote {target.out}")
    commandline.log.info("next: probe-depth %s --probe linear", target.out)


def _is_typed(data_dir: Path | None) -> bool:
    """Return whether --data-dir was given, not only the environment variable that stands for it."""
    return data_dir is not None and str(data_dir) != os.environ.get("LAYERWISE_DATA")


def _data(dataset: str, subset: int, holdout: float, settings: list[str]) -> DataConfig:
    """Return the data's configuration, validated as that of a training is."""
    values: dict[str, Any] = {"data.dataset": dataset, "data.subset": subset, "data.holdout": holdout}
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or path.strip() not in ("data.label", "data.image_size"):
            raise UsageError(
                f"--set {setting!r} is not understood; it takes data.label=NAME or data.image_size=PIXELS."
            )
        values[path.strip()] = text.strip()
    return set_fields(recipe("digits"), values).data


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
