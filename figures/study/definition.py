"""A study: what was asked (study.json), its networks, their files, and the probes that each of them needs.

study/study.json                          what was asked, written before anything is trained
study/grid, study/choices.csv             settings of each mode and k, chosen before the networks are trained
study/runs/MODE-kK-MWIDTH-sSEED.h5        a network, with the results of its probes beside it
study/figures, study/tables               drawn from the networks that are complete
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerwise.config import MATCHED, MATCHES, MODES
from layerwise.errors import UsageError, UserError, unknown
from layerwise.locks import held_briefly
from layerwise.publication import published, remove_leftovers
from layerwise.recipes import recipe
from layerwise.settings import SETTINGS, by_path, set_fields, value_of
from probes.names import CNN_EPOCHS, LINEAR, TRAINED, hidden_convolutions

if TYPE_CHECKING:
    from layerwise.config import RunConfig

INITIALISATION, RATE = "network.initialisation", "training.learning_rate"
# What is tried of each mode and k: PyTorch's first weights and Kaiming's, since end-to-end training without BatchNorm
# fails from the first and greedy training is worse from the second; the recipe's rate, and a third of it.
GRID: dict[str, tuple[Any, ...]] = {INITIALISATION: ("default", "kaiming"), RATE: (1.0, 1 / 3)}
GRIDS = ("small", "none")
BESIDE = tuple(mode for mode in MODES if mode not in ("greedy", "untrained"))
# Fields of a study that a later command may ask more of.
_GROWING = {"ks": "--k", "widths": "--width", "modes": "--with", "probes": "--probe", "probe_widths": "--probe-width"}
_COUNTS = {"seeds": "--seeds", "probe_seeds": "--probe-seeds"}
# Fields that must stay what they are, with their flags.
_FIXED = {"vary_fold": "--vary-fold", "match": "--match", "grid": "--grid", "probe_epochs": "--probe-epochs"}
# What networks of a study differ in, or the study says itself.
_OWN = {"mode": "its own flag", "seed": "--seeds", "network.k": "--k", "network.width": "--width"}
_OWN |= {"match": "--match", "tuned": "MODE:KEY=VALUE", "network.activation": "--budget, whose studies have both"}


@dataclass(frozen=True)
class Unit:
    """One network of a study.

    start: the first weights of an untrained one; those of others are a setting. linear: whether it is one without relu.
    """

    mode: str
    k: int
    width: int
    seed: int
    start: str = "default"
    linear: bool = False

    @property
    def name(self) -> str:
        words = [self.mode, *(["linear"] if self.linear else []), *([self.start] if self.start != "default" else [])]
        return f"{'-'.join(words)}-k{self.k}-M{self.width}-s{self.seed}"

    @property
    def kind(self) -> str:
        """What it is in the table of costs, a row for several of them."""
        return f"{self.mode} k={self.k} M={self.width}"


@dataclass(frozen=True)
class Job:
    """Probes of one command: names and the settings that are no default."""

    probes: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Study:
    """What was asked.

    recipe: of layerwise-train, to start from. settings: its fields that are another, by dotted path. own: fields of one
    mode, or of one mode and k, by "end-to-end" or "end-to-end-k1". match: what networks trained end to end or in
    parallel share with the greedy one of their k and M, "operations" or "epochs". grid: "small", the settings that
    `figures.study.grid` chooses from, or "none".
    ks, widths: k and M of the networks. seeds: how many of each, from 0. modes: trained beside the greedy ones.
    vary_fold: whether each seed has a validation fold of its own.
    probes: of every depth. probe_widths, probe_seeds, probe_epochs: of the CNN probes.
    chosen: what the grid chose, by "end-to-end-k1"; it stands in study/grid and not in study.json.

    Raises UsageError where a part is not one, such as a mode that there is not.
    """

    recipe: str
    ks: tuple[int, ...] = (1, 2, 3)
    widths: tuple[int, ...]
    seeds: int
    modes: tuple[str, ...] = ("end-to-end",)
    probes: tuple[str, ...] = ("linear", "linear-ovr", "cnn-1", "cnn-2")
    probe_widths: tuple[int, ...]
    probe_seeds: int
    probe_epochs: int = CNN_EPOCHS
    vary_fold: bool = False
    match: str = "operations"
    grid: str = "small"
    settings: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    chosen: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what, found, choices in (("match", self.match, MATCHES), ("grid", self.grid, GRIDS)):
            if found not in choices:
                raise unknown(what, found, choices)
        for name in self.probes:
            if name in TRAINED:
                raise UsageError(f"probe {name} is part of every study. Leave it out of --probe.")
            hidden_convolutions(name)
        if not set(self.probes) & set(LINEAR):
            raise UsageError(f"--probe has {', '.join(self.probes)}, but a study needs linear or linear-ovr.")
        for mode in self.modes:
            if mode not in BESIDE:
                raise unknown("mode", mode, BESIDE)
        counts = {**_COUNTS, "probe_epochs": "--probe-epochs"}
        for name, flag in {**counts, "ks": "--k", "widths": "--width", "probe_widths": "--probe-width"}.items():
            value = getattr(self, name)
            if not value or any(number < 1 for number in (value if isinstance(value, tuple) else (value,))):
                raise UsageError(f"{flag} is {value}, but takes positive integers.")
        for name in (name for values in (self.settings, *self.own.values()) for name in values):
            if name in _OWN:
                raise UsageError(f"--set {name} is what the networks of a study differ in; use {_OWN[name]}.")
        if self.vary_fold and "data.fold_seed" in self.settings:
            raise UsageError("--vary-fold gives each seed a fold of its own; leave out --set data.fold_seed.")
        self._check_modes_of_settings()
        # Each kind, which refuses a recipe or a field that there is not, before anything is written.
        configs = [self.config(unit) for unit in self.units() if not unit.seed]
        if self.grid != "none" and not configs[0].data.holdout:
            raise UsageError("without a validation fold (--holdout 0) nothing can be chosen on it; give --grid none.")

    def _check_modes_of_settings(self) -> None:
        modes = ("greedy", *self.modes)
        known = [*modes, *(f"{mode}-k{k}" for mode in modes for k in self.ks)]
        for name in self.own:
            if name not in known:
                raise unknown("mode of --set MODE:KEY=VALUE", name, known)

    def free(self, mode: str, k: int) -> set[str]:
        """Return the fields that the grid chooses for a mode and k: those that --set does not give."""
        given = {*self._own(mode, k), *({INITIALISATION} & set(self.settings))}
        return set() if self.grid == "none" or mode == "untrained" else set(GRID) - given

    def _own(self, mode: str, k: int) -> dict[str, Any]:
        return {**self.own.get(mode, {}), **self.own.get(f"{mode}-k{k}", {})}

    @property
    def tuned(self) -> list[str]:
        """The fields that each mode and k has of its own, whether chosen or given."""
        found = {name for values in self.own.values() for name in values}
        return sorted(found.union(*(self.free(mode, k) for mode in ("greedy", *self.modes) for k in self.ks)))

    def starts(self) -> tuple[str, ...]:
        """Return the first weights of untrained networks: those that there may be of a trained one, and Kaiming's."""
        given = [values[INITIALISATION] for values in (self.settings, *self.own.values()) if INITIALISATION in values]
        return tuple(dict.fromkeys([*GRID[INITIALISATION], *map(str, given)]))

    def units(self) -> list[Unit]:
        """Return the networks in the order of their training: seed by seed, so that a part already says something.

        Untrained networks stand for all k without BatchNorm (k = 1) or with it (the least k above), whose blocks are
        the same. There are some for each kind of first weights (`starts`), with relu and without.
        """
        norms = [k for k in self.ks if k == 1] + sorted(k for k in self.ks if k > 1)[:1]
        kinds = [("untrained", norms, start, linear) for linear in (False, True) for start in self.starts()]
        order = [("greedy", self.ks, "default", False), *kinds]
        order += [(mode, self.ks, "default", False) for mode in self.modes]
        return [
            Unit(mode, k, width, seed, start, linear)
            for seed in range(self.seeds)
            for mode, ks, start, linear in order
            for width in self.widths
            for k in ks
        ]

    def config(self, unit: Unit) -> RunConfig:
        """Return the configuration of a network, as layerwise-train would have it."""
        own = {"mode": unit.mode, "seed": unit.seed, "network.k": unit.k, "network.width": unit.width}
        own |= {"match": self.match if unit.mode in MATCHED else "epochs", "tuned": ",".join(self.tuned)}
        if self.vary_fold:
            own["data.fold_seed"] = unit.seed + 1  # 0 is the fold of all other runs
        if unit.mode == "untrained":
            own |= {INITIALISATION: unit.start, "network.activation": "none" if unit.linear else "relu"}
        apart = {**self._own(unit.mode, unit.k), **self.chosen.get(f"{unit.mode}-k{unit.k}", {})}
        return set_fields(recipe(self.recipe), {**self.settings, **apart, **own})

    def jobs(self, unit: Unit) -> Iterator[Job]:
        """Yield the probes of a network.

        The raw pixels are the same for all networks, and probed with one alone. An untrained network without relu
        is there for the attribution, and so probed with as many features as the input has, and by linear probes
        alone; a trained one has its own classifiers.
        """
        linear = tuple(name for name in self.probes if name in LINEAR)
        if unit.linear:
            yield Job(linear, {"pixels": False})
            yield Job(linear[:1], {"features": "input"})
            return
        # An untrained network is never left out for that it did not train.
        first = next(unit for unit in self.units() if unit.mode == "untrained")
        yield Job(linear, {"pixels": unit == first})
        if rest := tuple(name for name in self.probes if name not in LINEAR):
            yield Job(rest, {"widths": self.probe_widths, "seeds": self.probe_seeds, "epochs": self.probe_epochs})
        if unit.mode == "end-to-end":
            yield Job(("auxiliary",))  # it has one, and so no ensemble
        elif unit.mode != "untrained":
            yield Job(("auxiliary", "ensemble"))

    def to_json(self) -> str:
        """Return the study as canonical JSON: the same text for equal studies."""
        tree = asdict(self)
        del tree["chosen"]
        return json.dumps(tree, sort_keys=True, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Study:
        """Return the study written by `to_json`, of this or an earlier version."""
        tree = json.loads(text)
        if "match" not in tree:  # what studies did before there was a choice, the first weights included
            tree |= {"match": "epochs", "grid": "none", "probe_epochs": 2, "own": {}, "vary_fold": False}
            tree["settings"] = {"network.seeding": "1", **tree["settings"]}
        lists = {name: tuple(value) for name, value in tree.items() if isinstance(value, list)}
        return cls(**{f.name: (tree | lists)[f.name] for f in fields(cls) if f.name != "chosen"})


def run_path(folder: Path, unit: Unit) -> Path:
    """Return the run file of a network."""
    return folder / "runs" / f"{unit.name}.h5"


def diverged_path(folder: Path, unit: Unit) -> Path:
    """Return where it is said that a network could not be trained, since its loss was no number any more."""
    return folder / "runs" / f"{unit.name}.diverged.txt"


def begin(folder: Path, asked: Study) -> None:
    """Write what is asked into the folder; refuse what is another study than the one begun there (`refuse_other`)."""
    refuse_other(folder, asked)
    for name in ("runs", "grid") if asked.grid != "none" else ("runs",):
        (folder / name).mkdir(parents=True, exist_ok=True)
    path, lock = folder / "study.json", folder / ".study.json.lock"
    with held_briefly(lock, f"separability-study is beginning in {folder}"):
        remove_leftovers(path)
        with published(path, force=True) as temporary:
            temporary.write_text(asked.to_json(), encoding="utf-8")


def refuse_other(folder: Path, asked: Study) -> None:
    """Raise UserError if the folder holds another study, naming the field, or something else; write nothing.

    A study may grow: more k, widths, seeds, modes or probes.
    """
    path = folder / "study.json"
    if path.exists():
        require_growth(path, read_study(path), asked)
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} holds files, but no study.json, so it is no study. Give another -o, or empty it.")


def require_growth(path: Path, old: Study, new: Study) -> None:
    """Raise UserError if `new` is not `old` or more of it."""
    for name, flag in {**_GROWING, **_COUNTS}.items():
        had, wanted = getattr(old, name), getattr(new, name)
        fewer = not set(had) <= set(wanted) if isinstance(had, tuple) else wanted < had
        if fewer:
            raise UserError(
                f"{path} is of {flag} {_show(had)}, but {flag} {_show(wanted)} was asked for. A study grows: ask for "
                "what it has and more, or give another -o."
            )
    for name, flag in _FIXED.items():
        if (had := getattr(old, name)) != (wanted := getattr(new, name)):
            raise UserError(f"{path} is of {flag} {had}, but {flag} {wanted} was asked for. Give another -o.")
    if new.grid != "none" and min(new.widths) < min(old.widths):
        raise UserError(
            f"{path} has chosen the settings of each mode at its smallest M, {min(old.widths)}, but --width "
            f"{_show(new.widths)} was asked for. Give another -o, or no smaller M."
        )
    settings = [
        {"recipe": study.recipe, **study.settings}
        | {f"{mode}:{name}": value for mode, values in study.own.items() for name, value in values.items()}
        for study in (old, new)
    ]
    for name in sorted({*settings[0], *settings[1]}, key=lambda name: (name != "recipe", name)):
        had, wanted = (_meant(name, values.get(name)) for values in settings)
        if had != wanted:
            raise UserError(
                f"{path} is of {name} {'as the recipe has it' if had is None else had}, but "
                f"{'that of the recipe' if wanted is None else wanted} was asked for. Give another -o."
            )


def read_study(path: Path) -> Study:
    """Return what study.json says was asked; raise UserError if it is damaged."""
    try:
        return Study.from_json(path.read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{path} is damaged: it is no study that separability-study wrote. Give another folder."
        ) from None


def _meant(name: str, value: Any) -> Any:
    """Return what a setting means: a flag gives its field's own type, --set a text, and study.json a list."""
    path = name.rpartition(":")[2]
    value = value_of(path, value) if path in SETTINGS else value
    return tuple(value) if isinstance(value, list) else value


def _show(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def difference(found: RunConfig, expected: RunConfig) -> str:
    """Return in which field a run is of another configuration, in words; empty for the expected one.

    What a run decides itself, where "auto" was asked for, is no difference. Epochs that match operations are compared
    by those of the greedy run that they were matched to.
    """
    if expected.match == "operations":
        asked, own = expected.training, found.training
        if not own.matched_epochs:
            return f"training.epochs is {own.epochs!r}, not matched by operations"
        matched = replace(
            asked,
            epochs=own.epochs,
            lr_first=own.lr_first,
            lr_every=own.lr_every,
            matched_epochs=asked.epochs,
            matched_lr_every=asked.lr_every,
        )
        expected = replace(expected, match="epochs", training=matched)
    have, want = (by_path(asdict(config)) for config in (found, expected))
    for name, value in want.items():
        if value != "auto" and have[name] != value:
            return f"{name} is {have[name]!r}, not {value!r}"
    return ""
