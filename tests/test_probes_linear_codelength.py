"""Codelength: nested sizes, bits against a slow form, the choice of each size as if it were alone, and bad input."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_run

import figures
import probes
from analysis.geometry.accuracy import with_accuracy
from analysis.geometry.decoding import decoding, sample_complexity, surplus_description_length
from analysis.geometry.table import Asked
from analysis.tables import read
from figures.tables import codelength_table
from layerwise.commandline import call
from layerwise.errors import UsageError, UserError
from probes.cli import probe
from probes.linear.codelength import CodelengthKind, with_values
from probes.linear.features import DepthData
from probes.linear.nested import SIZES, nested
from probes.linear.penalties import choose
from probes.probe import ProbeName
from probes.protocol import play
from probes.solver.path import Fitter
from probes.solver.standardiser import Standardiser
from tests.reference import slow_codelength

CLASSES = ("a", "b", "c")


def data_of(n: int = 160, apart: float = 1.2, seed: int = 0) -> DepthData:
    """Return features of three classes whose means are some deviations apart."""
    rng = np.random.default_rng(seed)
    x, y = {}, {}
    for split, count in (("train", n), ("validation", 90), ("test", 90)):
        y[split] = rng.permutation(np.arange(count) % 3)
        x[split] = (rng.normal(size=(count, 4)) * [1, 3, 0.2, 1] + apart * np.eye(3, 4)[y[split]]).astype(np.float32)
    return DepthData(x, y, y, "run.h5", 1, torch.device("cpu"), None)


def opened(data: DepthData, splits: Any) -> DepthData:
    x, y = ({split: part[split] for split in splits} for part in (data.x, data.y))
    return DepthData(x, y, y, data.file, data.depth, data.device, data.max_memory)


def played(data: DepthData, seed: int = 0) -> tuple[CodelengthKind, list[Any]]:
    """Return the kind and its fits by size, with their values."""
    name = ProbeName(depth=1, probe="codelength", probe_seed=seed)
    kind = CodelengthKind(name, CLASSES, "validation")
    found = play(kind, lambda splits: opened(data, splits), list(data.x))
    assert kind.sizes is not None
    return kind, with_values([found[name, i][0] for i in range(SIZES)], kind.sizes, 3)


def test_sizes_are_nested_and_stratified_by_seed() -> None:
    label = np.repeat([0, 1, 2], [512, 256, 1024])[np.random.default_rng(0).permutation(1792)]
    taken = nested(label, CLASSES, 0, "")
    assert taken.shape == (SIZES, len(label)) and taken[-1].all()
    assert not (taken[:-1] & ~taken[1:]).any()
    counts = np.array([np.bincount(label[own], minlength=3) for own in taken])
    assert counts.tolist() == [[512 >> i, 256 >> i, 1024 >> i] for i in range(SIZES - 1, -1, -1)]
    np.testing.assert_array_equal(taken, nested(label, CLASSES, 0, ""))
    assert (taken[0] != nested(label, CLASSES, 1, "")[0]).any()


@pytest.mark.parametrize("least", [16, 17, 40, 127, 129])
def test_sizes_of_small_classes_differ_and_hold_each_class(least: int) -> None:
    label = np.repeat([0, 1, 2], [least, 60, 200])
    counts = np.array([np.bincount(label[own], minlength=3) for own in nested(label, CLASSES, 3, "")])
    assert (np.diff(counts.sum(1)) > 0).all() and counts.min() >= 1


def test_too_few_images_of_a_class_are_named() -> None:
    with pytest.raises(
        UserError, match="x: found 15 images of class b, too few for 8 nested sizes; expected at least 16"
    ):
        nested(np.repeat([0, 1, 2], [30, 15, 30]), CLASSES, 0, "x")
    with pytest.raises(UserError, match="found 0 images of class c"):
        nested(np.repeat([0, 1], 30), CLASSES, 0, "x")


def test_bits_are_those_of_a_slow_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("probes.solver.path.RELATIVE", 1e-12)
    data = data_of()
    kind, fits = played(data)
    assert kind.sizes is not None
    z = Standardiser(data.x["train"])(np.asarray(data.x["train"])).astype(np.float64)
    bits, uniform = slow_codelength(z, data.y["train"], kind.sizes.taken, [fit.penalty for fit in fits], 3)
    values = fits[-1].values
    assert values["train", "codelength_bits"].value == pytest.approx(bits, rel=1e-6)
    assert values["train", "codelength_uniform_bits"].value == pytest.approx(uniform, rel=1e-12)
    assert values["train", "compression"].value == pytest.approx(uniform / bits, rel=1e-6)


def test_the_sum_of_what_each_size_adds() -> None:
    kind, fits = played(data_of())
    assert kind.sizes is not None
    counts = kind.sizes.counts
    added = [fits[i].values["train", f"next_loss_bits@{counts[i]}"].value for i in range(SIZES - 1)]
    total = counts[0] * math.log2(3) + sum(np.diff(counts) * added)
    whole = fits[-1].values["train", "codelength_bits"]
    assert whole.value == pytest.approx(total) and counts[0] * math.log2(3) <= whole.low < total < whole.high
    assert [fit.n_train for fit in fits] == counts and all(fit.converged for fit in fits)


def test_each_size_chooses_as_if_it_were_alone() -> None:
    data = data_of()
    kind, fits = played(data)
    assert kind.sizes is not None
    standardise, y = Standardiser(data.x["train"]), data.y["train"]
    for i in (0, 3, SIZES - 1):
        rows = kind.sizes.taken[i]
        fitter = Fitter(data.x["train"][rows], y[rows], n_classes=3, standardiser=standardise)
        score = kind._score(np.asarray(data.x["train"]), data, standardise)

        def solve(lam: float, start: Any, fitter: Fitter = fitter, i: int = i, score: Any = score) -> Any:
            ((fit,),) = fitter.fit([lam], None if start is None else [start])
            return score(i, fit, False)

        best, _ = choose(solve)
        assert best.fit.lam == pytest.approx(fits[i].penalty)


def test_features_that_say_nothing_have_no_short_code() -> None:
    _, nothing = played(data_of(apart=0.0))
    _, much = played(data_of(apart=4.0))
    compression = [fits[-1].values["train", "compression"].value for fits in (nothing, much)]
    assert compression[0] < 1.05 and compression[1] > 3


def run_probe(path: Path, *words: object) -> int:
    return call(probe, "probe-depth", [str(path), "--device", "cpu", *map(str, words)])


def rows(path: Path) -> pd.DataFrame:
    return pd.read_csv(path.with_suffix(".probes.csv"), keep_default_na=False, na_values=[""])


def test_the_command_its_table_and_the_figures_rows(
    own_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--probe", "linear,codelength", "--no-pixels", "--depths", "2"]
    assert run_probe(own_run, *words) == 0
    out = [line.replace(str(own_run.parent), "") for line in capsys.readouterr().out.splitlines()]
    assert all(len(line) <= 80 for line in out)
    table = rows(own_run)
    own = table[table.probe == "codelength"].set_index("metric")
    last = table[(table.probe == "linear") & (table.refit == 0) & (table.split == "test")].set_index("metric")
    n = int(last.n_train.iloc[0])
    # All images, and nothing else, are what the linear probe is fitted to before its refit.
    assert own.loc[f"log_loss_bits@{n}", "value"] == pytest.approx(last.loc["log_loss_bits", "value"], rel=0.02)
    assert own.loc[f"log_loss_bits@{n}", "lambda"] == last.loc["accuracy", "lambda"]
    assert own.loc[f"accuracy@{n}", "value"] == pytest.approx(last.loc["accuracy", "value"], abs=0.003)
    uniform = n * math.log2(10)
    assert own.loc["codelength_uniform_bits", "value"] == pytest.approx(uniform)
    assert f"a uniform code takes {uniform:.0f} bits for the {n} labels of the train fold" in out
    line = next(line for line in out if line.startswith("    2 2x2") and "[" not in line)
    assert line.split()[2] == f"{own.loc['codelength_bits', 'value']:.0f}" and len(line.split()) == 3 + SIZES
    assert set(own.converged) == {1} and set(own.selection) == {"validation"} and set(own.refit) == {0}

    drawn = with_accuracy([own_run], Asked("test", [2]), "linear", ["codelength"])
    (point,) = drawn[drawn["measure"] == "codelength"].to_dict("records")
    assert point["value"] == pytest.approx(own.loc["codelength_bits", "value"] / n)
    assert point["ci_low"] < point["value"] < point["ci_high"] and point["n"] == n
    with monkeypatch.context() as patched:  # it stands in the table
        patched.setattr("probes.linear.codelength.play", lambda *what: pytest.fail("fitted again"))
        assert run_probe(own_run, *words) == 0


def test_orders_are_seeds_and_a_run_without_a_fold_has_one_penalty(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run.h5", **{"data.holdout": 0.0, "training.epochs": 1})
    table = probes.fit(path, "codelength", depths=2, seeds=2, device="cpu", quiet=True)
    bits = table[table["metric"] == "codelength_bits"]
    assert list(bits["probe_seed"]) == [0, 1] and bits["value"].nunique() == 2
    assert set(table["lambda"]) == {1e-4} and set(table["selection"]) == {"seen"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--control", "permuted"], "--probe codelength chooses a penalty for each size, and on permuted labels there"),
        (["--features", "matched"], "--probe codelength reads native features alone. Leave out --features."),
        (["--evaluate", "x"], "--probe codelength is of the labels of the train fold, so it is not evaluated on other"),
    ],
)
def test_what_cannot_be_asked_is_one_line(
    words: list[str], message: str, own_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_probe(own_run, "--probe", "codelength", *words) == 2
    assert capsys.readouterr().err.startswith(f"probe-depth: {message}")


def test_python_says_it_in_its_own_words_and_no_estimator_stands_for_it(own_run: Path) -> None:
    with pytest.raises(UsageError, match="probe='codelength' chooses a penalty for each size"):
        probes.fit(own_run, "codelength", control="permuted")
    with pytest.raises(UsageError, match="no estimator of scikit-learn's can stand for it"):
        probes.estimators(own_run, "codelength")


def test_a_figure_without_its_rows_says_how_they_are_made(own_run: Path) -> None:
    assert run_probe(own_run, "--probe", "ncm", "--depths", "2") == 0
    with pytest.raises(UserError, match="run.h5 has no codelength of 2x2 averages. `probe-depth .*--probe codelength"):
        with_accuracy([own_run], Asked("test", [2]), "ncm", ["codelength"])


def test_sample_complexity_and_surplus_are_those_of_a_slow_form() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        sizes = np.cumsum(rng.integers(1, 40, SIZES)).tolist()
        losses = (3.3 / (1 + rng.uniform(0, 2) * np.arange(SIZES)) + rng.uniform(0, 0.2, SIZES)).tolist()
        epsilon, surplus, reached = float(rng.uniform(0.1, 3)), 0.0, math.inf
        for image in range(sizes[-1]):  # whose label is sent after so many others
            known = [loss for n, loss in zip(sizes, losses, strict=True) if n <= image]
            surplus += max(0.0, (known[-1] if known else math.log2(10)) - epsilon)
        for n, loss in reversed(list(zip(sizes, losses, strict=True))):
            reached = n if loss <= epsilon else reached
        assert surplus_description_length(sizes, losses, epsilon, 10) == pytest.approx(surplus)
        assert sample_complexity(sizes, losses, epsilon) == reached


def test_at_no_loss_the_surplus_is_the_codelength_of_a_new_image() -> None:
    # With eps 0 the sum is that of a codelength whose bits are those of the test split.
    sizes, losses = [2, 6, 14], [1.5, 0.8, 0.4]
    assert surplus_description_length(sizes, losses, 0.0, 4) == pytest.approx(2 * 2 + 4 * 1.5 + 8 * 0.8)


def test_the_table_says_what_a_loss_takes_and_where_it_is_not_reached(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run.h5", **{"training.epochs": 1})
    probes.fit(path, "codelength", depths=[1, 2], quiet=True)
    rows = pd.read_csv(path.with_suffix(".probes.csv"))
    at = rows[(rows.depth == 2) & rows.metric.str.startswith("log_loss_bits@")]
    losses = {int(name.partition("@")[2]): value for name, value in zip(at.metric, at.value, strict=True)}
    epsilon = sorted(losses.values())[2]
    found = figures.table(path, "codelength", epsilon=epsilon).set_index("depth")
    assert (
        found.loc[2, "samples"] == min(n for n, loss in losses.items() if loss <= epsilon) and found.loc[2, "reached"]
    )
    total = rows[(rows.depth == 2) & (rows.metric == "codelength_bits")].value.iloc[0]
    assert found.loc[2, "bits"] * found.loc[2, "n"] == pytest.approx(total)
    none = figures.table(path, "codelength", epsilon=1e-3)
    assert none["samples"].isna().all() and not none["reached"].any()
    shown = codelength_table(none)
    assert [row[5] for row in shown.rows] == [f"> {max(losses):,}"] * 2 and all(row[6][0] == ">" for row in shown.rows)
    with pytest.raises(UserError, match="no run has a codelength. `probe-depth RUN.H5 --probe codelength` makes it."):
        decoding(read([path]).query("probe != 'codelength'"))
