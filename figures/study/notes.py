"""What captions and tables of a study say of all of it: what was matched, what was chosen, what did not train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from figures.kit.words import left_out
from figures.study.definition import INITIALISATION, RATE, Study, Unit, diverged_path, run_path
from layerwise.config import MATCHED


def failed(folder: Path, units: Sequence[Unit]) -> dict[Unit, str]:
    """Return the networks that did not train, each with how that shows."""
    from analysis.failures import failures

    diverged = {unit: "loss not finite" for unit in units if diverged_path(folder, unit).exists()}
    paths = {run_path(folder, unit): unit for unit in units if unit not in diverged}
    return diverged | {paths[path]: words for path, words in failures(list(paths)).items()}


def notes(folder: Path, study: Study, units: Sequence[Unit], without: Mapping[Unit, str]) -> list[str]:
    """Return a sentence for each.

    units: those that are complete. without: those of them that did not train, as `failed` returns them.
    """
    trained = [unit for unit in units if unit not in without]
    named = [f"{unit.name} ({words})" for unit, words in without.items()]
    fold = [
        "Each seed has a validation fold, and so training images, of its own: intervals over seeds include that choice."
    ]
    return [
        *(fold if study.vary_fold else []),
        *_matched(folder, study, trained),
        *_settings(study),
        *left_out(named, is_finite=False),
    ]


def _matched(folder: Path, study: Study, units: Sequence[Unit]) -> list[str]:
    from layerwise.runfile import RunFile

    beside = [unit for unit in units if unit.mode in MATCHED]
    if not beside:
        return []
    modes = " and ".join(dict.fromkeys(unit.mode for unit in beside))
    if study.match == "epochs":
        return [
            f"Networks of mode {modes} were trained for as many epochs in all as the greedy ones for each block, and "
            "so with fewer operations."
        ]
    epochs: dict[str, dict[int, set[int]]] = {}
    for unit in beside:
        with RunFile(run_path(folder, unit)) as run:
            assert run.config is not None
            epochs.setdefault(unit.mode, {}).setdefault(unit.k, set()).add(run.config.training.epochs)
    said = [
        f"{mode} for {', '.join(f'{_span(found)} (k = {k})' for k, found in sorted(of_k.items()))}"
        for mode, of_k in epochs.items()
    ]
    return [
        f"Epochs with the operations of the greedy networks of the same k and M: {'; '.join(said)}. Networks of "
        "different k share epochs, not operations; those of k = 1 have no BatchNorm."
    ]


def _span(numbers: set[int]) -> str:
    return str(min(numbers)) if len(numbers) == 1 else f"{min(numbers)} to {max(numbers)}"


def _settings(study: Study) -> list[str]:
    given = [
        f"{mode} with {', '.join(f'{name} = {value}' for name, value in values.items())}"
        for mode, values in study.own.items()
    ]
    sentences = [f"Asked for: {'; '.join(given)}."] if given else []
    if study.grid == "none":
        return [*sentences, "No setting was chosen for a mode (grid: none)."]
    chosen = [
        f"{name.replace('-k', ' k = ')}: {values[INITIALISATION]}, {values[RATE]:g}"
        for name, values in study.chosen.items()
    ]
    return [
        *sentences,
        "Initialisation and learning rate of each mode and k were chosen on the validation fold from the same few "
        f"(table of choices): {'; '.join(chosen)}.",
    ]
