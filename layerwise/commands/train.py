"""Owns the commands layerwise-train and layerwise-inspect: their words, their output, nothing of their work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from layerwise import commandline
from layerwise.commands.options import DataDir, Device, Quiet, Verbose
from layerwise.config import MODES, RunConfig, parse_setting, set_fields
from layerwise.datasets import DATASETS
from layerwise.errors import UsageError
from layerwise.recipes import RECIPES, recipe

if TYPE_CHECKING:
    from layerwise.training.run import Place
    from layerwise.training.scoring import DepthScores


def train(
    recipe_name: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", help="Where to start from; --list shows the recipes. Default: digits."),
    ] = None,
    k: Annotated[int | None, typer.Option("--k", help="Hidden layers of each auxiliary problem, at least 1.")] = None,
    width: Annotated[int | None, typer.Option("--width", help="M, channels of the first block.")] = None,
    depth: Annotated[int | None, typer.Option("--depth", help="J, the number of blocks.")] = None,
    aux_width: Annotated[int | None, typer.Option("--aux-width", help="M~, channels of the first auxiliary.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Epochs for each block.")] = None,
    prune_to: Annotated[
        int | None,
        typer.Option("--prune-to", help="Filters that stay of each trained block (they double as M does); 0: all."),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            "--network", metavar="FILE.py:FACTORY", help="Blocks of your own: a function that returns a list of them."
        ),
    ] = None,
    mode: Annotated[str | None, typer.Option("--mode", help=f"How to train: {', '.join(MODES)}.")] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            help=f"{', '.join(DATASETS[:-1])}, or imagefolder: any folder of images in train/CLASS and test/CLASS.",
        ),
    ] = None,
    data_dir: DataDir = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch the data set into --data-dir if it is not there.")
    ] = False,
    subset: Annotated[
        int | None,
        typer.Option("--subset", help="Use so many images of the train split, stratified by class; 0 for all."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of weights, order and augmentation.")] = None,
    device: Device = "auto",
    precision: Annotated[
        str | None,
        typer.Option("--precision", help="Of products in training: auto (bf16 where the hardware has it), fp32, bf16."),
    ] = None,
    match: Annotated[
        str | None,
        typer.Option("--match", help="End to end: spend the greedy run's epochs, or the operations it spends in all."),
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(
            "--prefix",
            help="Output of the frozen blocks: recompute for every batch, cache (kept, of images that stay the same), "
            "or auto (cache where it is the same and fits).",
        ),
    ] = None,
    views: Annotated[
        int | None,
        typer.Option("--views", help="Augment so many fixed views of each image, in turn; 0: anew in each epoch."),
    ] = None,
    holdout: Annotated[
        float | None,
        typer.Option("--holdout", help="Share of the train split set apart for validation; 0 for none."),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="With --replace-auxiliary: a finished greedy run, whose configuration is taken."),
    ] = None,
    replace_auxiliary: Annotated[
        int | None,
        typer.Option(
            "--replace-auxiliary",
            help="Solve the last problem of the run of --from again with an auxiliary so wide (M_f); all blocks below "
            "are taken over.",
        ),
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
    tensorboard: Annotated[
        Path | None, typer.Option("--tensorboard", help="Folder for TensorBoard's events (needs its package).")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Forecast operations, bytes, memory and time, and stop there.")
    ] = False,
    list_recipes: Annotated[bool, typer.Option("--list", help="Show the recipes (or RECIPE alone) and stop.")] = False,
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
    if out.suffix != ".h5" or out.name.endswith(".predictions.h5"):
        raise UsageError(f"--out is {str(out)!r}, but a run file's name ends in .h5, and not in .predictions.h5.")
    if list_recipes:
        _print_recipes(recipe_name)
        return
    flags: dict[str, object] = {
        "data.dataset": dataset, "data.holdout": holdout, "data.subset": subset, "network.k": k, "network.width": width,
        "network.depth": depth, "network.aux_width": aux_width, "training.epochs": epochs, "mode": mode,
        "seed": seed, "store": store, "precision": precision, "match": match,
        "training.prefix": prefix, "training.views": views, "network.prune_to": prune_to,
    }  # fmt: skip
    if network is not None:
        _use_network(network, flags, source)
    if source is None and replace_auxiliary is None:
        config = _configure(recipe_name, dataset, flags, settings or [])
    else:
        _check_replacement(recipe_name, flags, settings or [], source, replace_auxiliary, out, dry_run)

    from layerwise.hardware import pick_device
    from layerwise.training.run import Place, train_run
    from layerwise.units import parse_size

    place = Place(
        out=out, device=pick_device(device), data_dir=data_dir, max_size=parse_size(max_size), force=force,
        tensorboard=tensorboard, download=download,
    )  # fmt: skip
    if source is not None and replace_auxiliary is not None:
        _replace(source, replace_auxiliary, place, store)
        return
    if dry_run and download:
        raise UsageError("--dry-run does nothing, and so cannot --download; fetch the data without --dry-run first.")
    if dry_run:
        from layerwise.forecast.table import describe_forecast, forecast_run

        print("\n".join(describe_forecast(forecast_run(config, place))))
        return
    scores = train_run(config, place)
    _print_scores(scores)
    print(f"wrote {out}")
    commandline.log.info("next: probe-depth %s --probe linear", out)


def _use_network(spec: str, flags: dict[str, object], source: Path | None) -> None:
    """Put what blocks of a user's own say of the configuration among the flags."""
    if source is not None:
        raise UsageError("--network is of a training from the start, and --from of a part of one; give one of the two.")
    from layerwise.model.custom import register

    said = register(spec)
    for path in said:
        if flags.get(path) is not None:
            raise UsageError(f"{_flag_of(path)} is what the blocks of --network say themselves; leave it out.")
    flags |= said


def _configure(
    recipe_name: str | None, dataset: str | None, flags: Mapping[str, object], settings: list[str]
) -> RunConfig:
    """Start from the recipe (without one: the data set's own, else digits) and replace what the flags name."""
    if recipe_name is None and dataset in DATASETS and dataset not in RECIPES:
        raise UsageError(
            f"no recipe is {dataset}'s own: name one to start from, such as layerwise-train cifar10-small "
            f"--dataset {dataset}. --list shows them."
        )
    config = recipe(recipe_name or (dataset if dataset in RECIPES else "digits"))
    values = {path: value for path, value in flags.items() if value is not None}
    for setting in settings:
        path, text = parse_setting(setting)
        if path in values:
            raise UsageError(f"--set {path} names what another flag or --set has set already; give one of them.")
        values[path] = text
    return set_fields(config, values)


def _check_replacement(
    recipe_name: str | None,
    flags: Mapping[str, object],
    settings: list[str],
    source: Path | None,
    width: int | None,
    out: Path,
    dry_run: bool,
) -> None:
    """Refuse --from or --replace-auxiliary alone, and whatever beside them would be another configuration."""
    if source is None or width is None:
        raise UsageError("--from RUN.H5 and --replace-auxiliary WIDTH belong together; give both.")
    given = [f"the recipe {recipe_name}"] if recipe_name is not None else []
    given += [_flag_of(path) for path, value in flags.items() if value is not None and path != "store"]
    given += [f"--set {setting}" for setting in settings]
    if given:
        raise UsageError(
            f"--from takes the configuration of {source}, in which --replace-auxiliary changes one width, so "
            f"{given[0]} cannot stand beside it."
        )
    if dry_run:
        raise UsageError("--dry-run forecasts a whole training, and --from is a part of one; give one of the two.")
    if out.resolve() == source.resolve():
        raise UsageError(f"--out is {str(out)!r}, which is the run that --from reads; give another name.")


def _flag_of(path: str) -> str:
    """Return the flag that sets a field of the configuration."""
    return "--" + path.rpartition(".")[2].replace("_", "-")


def _replace(source: Path, width: int, place: Place, store: str | None) -> None:
    """Solve the last problem of a run again and print it beside the original."""
    from layerwise.publication import refuse_existing
    from layerwise.training.replacement import describe_replacement, replaced, take_over
    from layerwise.training.run import train_run

    refuse_existing(place.out, place.force)
    taken = take_over(source, place.data_dir, download=place.download)
    config = replaced(taken.config, width, source)
    if store is not None:
        config = set_fields(config, {"store": store})
    scores = train_run(config, place, taken)
    _print_scores(scores)
    print()
    for line in describe_replacement(taken, config, scores):
        print(line)
    print(f"wrote {place.out}")
    commandline.log.info("next: probe-depth %s --probe linear", place.out)


def _print_scores(scores: Sequence[DepthScores]) -> None:
    """Print the auxiliaries' accuracy at each depth, and the ensemble's where there are several."""
    if not scores:
        return
    has_ensemble = bool(scores[-1].ensembles)
    head = "".join(f"  {split:>10}" for split in scores[0].accuracy) + ("  ensemble test" if has_ensemble else "")
    print(f"{'depth':>5}  {'C x H x W':<14}{head}")
    for score in scores:
        cells = "".join(f"  {value:>10.2%}" for value in score.accuracy.values())
        joined = f"  {score.ensembles['logits', 'test']:>13.2%}" if has_ensemble else ""
        print(f"{score.depth:>5}  {' x '.join(map(str, score.shape)):<14}{cells}{joined}")
    if scores[0].pruned is not None:
        _print_pruning(scores)


def _print_pruning(scores: Sequence[DepthScores]) -> None:
    """Print, for each pruned block, its filters and the test accuracy of its auxiliary in the three states."""
    print(f"\n{'block':>5}  {'filters':<14}  test: before  pruned  fine-tuned")
    for score in scores:
        if (record := score.pruned) is not None:
            filters = f"{len(record.saliency)} -> {len(record.kept)}"
            before, cut, after = (record.accuracy[state, "test"] for state in ("before", "pruned", "finetuned"))
            print(f"{score.depth:>5}  {filters:<14}  {before:>12.2%}  {cut:>6.2%}  {after:>10.2%}")


def _print_recipes(name: str | None) -> None:
    if name is not None:
        recipe(name)  # refuses an unknown one
    for shown in RECIPES if name is None else (name,):
        lines = cleandoc(RECIPES[shown].__doc__ or "").splitlines()
        print("\n    ".join([shown, *(line for line in lines if line)]))


def train_command() -> NoReturn:
    """Run layerwise-train."""
    commandline.run(train, "layerwise-train")
