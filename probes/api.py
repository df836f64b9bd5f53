"""The Python API of `probes`: what the command probe-depth does, with its rows in hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from layerwise.errors import UsageError, unknown
from layerwise.hardware import ordinary_torch, pick_device
from layerwise.runfile import RunFile
from layerwise.runfile.given import Run, Runs, opened, several
from layerwise.spoken import python_call
from probes.estimator import Classifiers, EstimatorFamily, classifiers
from probes.families import families
from probes.names import CNN_EPOCHS, CNN_SEEDS, Settings, hidden_convolutions, whole_numbers
from probes.probe import Family, ProbeName
from probes.results.baseline import beside, require_same_images
from probes.results.columns import PROBE_NAME
from probes.shown.evaluate import evaluate as evaluate_on
from probes.shown.evaluate import require_plain, sets_of
from probes.shown.run import ShownRun
from probes.sweep import rows_at, sweep
from probes.tasks.controls import asked_task
from probes.tasks.task import Task


@python_call("probe-depth")
@ordinary_torch()
def fit(
    runs: Runs,
    probe: Any = "linear",
    *,
    name: str | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    standardise: bool = True,
    depths: int | Sequence[int] | None = None,
    control: str = "none",
    target: Path | str | pd.DataFrame | None = None,
    pools: int | Sequence[int] = (2,),
    features: str = "native",
    pixels: bool = True,
    max_memory: int | None = None,
    widths: int | Sequence[int] = (64, 128, 256),
    seeds: int = CNN_SEEDS,
    epochs: int = CNN_EPOCHS,
    source: str = "auto",
    evaluate: Path | str | Sequence[Path | str] | None = None,
    device: str = "auto",
    force: bool = False,
    quiet: bool = False,
) -> pd.DataFrame:
    """Fit probes at every depth by the protocol, keep their rows beside each run file, and return them.

    Args:
        runs: a run file, by its path or open, or several; the rows of x.h5 go to x.probes.csv beside it.
        probe: linear, linear-ovr, cnn-1, cnn-2, ..., knn, ncm, codelength, auxiliary, ensemble; any classifier of
            scikit-learn's grammar, such as LogisticRegression(); or a list of such.
        name: what the rows call a classifier; its class by default. With a name, a list of classifiers is one probe, of
            which the validation fold chooses by accuracy.
        grid: lists of values of parameters of one classifier, {"C": [0.1, 1, 10]}, among which it chooses too.
        standardise: of classifiers: whether features are standardised before them, as they are for linear probes.
        depths: depths to probe, one or several; None takes all at which the probe has something to say.
        control: none, permuted or teacher: labels of a control task.
        target: other labels of the same images: a table of index, label and split (train or test), or its path as CSV.
        pools: of linear, knn, ncm and classifiers: sides of the average A.
        features: of linear probes: native, or projected: matched to the least width, input to the input's number.
        pixels: of linear probes: whether depth 0 is probed as raw pixels too, as a reference.
        max_memory: bytes: features of linear probes, knn and ncm that would take more (twice) are streamed, with the
            same result.
        widths, seeds, epochs, source: of CNN probes: widths M, number of seeds (also of orders of codelength), epochs,
            where maps come from.
        evaluate: folders of other images of the same classes, FOLDER/CLASS/... or FOLDER/NAME/CLASS/..., which the
            frozen network and the probes are shown as they are; rows have the set's name as `split`.
        device: auto, cpu or cuda.
        force: fit again what the table already holds, which reads the test split again.
        quiet: whether nothing is shown meanwhile.

    Returns:
        A row for each number, with the columns of docs/format.md: depth, split, metric, refit, value, ci_low, ...
        Those of a classifier have its repr in the column `estimator`, and no certificate.

    Raises UserError for a probe, depth or source that is not there, and for a classifier in the place of another whose
    rows have the same name.
    """
    settings = Settings(
        pools=whole_numbers("pools", pools), features=features, pixels=pixels, widths=whole_numbers("widths", widths),
        seeds=seeds, epochs=epochs, source=source, device=pick_device(device), max_memory=max_memory,
    )  # fmt: skip
    asked = _Asked(_named(probe, name, grid, standardise), settings, depths, control, target, force)
    if evaluate is None:
        return pd.concat([_fitted(one, asked) for one in _each(runs)], ignore_index=True)
    require_plain(asked.probes, control, target)
    folders = [Path(one) for one in ([evaluate] if isinstance(evaluate, Path | str) else evaluate)]
    return pd.concat([_evaluated(one, asked, folders) for one in _each(runs)], ignore_index=True)


@python_call("probe-depth")
@ordinary_torch()
def estimators(
    runs: Runs,
    probe: Any = "linear",
    *,
    name: str | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    standardise: bool = True,
    depths: int | Sequence[int] | None = None,
    control: str = "none",
    target: Path | str | pd.DataFrame | None = None,
    pools: int | Sequence[int] = (2,),
    device: str = "auto",
    quiet: bool = False,
) -> pd.DataFrame:
    """Fit linear probes or classifiers at every depth as `fit` does, and return the fitted estimators themselves.

    Args:
        runs, probe, name, grid, standardise, depths, control, target, pools, device, quiet: as of `fit`.

    Returns:
        A row for each run, probe, depth and pooling: run (its path), run_id, probe, depth, pooling, estimator. Each is
        a pipeline that standardises features A x_j, [n, C pooling pooling] (pooling 0: the raw pixels), and predicts
        labels 0, 1, ...; fitted on train + validation where the run has a validation fold. The last step of a linear
        probe is a `CertifiedLogisticRegression`. What stood in the table is fitted again, and no test split is read.

    Raises UsageError for a probe that no estimator of scikit-learn's can stand for, and what `fit` raises.
    """
    settings = Settings(
        pools=whole_numbers("pools", pools), features="native", widths=(64,), seeds=1, epochs=CNN_EPOCHS,
        source="auto", device=pick_device(device),
    )  # fmt: skip
    asked = _Asked(_named(probe, name, grid, standardise), settings, depths, control, target, force=False)
    return pd.DataFrame([row for one in _each(runs) for row in _estimators(one, asked)])


@python_call("probe-depth")
def compare(runs: Runs, baseline: Run, probe: Any = "linear", **options: Any) -> pd.DataFrame:
    """Fit probes to runs and to a baseline on the same images, untrained as a rule, and return them side by side.

    Args:
        runs: run files, by their paths or open. baseline: another, made of the same images.
        probe, options: as of `fit`.

    Returns:
        A row for each run and each probe that both have: run, baseline (paths), depth, probe, probe_width, probe_seed,
        pooling, accuracy, baseline_accuracy (of the test split, in [0, 1]), difference, ci_low, ci_high (the first
        minus the second, with its paired 95% interval over the images).

    Raises UserError where the images differ, or `fit` would.
    """
    found, given = [], several(runs)
    with opened(baseline) as other:
        for one in _each(given):
            require_same_images(one, other)
        fit(other, probe, **options)  # once for all runs: with force=True each fit reads the test split again
        for one in _each(given):
            rows = fit(one, probe, **options)
            names = [ProbeName(**row) for row in rows[list(PROBE_NAME)].drop_duplicates().to_dict("records")]
            found += [
                {
                    "run": str(one.path), "baseline": str(other.path), "depth": pair.name.depth,
                    "probe": pair.name.probe, "probe_width": pair.name.probe_width, "probe_seed": pair.name.probe_seed,
                    "pooling": pair.name.pooling, "accuracy": pair.run, "baseline_accuracy": pair.baseline,
                    "difference": pair.run - pair.baseline, "ci_low": pair.low, "ci_high": pair.high,
                }
                for pair in beside(one, other, names)
            ]  # fmt: skip
    return pd.DataFrame(found)


@dataclass(frozen=True)
class _Asked:
    """What a call asks of each run."""

    probes: Sequence[str | Classifiers]
    settings: Settings
    depths: int | Sequence[int] | None
    control: str
    target: Path | str | pd.DataFrame | None
    force: bool

    def families(self, run: RunFile) -> Iterator[tuple[Task, Family, list[int]]]:
        """Yield the families that fit what is asked of a run, with its labels, and the depths of each."""
        task = asked_task(run, self.target, self.control)
        names = [one for one in self.probes if isinstance(one, str)]
        own = [one for one in self.probes if isinstance(one, Classifiers)]
        found: list[Family] = [*families(run, task, names, self.settings)] if names else []
        found += [
            EstimatorFamily(run, task, one, pools=self.settings.pools, device=self.settings.device) for one in own
        ]
        for family in found:
            yield task, family, self._chosen(family, run)

    def _chosen(self, family: Family, run: RunFile) -> list[int]:
        if self.depths is None:
            return family.depths()
        if not (depths := whole_numbers("depths", self.depths)):
            raise UsageError("depths names none; expected one or several, or None for all.")
        family.check([depth for depth in depths if depth in run.depths])
        for depth in depths:
            if depth not in family.depths():
                raise unknown("depth", depth, family.depths())
        return list(depths)


def _each(runs: Runs) -> Iterator[RunFile]:
    for run in several(runs):
        with opened(run) as one:
            yield one


def _named(probe: Any, name: str | None, grid: Mapping[str, Any] | None, standardise: bool) -> list[str | Classifiers]:
    """Return the probes that a user names or gives; raise UsageError where two would have the same rows."""
    given = list(probe) if isinstance(probe, list | tuple) else [probe]
    if not given:
        raise UsageError("no probe was given; expected the name of one, a classifier, or a list of such.")
    if name is not None or grid is not None:
        if any(isinstance(one, str) for one in given):
            raise UsageError(
                "name and grid are of classifiers of scikit-learn's grammar; a probe of this project has its own name "
                "and penalties. Leave them out, or fit the two kinds by two calls."
            )
        return [classifiers(given, name, grid, standardise)]
    found: list[str | Classifiers] = []
    for one in dict.fromkeys(given) if all(isinstance(one, str) for one in given) else given:
        if isinstance(one, str):
            hidden_convolutions(one)
        found.append(one if isinstance(one, str) else classifiers(one, None, None, standardise))
    names = [one if isinstance(one, str) else one.name for one in found]
    if twice := [one for one in names if names.count(one) > 1]:
        raise UsageError(
            f"two probes are called {twice[0]}: fit them one by one, each by a name=... of its own; or all by "
            "one name=..., so that the validation fold chooses among them."
        )
    return found


def _fitted(run: RunFile, asked: _Asked) -> pd.DataFrame:
    rows = []
    for task, family, depths in asked.families(run):
        if isinstance(family, EstimatorFamily) and not asked.force:
            family.require_same(depths)
        sweep(run, task, family, depths, force=asked.force)
        rows.append(rows_at(run, family, depths))
    return pd.concat(rows, ignore_index=True)


def _evaluated(run: RunFile, asked: _Asked, folders: Sequence[Path]) -> pd.DataFrame:
    """Fit what is asked, evaluate it on the images in folders, and return all rows."""
    with ShownRun(run.path, asked.settings.device, run.data_dir) as shown:
        sets, found = sets_of(shown, folders), list(asked.families(shown))
        for task, family, depths in found:
            family.fitted = {}
            if isinstance(family, EstimatorFamily) and not asked.force:
                family.require_same(depths)
            sweep(shown, task, family, depths, force=asked.force)
        evaluate_on(shown, Task(shown), [(family, depths) for _, family, depths in found], sets, force=asked.force)
        return pd.concat([rows_at(shown, family, depths) for _, family, depths in found], ignore_index=True)


def _estimators(run: RunFile, asked: _Asked) -> Iterator[dict[str, Any]]:
    found = list(asked.families(run))
    for _, family, depths in found:
        family.require_estimators()
        if isinstance(family, EstimatorFamily):
            family.require_same(depths, may_force=False)  # `estimators` takes no force
    for task, family, depths in found:
        family.fitted = {}
        sweep(run, task, family, depths)
        for name, estimator in (pair for depth in depths for pair in family.estimators(depth)):
            yield {
                "run": str(run.path), "run_id": run.run_id, "probe": name.probe, "depth": name.depth,
                "pooling": name.pooling, "estimator": estimator,
            }  # fmt: skip
