"""Owns the commands layerwise-train and layerwise-inspect: their words, their output, nothing of their work."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from layerwise import commandline
from layerwise.config import MODES, RunConfig, set_fields
from layerwise.errors import UsageError
from layerwise.recipes import RECIPES, recipe

Quiet = Annotated[bool, typer.Option("--quiet", help="Say nothing but warnings and errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Say more of what is done.")]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", envvar="LAYERWISE_DATA", help="Folder that holds the data set, where it is not bundled."
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto (a GPU where there is one), cpu or cuda.")]


def train(
    recipe_name: Annotated[
        str | None,
        typer.Argument(metavar="[RECIPE]", help="Where to start from; --list shows the recipes. Default: digits."),
    ] = None,
    k: Annotated[int | None, typer.Option("--k", help="Hidden layers of each auxiliary problem, at least 1.")] = None,
    width: Annotated[int | None, typer.Option("--width", help="M, channels of the first block.")] = None,
    depth: Annotated[int | None, typer.Option("--depth", help="J, the number of blocks.")] = None,
    aux_width: Annotated[int | None, typer.Option("--aux-width", help="M~, channels of the first auxiliary.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Epochs for each block.")] = None,
    mode: Annotated[str | None, typer.Option("--mode", help=f"How to train: {', '.join(MODES)}.")] = None,
    dataset: Annotated[str | None, typer.Option("--dataset", help="digits or fashion-mnist.")] = None,
    data_dir: DataDir = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of weights, order and augmentation.")] = None,
    device: Device = "auto",
    holdout: Annotated[
        float | None,
        typer.Option("--holdout", help="Share of the train split set apart for validation; 0 for none."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option("--store", help="pooled (A x_j, 2x2), maps (x_j whole beside it), or auto (maps where they fit)."),
    ] = None,
    max_size: Annotated[str, typer.Option("--max-size", help="Most that the run file may take.")] = "8GB",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other field, such as training.learning_rate=0.05."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Run file to write.")] = Path("run.h5"),
    force: Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Forecast operations, bytes, memory and time, and stop there.")
    ] = False,
    list_recipes: Annotated[bool, typer.Option("--list", help="List the recipes and stop.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a CNN block by frozen block and keep what every depth computes in one file.

    Without a word it trains on scikit-learn's bundled digits, in well under a minute:

        layerwise-train

        layerwise-train fashion-mnist --data-dir DIR --k 3 --out k3.h5

    Next: probe-depth run.h5 --probe linear
    """
    commandline.set_verbosity(quiet, verbose)
    if list_recipes:
        _print_recipes()
        return
    flags = {
        "data.dataset": dataset, "data.holdout": holdout, "network.k": k, "network.width": width,
        "network.depth": depth, "network.aux_width": aux_width, "training.epochs": epochs, "mode": mode,
        "seed": seed, "store": store,
    }  # fmt: skip
    config = _configure(recipe_name, dataset, flags, settings or [])

    from layerwise.run import pick_device, train_run
    from layerwise.storage import parse_size

    if dry_run:
        from layerwise.forecast import describe_forecast, forecast_run

        forecast = forecast_run(config, data_dir=data_dir, device=pick_device(device), max_size=parse_size(max_size))
        print("\n".join(describe_forecast(forecast)))
        return
    scores = train_run(
        config, out, data_dir=data_dir, device=pick_device(device), max_size=parse_size(max_size), force=force
    )
    print(f"{'depth':>5}  {'C x H x W':<12}  " + "  ".join(f"{s:>10}" for s in (scores[0].accuracy if scores else ())))
    for score in scores:
        cells = "  ".join(f"{value:>10.2%}" for value in score.accuracy.values())
        print(f"{score.depth:>5}  {' x '.join(map(str, score.shape)):<12}  {cells}")
    print(f"wrote {out}")


def _configure(
    recipe_name: str | None, dataset: str | None, flags: Mapping[str, object], settings: list[str]
) -> RunConfig:
    """Start from the recipe (without one: the data set's own, else digits) and replace what the flags name."""
    config = recipe(recipe_name or (dataset if dataset in RECIPES else "digits"))
    values = {path: value for path, value in flags.items() if value is not None}
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting!r} has no value; write --set key=value.")
        values[path.strip()] = text.strip()
    return set_fields(config, values)


def _print_recipes() -> None:
    for name, function in RECIPES.items():
        print(f"{name}\n    {(function.__doc__ or '').strip()}\n")


def inspect(
    file: Annotated[Path, typer.Argument(metavar="RUN.H5", help="Run file to show.")],
    verify: Annotated[bool, typer.Option("--verify", help="Also read every byte and check it.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show what a run file holds, and check it.

    Opening checks the structure; --verify also checks every block of rows against its SHA-256.
    """
    commandline.set_verbosity(quiet, verbose)
    from layerwise.inspection import describe_run, verify_run
    from layerwise.runfile import RunFile

    with RunFile(file) as run:
        for line in describe_run(run):
            print(line)
        if verify:
            print(verify_run(run))


def train_command() -> NoReturn:
    """Run layerwise-train."""
    commandline.run(train, "layerwise-train")


def inspect_command() -> NoReturn:
    """Run layerwise-inspect."""
    commandline.run(inspect, "layerwise-inspect")
