"""Tests of the study: its plan, its folder, one small study from nothing, and what goes wrong in it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import figures
from figures.commands.study import separability_study
from figures.study import launch_local
from figures.study import report as study_report
from figures.study.budgets import BUDGETS, asked
from figures.study.cost import cost_of
from figures.study.definition import Study, Unit, begin, difference, diverged_path, run_path
from figures.study.grid import SEED, Trial, require_choices, results, trial_config, trials, with_choices
from figures.study.launch_local import launch_processes
from figures.study.launch_slurm import launch_slurm, parse_options
from figures.study.notes import failed, notes
from figures.study.work import Machine, complete, is_complete
from layerwise.commandline import call
from layerwise.commands.train import _configure
from layerwise.datasets import Sizes
from layerwise.errors import UsageError, UserError
from layerwise.runfile import RunFile
from probes.results.table import read_rows

Capture = pytest.CaptureFixture[str]
CPU = Machine(device="cpu")
SMALL = [
    "--budget", "smoke", "--k", "1,2", "--width", "4", "--seeds", "1", "--epochs", "1", "--depth", "2",
    "--subset", "200", "--probe", "linear,cnn-1", "--probe-width", "4", "--device", "cpu", "--jobs", "1",
    "--grid", "none",
]  # fmt: skip
FIGURES = ("separability", "training", "attribution")
DRAWS = 2  # of features in the inputs' number: ten, of which tests of probes know, would take as long as all else here


def study_of(name: str = "smoke", **fields: Any) -> Study:
    return replace(asked(name, {}, []), **fields)


def command(folder: Path, *words: str) -> int:
    return call(separability_study, "separability-study", [*SMALL, "-o", str(folder), *words])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make one small study from nothing; tests that change it take a copy."""
    folder = tmp_path_factory.mktemp("study") / "study"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("analysis.failures.failure", none_failed)
        patch.setattr("probes.linear.probe.DRAWS", DRAWS)
        assert command(folder, "--quiet") == 0
    return folder


def none_failed(run: RunFile) -> str:
    """Take every network for trained: in the one epoch that these have time for, few are."""
    return ""


@pytest.fixture(autouse=True)
def all_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.failures.failure", none_failed)
    monkeypatch.setattr("probes.linear.probe.DRAWS", DRAWS)


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "study"))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Draw nothing, which takes longer than all else here; return the networks that were to be drawn, each time."""
    times: list[list[str]] = []

    def note(folder: Path, study: Study, units: Sequence[Unit]) -> list[Path]:
        times.append([unit.name for unit in units])
        return []

    monkeypatch.setattr(study_report, "report", note)
    return times


def contents(folder: Path, parts: tuple[str, ...] = ("figures", "tables")) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for part in parts for p in (folder / part).iterdir()}


# --- the plan


def test_the_papers_study_is_45_greedy_networks_and_their_controls() -> None:
    units = study_of("paper").units()
    counts = [sum(unit.mode == mode for unit in units) for mode in ("greedy", "untrained", "end-to-end")]
    assert counts == [45, 4 * 30, 45]  # untrained ones of two initialisations, with relu and without
    assert len(set(unit.name for unit in units)) == len(units)


def test_seed_by_seed_greedy_first() -> None:
    names = [unit.name for unit in study_of(ks=(1, 3), widths=(8,), seeds=2, modes=("parallel",)).units()]
    untrained = ["untrained", "untrained-kaiming", "untrained-linear", "untrained-linear-kaiming"]
    first = [f"{kind}-k{k}-M8" for kind in ("greedy", *untrained, "parallel") for k in (1, 3)]
    assert names == [f"{name}-s{seed}" for seed in (0, 1) for name in first]


def test_budgets_differ_in_size_alone() -> None:
    found = set()
    for name in BUDGETS:
        study = study_of(name)
        first = {unit.mode: unit for unit in reversed(study.units())}
        kinds = {mode: [(job.probes, sorted(job.settings)) for job in study.jobs(unit)] for mode, unit in first.items()}
        cnn = {probe for probe in study.probes if probe.startswith("cnn-")}
        kinds = {mode: [["cnn" if set(p) & cnn else "trained" if "auxiliary" in p else "linear", s] for p, s in jobs]
                 for mode, jobs in kinds.items()}  # fmt: skip
        found.add((study.ks, study.modes, study.seeds, study.match, study.grid, json.dumps(kinds, sort_keys=True)))
    assert len(found) == 1


@pytest.mark.parametrize(
    ("name", "image", "train", "test"),
    [("smoke", (1, 8, 8), 400, 359), ("cpu", (3, 32, 32), 10_000, 10_000), ("gpu", (3, 32, 32), 50_000, 10_000),
     ("paper", (3, 32, 32), 50_000, 10_000)],
)  # fmt: skip
def test_a_budget_says_its_operations(name: str, image: tuple[int, int, int], train: int, test: int) -> None:
    study = study_of(name)
    counts = {"train": train * 9 // 10, "validation": train // 10, "test": test}
    data = Sizes(image, 10, counts)
    kinds = {u: cost_of(study, u, data, CPU) for u in study.units() if not u.seed}
    whole = [kinds[replace(u, seed=0)] for u in study.units()]
    whole += [cost_of(study, trial, data, CPU) for trial in trials(study)]
    assert sum(cost.network + cost.probes for cost in whole) == pytest.approx(BUDGETS[name].operations, rel=0.05)


def test_the_configuration_is_that_of_layerwise_train() -> None:
    flags = {
        "data.subset": 10_000, "network.k": 2, "network.width": 32, "network.depth": 4, "network.aux_width": 24,
        "training.epochs": 6, "mode": "untrained", "seed": 1, "data.dataset": "cifar10",
    }  # fmt: skip
    tuned = "tuned=network.initialisation,training.learning_rate"
    theirs = _configure("separability", None, flags, ["training.schedule=one-cycle", "training.batch_size=64", tuned])
    ours = study_of("cpu").config(Unit("untrained", 2, 32, 1))
    assert difference(theirs, ours) == "" and theirs == ours
    assert difference(replace(theirs, seed=2), ours) == "seed is 2, not 1"
    assert difference(replace(theirs, precision="bf16"), ours) == ""


def test_epochs_keep_the_share_after_which_the_rate_drops() -> None:
    study = asked("paper", {"training.epochs": 10}, [])
    assert study.settings["training.lr_every"] == 3


# --- the folder


def test_a_study_grows_and_is_refused_where_it_is_another(tmp_path: Path) -> None:
    begin(tmp_path / "s", study_of(ks=(1, 2)))
    begin(tmp_path / "s", study_of(ks=(1, 2, 3), seeds=6, modes=("end-to-end", "parallel")))
    text = (tmp_path / "s" / "study.json").read_text()
    assert json.loads(text)["ks"] == [1, 2, 3]
    with pytest.raises(UserError, match=r"study.json is of --seeds 6, but --seeds 5 was asked for. A study grows"):
        begin(tmp_path / "s", study_of(modes=("end-to-end", "parallel")))
    with pytest.raises(UserError, match=r"is of training.epochs 8, but 9 was asked for. Give another -o."):
        begin(tmp_path / "s", study_of(seeds=6, modes=("end-to-end", "parallel"),
                                       settings={**study_of().settings, "training.epochs": 9}))  # fmt: skip
    assert (tmp_path / "s" / "study.json").read_text() == text


def test_a_setting_is_the_same_by_flag_by_set_and_from_the_file(tmp_path: Path) -> None:
    own = ["data.image_size=32", "data.test_share=0.2", "network.downsample=2", "greedy:training.learning_rate=0.10"]
    begin(tmp_path / "s", asked("smoke", {"data.dataset": "imagefolder"}, own))
    flags = {"data.dataset": "imagefolder", "data.image_size": 32, "data.test_share": 0.2}
    begin(tmp_path / "s", asked("smoke", {**flags, "network.downsample": (2,)}, ["greedy:training.learning_rate=0.1"]))
    begin(tmp_path / "s", asked("smoke", {"data.dataset": "imagefolder"}, own))
    with pytest.raises(UserError, match=r"is of data.image_size 32, but 16 was asked for. Give another -o."):
        begin(tmp_path / "s", asked("smoke", {**flags, "data.image_size": 16}, own[2:]))


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="holds files, but no study.json"):
        begin(tmp_path, study_of())
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(UserError, match=r"study.json is damaged"):
        begin(tmp_path, study_of())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--probe", "cnn-1"], "--probe has cnn-1, but a study needs linear or linear-ovr."),
        (["--probe", "linear,auxiliary"], "probe auxiliary is part of every study. Leave it out of --probe."),
        (["--with", "untrained"], "unknown mode 'untrained'"),
        (["--budget", "huge"], "unknown budget 'huge'. Choices: smoke, cpu, gpu, paper."),
        (["--k", "1,x"], "--k has 'x', but takes positive integers with commas."),
        (["--seeds", "0"], "--seeds is 0, but takes positive integers."),
        (["--set", "network.k=2"], "--set network.k is what the networks of a study differ in; use --k."),
        (["--set", "match=epochs"], "--set match is what the networks of a study differ in; use --match."),
        (["--set", "end-to-end:training.lr=1"], "unknown configuration field 'training.lr'."),
        (["--set", "parallel:training.epochs=1"], "unknown mode of --set MODE:KEY=VALUE 'parallel'."),
        (["--match", "time"], "unknown match 'time'. Choices: epochs, operations."),
        (["--grid", "large"], "unknown grid 'large'. Choices: small, none."),
        (["--set", "data.holdout=0"], "without a validation fold (--holdout 0) nothing can be chosen on it"),
        (["--set", "training.lr"], "--set 'training.lr' has no value; write --set key=value."),
        (["--set", "training.lr=1"], "unknown configuration field 'training.lr'."),
        (["--launcher", "pbs"], "unknown launcher 'pbs'"),
        (["--slurm", "a=1"], "--slurm is of --launcher slurm. Give both."),
        (["--launcher", "slurm", "--slurm", "gpu"], "--slurm 'gpu' is no key=value"),
        (["--launcher", "slurm", "--jobs", "2"], "--jobs is of --launcher local; on a cluster each network is a job."),
    ],
)
def test_wrong_words_leave_nothing(words: list[str], message: str, tmp_path: Path, capsys: Capture) -> None:
    assert call(separability_study, "separability-study", ["-o", str(tmp_path / "s"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


# --- a study


def test_everything_from_nothing(made: Path) -> None:
    assert sorted(p.name for p in (made / "figures").iterdir()) == sorted(
        f"{name}{suffix}" for name in FIGURES for suffix in (".pdf", ".svg", ".png", ".csv", ".txt")
    )
    tables = {f"{name}{suffix}" for name in study_report.TABLES for suffix in (".md", ".tex", ".csv")}
    assert {p.name for p in (made / "tables").iterdir()} == {*tables, "rows.csv"}
    modes = {path.stem.rpartition("-k")[0] for path in (made / "runs").glob("*-s0.h5")}
    kinds = {"untrained", "untrained-kaiming", "untrained-linear", "untrained-linear-kaiming"}
    assert modes == {"greedy", *kinds, "end-to-end"}
    csv = (made / "figures" / "attribution.csv").read_text()
    assert all(part in csv for part in ("pooling", "width", "relu", "training", "left"))


def test_the_raw_pixels_are_probed_once_and_the_untrained_also_with_as_few_features_as_the_input(made: Path) -> None:
    pixels, projected = [], []
    for path in sorted((made / "runs").glob("*-s0.h5")):
        with RunFile(path) as run:
            rows = read_rows(run)
        pixels += [path.stem] * bool(((rows["probe"] == "linear") & (rows["pooling"] == 0)).any())
        projected += [path.stem] * bool((rows["features"] == "input").any())
    assert pixels == ["untrained-k1-M4-s0"]
    assert projected == [f"untrained-linear{start}-k{k}-M4-s0" for start in ("", "-kaiming") for k in (1, 2)]


def test_again_nothing_is_trained_and_the_bytes_are_the_same(own: Path, capsys: Capture) -> None:
    before, stamps = contents(own), {p: p.stat().st_mtime_ns for p in (own / "runs").glob("*.h5")}
    shutil.rmtree(own / "figures")
    assert command(own) == 0
    assert "12 networks, all complete" in capsys.readouterr().out
    assert contents(own) == before
    assert {p: p.stat().st_mtime_ns for p in (own / "runs").glob("*.h5")} == stamps


def test_what_is_missing_is_made_again_and_nothing_else(own: Path, drawn: list[list[str]], capsys: Capture) -> None:
    gone, probed = own / "runs" / "end-to-end-k2-M4-s0.h5", own / "runs" / "greedy-k1-M4-s0.probes.csv"
    with RunFile(gone) as run:
        digest = run.content_digest
    for path in (gone, probed):
        path.unlink()
    assert command(own, "--dry-run") == 0
    shown = capsys.readouterr().out.splitlines()
    assert max(map(len, shown)) <= 80
    left = {line[:21].strip(): int(line[27:33]) for line in shown[1:] if "k=" in line}
    assert {name for name, count in left.items() if count} == {"greedy k=1 M=4", "end-to-end k=2 M=4"}
    assert not gone.exists()
    assert command(own) == 0
    err = capsys.readouterr().err
    assert "1/2  greedy-k1-M4-s0 in " in err and "2/2  end-to-end-k2-M4-s0 in " in err
    with RunFile(gone) as run:
        assert run.content_digest == digest
    assert [len(names) for names in drawn] == [12]


def test_one_network_that_fails_loses_no_other(own: Path, drawn: list[list[str]], capsys: Capture) -> None:
    broken, gone = own / "runs" / "greedy-k2-M4-s0.h5", own / "runs" / "end-to-end-k1-M4-s0.h5"
    broken.write_bytes(b"not HDF5")
    gone.unlink()
    assert command(own) == 1
    err = capsys.readouterr().err
    assert "greedy-k2-M4-s0 failed: " in err and gone.exists()
    assert "separability-study: 1 of 12 networks failed, the first is greedy-k2-M4-s0: " in err
    assert broken.read_bytes() == b"not HDF5"
    (names,) = drawn
    assert len(names) == 11 and broken.stem not in names and gone.stem in names


def test_a_file_of_another_configuration_is_named_and_kept(own: Path, drawn: list[list[str]], capsys: Capture) -> None:
    other = own / "runs" / "untrained-k1-M4-s0.h5"
    shutil.copy(own / "runs" / "untrained-k2-M4-s0.h5", other)
    before = other.read_bytes()
    assert command(own) == 1
    assert (
        "untrained-k1-M4-s0.h5 is no network of this study: network.k is 2, not 1. Move it away"
        in capsys.readouterr().err
    )
    assert other.read_bytes() == before
    assert other.stem not in drawn[0] and len(drawn[0]) == 11


def test_no_greedy_network_no_picture(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no power")

    monkeypatch.setattr(launch_local, "complete", fail)
    assert command(tmp_path / "s") == 1
    err = capsys.readouterr().err
    assert "no greedy network is complete, so nothing is drawn." in err and "12 of 12 networks failed" in err


def test_what_cannot_be_drawn_is_said(own: Path, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("layerwise").propagate = True
    study = Study.from_json((own / "study.json").read_text())
    greedy = [unit for unit in study.units() if unit.mode == "greedy"]
    paths = study_report.report(own, study, greedy)
    assert "figure attribution is left out: no run is untrained" in caplog.text
    assert own / "figures" / "separability.pdf" in paths


def test_a_study_is_shown_on_a_page_as_far_as_it_goes(own: Path) -> None:
    (own / "runs" / "untrained-k1-M4-s0.h5").unlink()
    (own / "runs" / "untrained-k2-M4-s0.probes.csv").unlink()
    path = own / "runs" / "end-to-end-k2-M4-s0.probes.csv"
    rows = pd.read_csv(path, dtype=str)
    rows[rows["probe"] != "cnn-1"].to_csv(path, index=False)
    path = own / "runs" / "end-to-end-k1-M4-s0.probes.csv"
    rows = pd.read_csv(path, dtype=str)
    rows[(rows["probe"] != "linear") | (rows["depth"] != "2")].to_csv(path, index=False)  # a sweep stopped before it
    page = figures.separability_report(own)
    assert "1 of 12 networks are not trained yet: untrained-k1-M4-s0." in page
    lacking = "untrained-k2-M4-s0 (all), end-to-end-k1-M4-s0 (linear), end-to-end-k2-M4-s0 (cnn-1)"
    assert f"3 of 12 networks lack probes: {lacking}." in page
    assert ">greedy-k2-M4-s0</th>" in page
    assert ">end-to-end-k1-M4-s0</th>" not in page and ">end-to-end-k2-M4-s0</th>" not in page
    assert "No setting was chosen for a mode (grid: none)." in page and "data.subset = 200" in page
    assert "What was remarked in the making" in page and "figure attribution is left out" in page


# --- what is fair between modes


def test_networks_of_other_modes_spend_the_operations_of_the_greedy_ones_and_captions_say_so(made: Path) -> None:
    words = "Epochs with the operations of the greedy networks of the same k and M: end-to-end for "
    for path in (made / "figures" / "separability.txt", made / "tables" / "contrasts.md"):
        text = path.read_text()
        assert words in text and "No setting was chosen for a mode (grid: none)." in text
    with RunFile(run_path(made, Unit("end-to-end", 2, 4, 0))) as run:
        assert run.config is not None and run.config.training.matched_epochs == 1
    assert json.loads((made / "study.json").read_text())["match"] == "operations"


def test_a_study_begun_before_operations_were_matched_is_another(own: Path, capsys: Capture) -> None:
    tree = json.loads((own / "study.json").read_text())
    for name in ("match", "grid", "own", "probe_epochs"):
        del tree[name]
    (own / "study.json").write_text(json.dumps(tree))
    assert command(own) == 1
    assert "is of --match epochs, but --match operations was asked for. Give another -o." in capsys.readouterr().err
    assert command(own, "--match", "epochs") == 1
    assert "is of network.seeding 1, but that of the recipe was asked for." in capsys.readouterr().err


def test_each_mode_has_settings_of_its_own() -> None:
    words = ["end-to-end:network.initialisation=kaiming", "end-to-end-k2:training.learning_rate=0.02"]
    study = asked("smoke", {}, words)
    found = {(mode, k): study.config(Unit(mode, k, 8, 0)) for mode in ("greedy", "end-to-end") for k in (1, 2)}
    assert {key: config.network.initialisation for key, config in found.items()} == {
        ("greedy", 1): "default", ("greedy", 2): "default", ("end-to-end", 1): "kaiming", ("end-to-end", 2): "kaiming",
    }  # fmt: skip
    assert found["end-to-end", 2].training.learning_rate == 0.02 != found["end-to-end", 1].training.learning_rate
    tried = {(trial.mode, trial.k): 0 for trial in trials(study)}
    for trial in trials(study):
        tried[trial.mode, trial.k] += 1
    # What was given is not tried: of k = 2 nothing is left.
    assert tried == {("greedy", 1): 4, ("greedy", 2): 4, ("greedy", 3): 4, ("end-to-end", 1): 2, ("end-to-end", 3): 2}
    assert Study.from_json(study.to_json()) == study


def reached(folder: Path, trial: Trial, accuracy: float | None, loss: float | None = 1.0) -> None:
    row = {"mode": trial.mode, "k": trial.k, "width": trial.width, **trial.settings, "epochs": 3}
    row |= {"validation_accuracy": accuracy, "validation_log_loss": loss}
    (folder / "grid").mkdir(parents=True, exist_ok=True)
    (folder / "grid" / f"{trial.name}.json").write_text(json.dumps(row))


def test_the_validation_fold_chooses_ties_by_log_loss_and_a_loss_that_is_no_number_never(tmp_path: Path) -> None:
    study = study_of(ks=(1,), modes=())
    tried = trials(study)
    assert [(t.initialisation, t.rate) for t in tried] == [
        ("default", 0.1), ("default", 0.0333), ("kaiming", 0.1), ("kaiming", 0.0333)
    ]  # fmt: skip
    for trial, accuracy, loss in zip(tried, (0.8, 0.9, None, 0.9), (0.1, 0.4, None, 0.3), strict=True):
        assert with_choices(tmp_path, study).chosen == {}  # not before all are there
        reached(tmp_path, trial, accuracy, loss)
    config = with_choices(tmp_path, study).config(Unit("greedy", 1, 8, 0))
    assert (config.network.initialisation, config.training.learning_rate) == ("kaiming", 0.0333)
    assert trial_config(study, tried[0]).seed == SEED


def test_a_grid_that_failed_whole_is_said(tmp_path: Path) -> None:
    study = study_of(ks=(1,), modes=())
    for trial in trials(study):
        reached(tmp_path, trial, None, None)
    with pytest.raises(UserError, match="none of the 4 settings tried for greedy, k = 1 could be trained"):
        require_choices(results(tmp_path, study))
    (tmp_path / "grid" / f"{trials(study)[0].name}.json").write_text("{")
    with pytest.raises(UserError, match="is damaged. Delete it, and the same command trains it again."):
        results(tmp_path, study)


def test_a_study_with_a_grid_chooses_first_prints_it_and_goes_on(
    tmp_path: Path, drawn: list[list[str]], capsys: Capture
) -> None:
    folder = tmp_path / "s"
    words = ["--grid", "small", "--k", "1", "--with", "none", "--probe", "linear"]
    words += ["--set", "network.initialisation=default"]
    assert command(folder, *words) == 0
    shown = capsys.readouterr().out
    assert "grid greedy k=1           2     2" in shown and "  chosen\n" in shown
    table = pd.read_csv(folder / "choices.csv")
    assert list(table["training.learning_rate"]) == [0.1, 0.0333] and table["chosen"].sum() == 1
    assert {path.suffix for path in (folder / "grid").iterdir()} == {".json"}
    chosen = table.loc[table["chosen"] == 1, "training.learning_rate"].iloc[0]
    with RunFile(run_path(folder, Unit("greedy", 1, 4, 0))) as run:
        assert run.config is not None and run.config.training.learning_rate == chosen
    assert command(folder, *words) == 0
    assert "5 networks, all complete" in capsys.readouterr().out
    assert command(folder, *words, "--width", "2,4") == 1
    assert "has chosen the settings of each mode at its smallest M, 4, but" in capsys.readouterr().err


def test_each_seed_has_a_fold_of_its_own_where_that_is_asked(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of(vary_fold=True, seeds=2)
    assert [study.config(Unit("greedy", 1, 8, seed)).data.fold_seed for seed in (0, 1)] == [1, 2]
    assert Study.from_json(study.to_json()) == study
    words = "Each seed has a validation fold, and so training images, of its own: intervals over seeds include"
    assert notes(own, study, [], {})[0].startswith(words)
    with pytest.raises(UsageError, match="--vary-fold gives each seed a fold of its own; leave out"):
        replace(study, settings={**study.settings, "data.fold_seed": 1})
    with pytest.raises(UserError, match="is of --vary-fold False, but --vary-fold True was asked for"):
        begin(own, replace(Study.from_json((own / "study.json").read_text()), vary_fold=True))


def test_a_network_that_did_not_train_is_named_and_left_out(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, bad = Study.from_json((own / "study.json").read_text()), Unit("end-to-end", 1, 4, 0)
    words = "9.9% on its train fold, chance 10.2%"
    monkeypatch.setattr("analysis.failures.failures", lambda runs: {run_path(own, bad): words})
    monkeypatch.setattr(study_report, "_drawings", lambda *_: iter([]))
    study_report.report(own, study, study.units())
    text = (own / "tables" / "accuracy.md").read_text()
    rule = "its own last classifier is not better than chance on its train fold, exact binomial test at 0.001, or its"
    assert f"Left out, for it did not train ({rule} loss was not finite): {bad.name} ({words})." in text
    csv = pd.read_csv(own / "tables" / "accuracy.csv")
    assert sorted(set(csv.loc[csv["mode"] == "end-to-end", "k"])) == [2]


def test_where_no_greedy_network_trained_nothing_is_drawn(
    own: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("layerwise").propagate = True
    study = Study.from_json((own / "study.json").read_text())
    greedy = [run_path(own, unit) for unit in study.units() if unit.mode == "greedy"]
    monkeypatch.setattr("analysis.failures.failures", lambda runs: dict.fromkeys(greedy, "9% on its train fold"))
    assert study_report.report(own, study, study.units()) == []
    assert "no greedy network trained, so nothing is drawn" in caplog.text


def test_a_training_whose_loss_is_no_number_is_noted_and_not_repeated(tmp_path: Path) -> None:
    words = ["training.learning_rate=1e30", "training.epochs=1", "data.subset=200"]
    study = replace(asked("smoke", {}, words), grid="none", ks=(1,), widths=(4,), modes=())
    begin(tmp_path / "s", study)
    unit = study.units()[0]
    complete(tmp_path / "s", study, unit, CPU)
    assert "the loss is not finite" in diverged_path(tmp_path / "s", unit).read_text()
    assert is_complete(tmp_path / "s", study, unit, CPU)
    assert failed(tmp_path / "s", [unit]) == {unit: "loss not finite"}


# --- processes


def test_networks_by_two_processes(own: Path, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("layerwise").propagate = True
    study = Study.from_json((own / "study.json").read_text())
    units = [Unit("untrained", 1, 4, 0), Unit("untrained", 2, 4, 0), Unit("greedy", 1, 4, 0)]
    before = {unit: _accuracies(own, unit) for unit in units}
    for path in [path for unit in units for path in (own / "runs").glob(f"{unit.name}.*")]:
        path.unlink()
    run_path(own, units[1]).write_bytes(b"not HDF5")
    caplog.set_level(logging.INFO, "layerwise")
    failed = launch_processes(own, study, units, CPU, 2)
    assert list(failed) == [units[1]] and run_path(own, units[1]).read_bytes() == b"not HDF5"
    assert "untrained-k2-M4-s0 failed: " in caplog.text and "3/3  " in caplog.text
    assert before[units[0]].equals(_accuracies(own, units[0]))
    np.testing.assert_allclose(before[units[2]], _accuracies(own, units[2]), atol=0.03)  # another number of threads


def test_a_process_that_was_killed_is_said(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study.from_json((own / "study.json").read_text())
    monkeypatch.setattr(launch_local, "_begin_worker", os._exit)
    with pytest.raises(UserError, match="a process that trains was killed, .* give it a smaller --jobs"):
        launch_processes(own, study, study.units()[:1], CPU, 2)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_command(sent: signal.Signals, tmp_path: Path) -> None:
    words = [*SMALL, "--jobs", "2", "--epochs", "9999", "-o", str(tmp_path / "s")]
    code = "from figures.commands.study import study_command; study_command()"
    process = subprocess.Popen([sys.executable, "-c", code, *words])
    try:
        _wait_for(lambda: len(list((tmp_path / "s" / "runs").glob("*.state"))) == 2)
        workers = [pid for pid, parent in _living().items() if parent == process.pid]
        process.send_signal(sent)
        assert process.wait(timeout=60) == (143 if sent == signal.SIGTERM else -sent)
    finally:
        process.kill()
    assert len(workers) >= 2
    _wait_for(lambda: not set(workers) & set(_living()))


def _living() -> dict[int, int]:
    """Return the processes of this machine that are not over, each with its parent."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # gone since it was listed
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            found |= {int(stat.parent.name): int(parent)} if state != "Z" else {}
    return found


def _wait_for(holds: Callable[[], bool], seconds: int = 120) -> None:
    for _ in range(10 * seconds):
        if holds():
            return
        time.sleep(0.1)
    pytest.fail(f"did not come in {seconds} s")


def _accuracies(folder: Path, unit: Unit) -> pd.Series:
    with RunFile(run_path(folder, unit)) as run:
        rows = read_rows(run)
    return rows.loc[(rows["metric"] == "accuracy") & rows["probe"].str.startswith("linear"), "value"]


# --- clusters


def test_networks_as_jobs(own: Path) -> None:
    study = Study.from_json((own / "study.json").read_text())
    units = [Unit("untrained", 1, 4, 0), Unit("untrained", 2, 4, 0)]
    run_path(own, units[0]).unlink()
    run_path(own, units[1]).write_bytes(b"not HDF5")
    failed = launch_slurm(own, study, units, CPU, {"timeout_min": 5}, cluster="local")
    assert list(failed) == units[1:] and "log " in failed[units[1]]
    assert "Traceback" not in failed[units[1]] and run_path(own, units[1]).read_bytes() == b"not HDF5"
    assert is_complete(own, study, units[0], CPU)


def test_a_cluster_without_submitit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "submitit", None)
    with pytest.raises(UserError, match=r"pip install '.\[slurm\]'"):
        launch_slurm(tmp_path, study_of(), [], CPU, {})


def test_an_option_that_no_cluster_has(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="^--slurm: "):
        launch_slurm(tmp_path, study_of(), study_of().units()[:1], CPU, {"timeout": 5}, cluster="local")


def test_options_of_a_cluster() -> None:
    assert parse_options(["timeout_min=120", "slurm_partition=gpu"]) == {"timeout_min": 120, "slurm_partition": "gpu"}
