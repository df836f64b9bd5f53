"""run.probes.csv and run.predictions.h5: columns, replacement, what others wrote stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import make_run

from layerwise.api import extract_arrays
from layerwise.errors import UserError
from layerwise.runfile import RunFile
from probes.probe import ProbeName
from probes.protocol import PROTOCOL_VERSION, Fit, Predictions
from probes.results.columns import COLUMNS, KEY
from probes.results.table import (
    check_files,
    chosen_penalty,
    experiment,
    read_rows,
    read_table,
    rows,
    rows_of,
    save,
    table_path,
    write_table,
)
from probes.tasks.task import Task

# The design's own list, written out: a column never changes its name inside a format version.
DESIGN = [
    "run_id",
    "depth",
    "probe",
    "probe_width",
    "probe_seed",
    "control",
    "pooling",
    "features",
    "split",
    "metric",
    "refit",
    "protocol_version",
    "mode",
    "k",
    "width",
    "aux_width",
    "seed",
    "dataset",
    "module",
    "channels",
    "map_height",
    "map_width",
    "n_features",
    "n_classes",
    "n_train",
    "n_samples",
    "chance",
    "value",
    "ci_low",
    "ci_high",
    "lambda",
    "C",
    "learning_rate",
    "selection",
    "converged",
    "certificate",
    "iterations",
    "precision",
    "seconds",
    "software",
    "experiment",
    "target",
    "test_reads",
    "network",
    "neighbors",
    "distance",
    "blocks",
    "batch_norm",
    "initialisation",
    "activation",
    "variant",
    "batch_size",
    "estimator",
    "images_folder",
    "images_digest",
    "digest",
]


def fit(run: RunFile, refit: int = 0, accuracy: float = 0.75) -> Fit:
    def scored(split: str) -> Predictions:
        label = run.labels(split)
        predicted = np.where(np.arange(len(label)) < accuracy * len(label), label, (label + 1) % 10)
        half = np.log(np.full(len(label), 0.5))
        return Predictions(label, predicted, half, half)

    splits = ("train", "test") if refit else ("train", "validation", "test")
    return Fit(
        refit=refit, selection="validation", n_train=1000, n_features=24, seconds=1.0, penalty=1e-4,
        certificate=1e-6, converged=True, iterations=7, scores={split: scored(split) for split in splits},
    )  # fmt: skip


def test_the_table_has_the_designs_columns_and_each_key_once(own_run: Path) -> None:
    with RunFile(own_run) as run:
        for depth in (0, 1):
            save(run, Task(run), [(ProbeName(depth=depth, probe="linear"), [fit(run), fit(run, 1)])])
        run_id = run.run_id
    table = pd.read_csv(table_path(own_run))
    assert list(table.columns) == DESIGN == list(COLUMNS)
    assert not table.duplicated(list(KEY)).any()
    assert len(table) == 2 * (3 + 2) * (3 + 10)
    assert set(table.run_id) == {run_id}
    assert table[["k", "width", "aux_width", "seed"]].drop_duplicates().to_numpy().tolist() == [[2, 6, 5, 0]]
    assert table.dtypes["k"] == np.int64
    assert table["variant"].isna().all()
    assert table[["blocks", "batch_norm"]].drop_duplicates().to_numpy().tolist() == [[2, 1]]


def test_values_intervals_and_units(own_run: Path) -> None:
    with RunFile(own_run) as run:
        found = pd.DataFrame(rows(run, Task(run), ProbeName(depth=2, probe="linear"), [fit(run)]))
        label, train = run.labels("test"), run.labels("train")
    test = found[found.split == "test"].set_index("metric")
    n = len(label)
    assert test.value["accuracy"] == pytest.approx(0.75, abs=1 / n)
    assert test.value["log_loss_bits"] == pytest.approx(1.0)
    assert test.ci_low["accuracy"] < test.value["accuracy"] < test.ci_high["accuracy"]
    assert pd.isna(test.ci_low["log_loss_bits"])
    assert found[(found.split == "train")].ci_low.isna().all()
    assert test.C["accuracy"] == pytest.approx(1 / (1000 * 1e-4))
    assert test.chance["accuracy"] == (label == np.bincount(train).argmax()).mean()
    assert test.n_samples["accuracy"] == n
    assert (test.channels["accuracy"], test.map_height["accuracy"], test.map_width["accuracy"]) == (6, 8, 8)


def test_running_a_probe_again_replaces_its_rows_and_no_others(own_run: Path) -> None:
    with RunFile(own_run) as run:
        save(run, Task(run), [(ProbeName(depth=1, probe="linear"), [fit(run), fit(run, 1)])])
        save(run, Task(run), [(ProbeName(depth=1, probe="cnn-1", probe_width=64, pooling=0), [fit(run)])])
        save(run, Task(run), [(ProbeName(depth=1, probe="linear"), [fit(run, accuracy=0.5)])])
    table = read_table(table_path(own_run))
    linear = table[table.probe == "linear"]
    assert set(linear.refit) == {0}
    assert linear[(linear.split == "test") & (linear.metric == "accuracy")].value.item() == pytest.approx(0.5, abs=0.01)
    assert len(table[table.probe == "cnn-1"]) == 3 * (3 + 10)


def test_rows_of_an_earlier_run_of_that_name_are_kept(own_run: Path) -> None:
    with RunFile(own_run) as run:
        save(run, Task(run), [(ProbeName(depth=1, probe="linear"), [fit(run)])])
        write_table(table_path(own_run), [read_table(table_path(own_run)).assign(run_id="earlier")])
        save(run, Task(run), [(ProbeName(depth=1, probe="linear"), [fit(run)])])
        assert set(read_table(table_path(own_run)).run_id) == {"earlier", run.run_id}


def _save_one(path: str, depth: int) -> None:
    with RunFile(path) as run:
        save(run, Task(run), [(ProbeName(depth=depth, probe="linear"), [fit(run)])])


def test_two_processes_that_save_at_once_lose_nothing(warm: list[str], own_run: Path) -> None:
    code = f"import sys; from {__name__} import _save_one; _save_one(sys.argv[1], int(sys.argv[2]))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    workers = [subprocess.Popen([*warm, "-c", code, str(own_run), str(depth)], env=environment) for depth in (0, 1, 2)]
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    assert set(read_table(table_path(own_run)).depth) == {0, 1, 2}


def test_a_table_that_is_none_is_refused_and_kept(own_run: Path) -> None:
    table_path(own_run).write_text("a,b\n1,2\n")
    with (
        RunFile(own_run) as run,
        pytest.raises(UserError, match="is no table of probe results: it lacks the column 'run_id'"),
    ):
        save(run, Task(run), [(ProbeName(depth=1, probe="linear"), [fit(run)])])
    assert table_path(own_run).read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [("run.probes.csv", b""), ("run.probes.csv", bytes(range(128, 256))), ("run.predictions.h5", b"junk")],
)
def test_other_content_in_the_place_of_results_is_refused_before_anything_is_fitted(
    own_run: Path, name: str, content: bytes
) -> None:
    path = own_run.with_name(name)
    path.write_bytes(content)
    with pytest.raises(
        UserError, match=f"{name} (cannot be read as a table|would hold the predictions of run.h5, but)"
    ):
        check_files(own_run)
    assert path.read_bytes() == content


def test_an_experiment_is_what_runs_to_be_averaged_share(tmp_path: Path, run_path: Path) -> None:
    def name(path: Path) -> str | None:
        with RunFile(path) as run:
            return experiment(run)

    first = name(run_path)
    quick = {"training.epochs": 2}
    late = {**quick, "training.lr_first": 1}
    matched = [
        name(make_run(tmp_path / f"{mode}.h5", mode=mode, match=match, **late))
        for mode, match in (("untrained", "epochs"), ("end-to-end", "operations"))
    ]
    assert matched[0] == matched[1] != first
    assert name(make_run(tmp_path / "a.h5", seed=1, **quick)) == first
    assert name(make_run(tmp_path / "b.h5", mode="untrained", **{"network.k": 1, "network.width": 3})) == first
    assert name(make_run(tmp_path / "e.h5", mode="end-to-end", match="operations", **quick)) == first
    assert name(make_run(tmp_path / "c.h5", **{"training.epochs": 1})) != first
    assert name(make_run(tmp_path / "d.h5", **{"data.subset": 500})) != first


def test_a_narrower_network_or_last_auxiliary_is_another_experiment_and_fields_without_use_are_not(
    tmp_path: Path,
) -> None:
    def name(path: Path, **fields: Any) -> str | None:
        with RunFile(make_run(path, **{"mode": "greedy", "training.epochs": 1} | fields)) as run:
            return experiment(run)

    first = name(tmp_path / "a.h5")
    assert name(tmp_path / "b.h5", **{"training.finetune_epochs": 1, "training.finetune_rate": 0.1}) == first
    pruned = {"network.prune_to": 3, "training.finetune_epochs": 1}
    others = [pruned, pruned | {"training.finetune_rate": 0.1}, {"network.last_aux_width": 3}]
    assert len({first, *(name(tmp_path / f"{i}.h5", **fields) for i, fields in enumerate(others))}) == 4


def test_what_a_study_chose_for_each_mode_makes_no_other_experiment(tmp_path: Path) -> None:
    def name(path: Path, **fields: Any) -> str | None:
        with RunFile(make_run(path, mode="untrained", **fields)) as run:
            return experiment(run)

    tuned = {"tuned": "network.initialisation,training.learning_rate"}
    first = name(tmp_path / "a.h5", **tuned)
    assert first != name(tmp_path / "b.h5")
    folds = [name(tmp_path / f"f{seed}.h5", seed=seed, **{"data.fold_seed": seed}) for seed in (1, 2)]
    assert folds[0] == folds[1]  # their spread is to include the fold
    chosen = {"network.initialisation": "kaiming", "training.learning_rate": 0.01}
    assert name(tmp_path / "c.h5", **tuned, **chosen) == first
    assert name(tmp_path / "d.h5", **tuned, **{"training.momentum": 0.5}) != first


def test_the_experiment_of_an_archived_file_keeps_its_name() -> None:
    with RunFile(Path(__file__).parent / "golden" / "run-v1.h5") as run:
        assert experiment(run) == "3f87a1c87d73"


def test_reads_of_the_test_split_are_counted_across_refits_controls_apart(own_run: Path) -> None:
    real, teacher = ProbeName(depth=1, probe="linear"), ProbeName(depth=1, probe="linear", control="teacher")
    with RunFile(own_run) as run:
        for name in (real, teacher, real, real):
            save(run, Task(run), [(name, [fit(run), fit(run, 1)])])
    table = read_table(table_path(own_run))
    assert set(table[table.control == "none"].test_reads) == {3}
    assert set(table[table.control == "teacher"].test_reads) == {1}


def test_a_table_of_the_first_protocol_is_read_and_kept_as_it_is(own_run: Path) -> None:
    with RunFile(own_run) as run:
        save(run, Task(run), [(ProbeName(depth=1, probe="linear"), [fit(run)])])
        old = read_table(table_path(own_run)).drop(columns=["target", "test_reads", "digest"])
        old.assign(protocol_version=1).to_csv(table_path(own_run), index=False)
        assert read_rows(run).empty
        save(run, Task(run), [(ProbeName(depth=1, probe="linear"), [fit(run)])])
    table = read_table(table_path(own_run))
    assert set(table[table.protocol_version == 1].target) == {"class"}
    # the test split had been read once before, whatever the protocol was
    assert set(table[table.protocol_version == PROTOCOL_VERSION].test_reads) == {2}


def test_a_table_without_later_columns_is_read_and_gets_them(own_run: Path) -> None:
    with RunFile(own_run) as run:
        save(run, Task(run), [(ProbeName(depth=1, probe="linear"), [fit(run)])])
        later = ["neighbors", "distance", "blocks", "batch_norm", "variant", "digest"]
        old = read_table(table_path(own_run)).drop(columns=later)
        old.to_csv(table_path(own_run), index=False)
        save(run, Task(run), [(ProbeName(depth=2, probe="linear"), [fit(run)])])
    found = pd.read_csv(table_path(own_run)).groupby("depth")[["blocks", "batch_norm"]].max()
    assert found.isna().to_numpy().tolist() == [[True, True], [False, False]]
    assert found.loc[2].tolist() == [2, 1]


def test_rows_of_another_number_of_epochs_are_another_recipes(own_run: Path) -> None:
    name = ProbeName(depth=1, probe="linear")
    with RunFile(own_run) as run:
        save(run, Task(run), [(name, [fit(run)])])
        assert len(rows_of(read_rows(run), name)) == len(rows_of(read_rows(run), name, 7)) > 0
        assert rows_of(read_rows(run), name, 8).empty
        assert rows_of(read_rows(run), ProbeName(depth=2, probe="linear")).empty
        assert chosen_penalty(run, ProbeName(depth=1, probe="linear", control="permuted"), "none") == 1e-4
        assert chosen_penalty(run, ProbeName(depth=2, probe="linear", control="permuted"), "none") is None


def test_the_experiment_of_a_network_built_elsewhere_is_that_of_its_repetitions(tmp_path: Path) -> None:
    def named(folder: Path, **changed: Any) -> str | None:
        folder.mkdir()
        arrays = {"layer": np.eye(60, 4), "labels": np.arange(60) % 3}
        words = {"trained_on": "other-data", "label": "net"} | changed
        with extract_arrays(arrays, out=folder / "run.h5", **words) as run:
            return experiment(run)

    first = named(tmp_path / "a")
    assert first is not None and named(tmp_path / "b", seed=3) == first
    assert first not in {named(tmp_path / "c", label="other"), named(tmp_path / "d", holdout=0.2)}
