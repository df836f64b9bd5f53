"""A study: what was asked (study.json), its networks, their files, and the probes that each of them needs.

study/study.json                          what was asked, written before anything is trained
study/runs/MODE-kK-MWIDTH-sSEED.h5        a network, with the results of its probes beside it
study/figures, study/tables               drawn from the networks that are complete
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerwise.config import MODES
from layerwise.errors import UsageError, UserError, unknown
from layerwise.locks import held
from layerwise.publication import published, remove_leftovers
from layerwise.recipes import recipe
from layerwise.settings import by_path, set_fields
from probes.names import LINEAR, TRAINED, hidden_convolutions

if TYPE_CHECKING:
    from layerwise.config import RunConfig

BESIDE = tuple(mode for mode in MODES if mode not in ("greedy", "untrained"))
# Fields of a study that a later command may ask more of.
_GROWING = {"ks": "--k", "widths": "--width", "modes": "--with", "probes": "--probe", "probe_widths": "--probe-width"}
_COUNTS = {"seeds": "--seeds", "probe_seeds": "--probe-seeds"}


@dataclass(frozen=True)
class Unit:
    """One network of a study."""

    mode: str
    k: int
    width: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.mode}-k{self.k}-M{self.width}-s{self.seed}"


@dataclass(frozen=True)
class Job:
    """Probes of one command: names and the settings that are no default."""

    probes: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Study:
    """What was asked.

    recipe: of layerwise-train, to start from. settings: its fields that are another, by dotted path.
    ks, widths: k and M of the networks. seeds: how many of each, from 0. modes: trained beside the greedy ones.
    probes: of every depth. probe_widths, probe_seeds: of the CNN probes.

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
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.probes:
            if name in TRAINED:
                raise UsageError(f"probe {name} is part of every study. Leave it out of --probe.")
            hidden_convolutions(name)
        if not set(self.probes) & set(LINEAR):
            raise UsageError(f"--probe has {', '.join(self.probes)}, but a study needs linear or linear-ovr.")
        for mode in self.modes:
            if mode not in BESIDE:
                raise unknown("mode", mode, BESIDE)
        for name, flag in {**_COUNTS, "ks": "--k", "widths": "--width", "probe_widths": "--probe-width"}.items():
            value = getattr(self, name)
            if not value or any(number < 1 for number in (value if isinstance(value, tuple) else (value,))):
                raise UsageError(f"{flag} is {value}, but takes positive integers.")
        own = {"mode", "seed", "network.k", "network.width"} & set(self.settings)
        if own:
            raise UsageError(f"--set {sorted(own)[0]} is what the networks of a study differ in; use its own flag.")
        self.config(self.units()[0])  # refuses a recipe or a field that there is not, before anything is written

    def units(self) -> list[Unit]:
        """Return the networks in the order of their training: seed by seed, so that a part already says something.

        Untrained networks stand for all k without BatchNorm (k = 1) or with it (the least k above), whose blocks are
        the same.
        """
        starts = [k for k in self.ks if k == 1] + sorted(k for k in self.ks if k > 1)[:1]
        order = [("greedy", self.ks), ("untrained", starts), *((mode, self.ks) for mode in self.modes)]
        return [
            Unit(mode, k, width, seed)
            for seed in range(self.seeds)
            for mode, ks in order
            for width in self.widths
            for k in ks
        ]

    def config(self, unit: Unit) -> RunConfig:
        """Return the configuration of a network, as layerwise-train would have it."""
        own = {"mode": unit.mode, "seed": unit.seed, "network.k": unit.k, "network.width": unit.width}
        return set_fields(recipe(self.recipe), {**self.settings, **own})

    def jobs(self, unit: Unit) -> Iterator[Job]:
        """Yield the probes of a network.

        The raw pixels are the same for all networks, and probed with the first alone. An untrained network is also
        probed with as many features as the input has, for the attribution; a trained one has its own classifiers.
        """
        linear = tuple(name for name in self.probes if name in LINEAR)
        yield Job(linear, {"pixels": unit == self.units()[0]})
        if unit.mode == "untrained":
            yield Job(linear[:1], {"features": "input"})
        if rest := tuple(name for name in self.probes if name not in LINEAR):
            yield Job(rest, {"widths": self.probe_widths, "seeds": self.probe_seeds})
        if unit.mode == "end-to-end":
            yield Job(("auxiliary",))  # it has one, and so no ensemble
        elif unit.mode != "untrained":
            yield Job(("auxiliary", "ensemble"))

    def to_json(self) -> str:
        """Return the study as canonical JSON: the same text for equal studies."""
        return json.dumps(asdict(self), sort_keys=True, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Study:
        """Return the study written by `to_json`."""
        tree = json.loads(text)
        lists = {name: tuple(value) for name, value in tree.items() if isinstance(value, list)}
        return cls(**{f.name: (tree | lists)[f.name] for f in fields(cls)})


def run_path(folder: Path, unit: Unit) -> Path:
    """Return the run file of a network."""
    return folder / "runs" / f"{unit.name}.h5"


def begin(folder: Path, asked: Study) -> None:
    """Write what is asked into the folder; refuse what is another study than the one begun there (`refuse_other`)."""
    refuse_other(folder, asked)
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    path, lock = folder / "study.json", folder / ".study.json.lock"
    with held(lock, f"separability-study is beginning in {folder}", wait=True):
        try:
            remove_leftovers(path)
            with published(path, force=True) as temporary:
                temporary.write_text(asked.to_json(), encoding="utf-8")
        finally:
            lock.unlink(missing_ok=True)


def refuse_other(folder: Path, asked: Study) -> None:
    """Raise UserError if the folder holds another study, naming the field, or something else; write nothing.

    A study may grow: more k, widths, seeds, modes or probes.
    """
    path = folder / "study.json"
    if path.exists():
        require_growth(path, _read(path), asked)
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
    for name in ("recipe", *sorted({*old.settings, *new.settings})):
        had, wanted = ((s.recipe if name == "recipe" else s.settings.get(name)) for s in (old, new))
        if had != wanted:
            raise UserError(
                f"{path} is of {name} {'as the recipe has it' if had is None else had}, but "
                f"{'that of the recipe' if wanted is None else wanted} was asked for. Give another -o."
            )


def _read(path: Path) -> Study:
    try:
        return Study.from_json(path.read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is damaged: it is no study that separability-study wrote. Give another -o.") from None


def _show(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def difference(found: RunConfig, expected: RunConfig) -> str:
    """Return in which field a run is of another configuration, in words; empty for the expected one.

    What a run decides itself, where "auto" was asked for, is no difference.
    """
    have, want = (by_path(asdict(config)) for config in (found, expected))
    for name, value in want.items():
        if value != "auto" and have[name] != value:
            return f"{name} is {have[name]!r}, not {value!r}"
    return ""
