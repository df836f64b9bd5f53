"""The command layerwise-train: its options and its output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from layerwise import commandline, launch
from layerwise.commandline import INPUT, NETWORK, OUTPUT
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
    takes_fields,
    warn_of_unread,
)
from layerwise.config import DATASETS, RunConfig
from layerwise.errors import UsageError
from layerwise.recipes import RECIPES, recipe
from layerwise.settings import SETTINGS, parse_setting, set_fields
from layerwise.units import DEFAULT_SIZE

if TYPE_CHECKING:
    from layerwise.runfile.place import Place
    from layerwise.training.scoring import DepthScores


Recipe = Annotated[
    str | None,
    typer.Argument(metavar="RECIPE", help="Where to start from; --list shows the recipes. Default: digits."),
]
Network = Annotated[
    str | None,
    typer.Option(
        "--network",
        metavar="FILE.py:FACTORY",
        help="Blocks of your own: a function that returns a list of them.",
        rich_help_panel=NETWORK,
    ),
]
Source = Annotated[
    Path | None,
    typer.Option(
        "--from",
        help="With --replace-auxiliary: a finished greedy run, whose configuration is taken.",
        rich_help_panel=INPUT,
    ),
]
ReplaceAuxiliary = Annotated[
    int | None,
    typer.Option(
        "--replace-auxiliary",
        help="Retrain only the last auxiliary problem of the --from run, with this width (M_f); earlier blocks are "
        "reused.",
        rich_help_panel=NETWORK,
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="Start from the configuration of a run file, or of a TOML file, in place of RECIPE.",
        rich_help_panel=INPUT,
    ),
]
PrintConfig = Annotated[
    bool,
    typer.Option(
        "--print-config", help="Show the configuration as TOML, for --config, and stop there.", rich_help_panel=OUTPUT
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any field of docs/settings.md, such as training.learning_rate=0.05.",
        rich_help_panel=INPUT,
    ),
]
TensorBoard = Annotated[
    Path | None,
    typer.Option("--tensorboard", help="Folder for TensorBoard's events (needs its package).", rich_help_panel=OUTPUT),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Forecast operations, bytes, memory and time, and stop there.", rich_help_panel=OUTPUT
    ),
]
ListRecipes = Annotated[
    bool, typer.Option("--list", help="Show the recipes (or RECIPE alone) and stop.", rich_help_panel=OUTPUT)
]


@takes_fields()
def train(
    recipe_name: Recipe = None,
    config_file: ConfigFile = None,
    settings: Settings = None,
    data_dir: DataDir = None,
    download: Download = False,
    read: Read = "auto",
    skip_broken: SkipBroken = False,
    network: Network = None,
    source: Source = None,
    replace_auxiliary: ReplaceAuxiliary = None,
    device: Device = "auto",
    out: RunOut = Path("run.h5"),
    max_size: MaxSize = DEFAULT_SIZE,
    force: Force = False,
    tensorboard: TensorBoard = None,
    dry_run: DryRun = False,
    list_recipes: ListRecipes = False,
    print_config: PrintConfig = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **fields: Any,
) -> None:
    """Train a CNN block by frozen block and keep what every depth computes in one file.

    Without arguments it trains on scikit-learn's bundled digits, in well under a minute:

        layerwise-train

        layerwise-train fashion-mnist --data-dir DIR --k 3 --out k3.h5

    Next: probe-depth run.h5 --probe linear
    """
    commandline.set_verbosity(quiet, verbose)
    check_run_name(out)
    if list_recipes:
        _print_recipes(recipe_name)
        return
    if network is not None:
        _use_network(network, fields, source)
    if source is None and replace_auxiliary is None:
        config = _configure(recipe_name, config_file, fields, settings or [])
    else:
        _check_replacement(source, replace_auxiliary, out, dry_run=dry_run)
        _refuse_beside_source(source, _started_from(recipe_name, config_file), fields, settings or [])
    if print_config:
        _print_config(source, config)
        return

    if source is None:
        warn_of_unread(data_dir, config.data.dataset)

    from layerwise import ranks
    from layerwise.hardware import pick_device
    from layerwise.runfile.place import Place
    from layerwise.training.run import train_run
    from layerwise.units import parse_size

    place = Place(
        out=out, device=pick_device(device), data_dir=data_dir, max_size=parse_size(max_size), force=force,
        tensorboard=tensorboard, download=download, subset_is_most=not (config_file or _types_subset(fields, settings)),
        read=read, skip_broken=skip_broken,
    )  # fmt: skip
    if source is not None and replace_auxiliary is not None:
        _replace(source, replace_auxiliary, place, fields)
    elif dry_run:
        _forecast(config, place)
    else:
        with ranks.joined(place.device):
            scores = train_run(config, place)
        if launch.number() == 0:
            _print_scores(scores)
            _print_written(out)


def _forecast(config: RunConfig, place: Place) -> None:
    from layerwise.forecast.table import describe_forecast, forecast_run

    if place.download:
        raise UsageError("--dry-run writes nothing, so it cannot --download; fetch the data without --dry-run first.")
    print("\n".join(describe_forecast(forecast_run(config, place))))


def _print_written(out: Path) -> None:
    print(f"wrote {out}")
    commandline.log.info("next: probe-depth %s --probe linear", out)


def _use_network(spec: str, fields: dict[str, Any], source: Path | None) -> None:
    """Add to the fields those that a user's own blocks determine."""
    if source is not None:
        raise UsageError("--network starts a new training; --from continues from a finished run. Give one.")
    from layerwise.model.custom import register

    determined = register(spec)
    for path in determined:
        if path in fields:
            raise UsageError(f"{SETTINGS[path].flag} is determined by the blocks of --network; leave it out.")
    fields |= determined


def _print_config(source: Path | None, config: RunConfig) -> None:
    from layerwise.configfile import to_toml

    if source is not None:
        raise UsageError("--print-config shows what a training is to be, and --from continues one. Give one of them.")
    print(to_toml(config))


def _configure(
    recipe_name: str | None, config_file: Path | None, fields: Mapping[str, Any], settings: list[str]
) -> RunConfig:
    """Start from a recipe or a file and replace what the flags name."""
    if config_file is None:
        config = _recipe_of(recipe_name, fields.get("data.dataset"))
    elif recipe_name is not None:
        raise UsageError(f"--config {config_file} stands in the place of a recipe, so leave {recipe_name} out.")
    else:
        from layerwise.configfile import read_config

        config = read_config(config_file)
    values = dict(fields)
    for setting in settings:
        path, text = parse_setting(setting)
        if path in values:
            raise UsageError(f"--set {path} names what another flag or --set has set already; give one of them.")
        values[path] = text
    return set_fields(config, values)


def _recipe_of(recipe_name: str | None, dataset: object) -> RunConfig:
    """Return the configuration of a recipe; without one that of the data set's own, else digits."""
    if recipe_name is None and dataset in DATASETS and dataset not in RECIPES:
        raise UsageError(
            f"no recipe is {dataset}'s own: name one to start from, such as layerwise-train cifar10-small "
            f"--dataset {dataset}. --list shows them."
        )
    return recipe(recipe_name or (str(dataset) if dataset in RECIPES else "digits"))


def _types_subset(fields: Mapping[str, Any], settings: list[str] | None) -> bool:
    """Return whether the user, and not a recipe, says how many images are used."""
    return "data.subset" in fields or any(parse_setting(text)[0] == "data.subset" for text in settings or [])


def _check_replacement(source: Path | None, width: int | None, out: Path, *, dry_run: bool) -> None:
    """Raise UsageError where --from and --replace-auxiliary do not stand together, or ask for what cannot be."""
    if source is None or width is None:
        raise UsageError("--from RUN.H5 and --replace-auxiliary WIDTH belong together; give both.")
    if dry_run:
        raise UsageError("--dry-run forecasts a whole training, and --from is a part of one; give one of the two.")
    if out.resolve() == source.resolve():
        raise UsageError(f"--out is {str(out)!r}, which is the run that --from reads; give another name.")


def _started_from(recipe_name: str | None, config_file: Path | None) -> list[str]:
    """Return in words what a user names to start from."""
    named = [] if recipe_name is None else [f"the recipe {recipe_name}"]
    return named + ([] if config_file is None else [f"--config {config_file}"])


def _refuse_beside_source(
    source: Path | None, started: list[str], fields: Mapping[str, Any], settings: list[str]
) -> None:
    """Raise UsageError where anything beside --from would change the configuration that is taken from it."""
    given = [*started]
    given += [SETTINGS[path].flag for path in fields if path not in ("store", "dtype")]
    given += [f"--set {setting}" for setting in settings if setting.partition("=")[0] not in ("store", "dtype")]
    if given:
        raise UsageError(
            f"--from takes the configuration of {source}, in which --replace-auxiliary changes one width, so "
            f"{given[0]} cannot stand beside it."
        )


def _replace(source: Path, width: int, place: Place, fields: Mapping[str, Any]) -> None:
    """Solve the last problem of a run again and print it beside the original."""
    from layerwise.training.checkpoint import refuse_existing_run
    from layerwise.training.replacement import describe_replacement, replaced, take_over
    from layerwise.training.run import reading_of, train_run

    refuse_existing_run(place.out, place.force)
    taken = take_over(source, place.data_dir, download=place.download, reading=reading_of(place))
    config = set_fields(replaced(taken.config, width, source), fields)
    scores = train_run(config, place, taken)
    _print_scores(scores)
    print()
    print("\n".join(describe_replacement(taken, config, scores)))
    _print_written(place.out)


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
    if scores[-1].mirrored:
        told = ", ".join(f"{score.mirrored['test']:.2%}" for score in scores)
        print(f"with the mirror image averaged in (test-time augmentation), test: {told}")
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
