"""labels.csv: joined on the index, whatever its order and however few it labels; each mistake is one clear line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import small_config

from layerwise import commandline
from layerwise.errors import UserError
from layerwise.runfile import RunFile
from layerwise.runfile.place import Place
from layerwise.training.run import train_run
from probes.tasks.controls import controlled
from probes.tasks.target import Target


def write(path: Path, index: Sequence[int], label: Sequence[object], split: Sequence[str] | None = None) -> Path:
    columns = {"index": index, "label": label} | ({} if split is None else {"split": split})
    pd.DataFrame(columns).sample(frac=1, random_state=0).to_csv(path, index=False)
    return path


def test_labels_are_joined_on_the_index_and_sorted_as_people_sort(run_path: Path, tmp_path: Path) -> None:
    values = [(i * 7) % 12 for i in range(1797)]
    with RunFile(run_path) as run:
        target = Target(run, write(tmp_path / "seven.csv", range(1797), values))
        assert target.classes == tuple(str(i) for i in range(12))
        assert target.target.startswith("seven@")
        for split in run.splits:
            assert np.array_equal(target.labels(split), (run.indices(split) * 7) % 12)
            assert np.array_equal(target.rows(split), np.arange(len(run.indices(split))))


def test_images_without_a_label_are_left_out_and_counted(
    run_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commandline.set_verbosity(quiet=True, verbose=False)
    with RunFile(run_path) as run:
        target = Target(run, write(tmp_path / "odd.csv", range(0, 1797, 2), ["a", "b"] * 449 + ["a"]))
        index = run.indices("test")
        assert np.array_equal(index[target.rows("test")], index[index % 2 == 0])
        assert np.array_equal(target.labels("test"), (index[index % 2 == 0] // 2) % 2)
        permuted = controlled(target, "permuted")
        assert np.array_equal(permuted.rows("test"), target.rows("test"))
        assert permuted.target == target.target
    said = f"odd.csv labels {(index % 2 == 0).sum()} of the 359 test images; the others are left out"
    assert said in capsys.readouterr().err


def test_the_split_tells_apart_images_of_the_same_index(tmp_path: Path, data_dir: Path) -> None:
    run_path = tmp_path / "run.h5"
    config = small_config(mode="untrained", **{"data.dataset": "fashion-mnist", "data.subset": 200})
    train_run(config, Place(out=run_path, device=torch.device("cpu"), max_size=10**9, data_dir=data_dir))
    with RunFile(run_path) as run:
        rows = [(split, int(i)) for split in ("train", "test") for i in range(60_000)]
        path = write(tmp_path / "x.csv", [i for _, i in rows], [f"{s}{i % 2}" for s, i in rows], [s for s, _ in rows])
        target = Target(run, path)
        assert target.classes == ("test0", "test1", "train0", "train1")
        assert np.array_equal(target.labels("test"), run.indices("test") % 2)
        assert np.array_equal(target.labels("validation"), 2 + run.indices("validation") % 2)
        bare = write(tmp_path / "bare.csv", range(60_000), [i % 2 for i in range(60_000)])
        with pytest.raises(UserError, match=r"bare.csv has no column split, but index \d+ is an image of train and of"):
            Target(run, bare)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"cannot be read as a table of labels \(EmptyDataError\); expected the columns index, label and"),
        ("index,class\n1,2\n", "has no column label; expected the columns index, label and"),
        ("label\n1\n", "has no column index"),
        ("index,label\n1.5,a\n", "has an index that is no whole number"),
        ("index,label,split\n1,a,dev\n", "has the split 'dev'; expected.*Images of a validation fold are train's"),
        ("index,label\n1,a\n1,b\n", "labels index 1 more than once; expected one label an image"),
        ("index,label\n1,0.25\n2,1\n", "has the label 0.25, a number with a fraction; expected classes"),
        ("index,label\n99999,a\n", "has no label for the 1295 train images of run.h5; expected two different"),
    ],
)
def test_each_mistake_is_one_clear_line(run_path: Path, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with RunFile(run_path) as run, pytest.raises(UserError, match=f"labels.csv {message}") as raised:
        Target(run, path)
    assert "\n" not in str(raised.value)


def test_one_label_for_all_a_missing_file_and_a_taken_name_are_refused(run_path: Path, tmp_path: Path) -> None:
    with RunFile(run_path) as run:
        with pytest.raises(UserError, match="one.csv has only 'a' for the 1295 train images"):
            Target(run, write(tmp_path / "one.csv", range(1797), ["a"] * 1797))
        with pytest.raises(UserError, match=r"none.csv cannot be read as a table of labels \(FileNotFoundError\)"):
            Target(run, tmp_path / "none.csv")
        with pytest.raises(UserError, match="a target named 'class' would be taken for the run's own classes"):
            Target(run, write(tmp_path / "class.csv", range(1797), ["a", "b", "c"] * 599))


def test_another_table_of_the_same_name_is_another_target(run_path: Path, tmp_path: Path) -> None:
    with RunFile(run_path) as run:
        one = Target(run, write(tmp_path / "x.csv", range(1797), ["a", "b", "c"] * 599)).target
        again = Target(run, write(tmp_path / "x.csv", range(1796, -1, -1), (["a", "b", "c"] * 599)[::-1])).target
        other = Target(run, write(tmp_path / "x.csv", range(1797), ["b", "a", "c"] * 599)).target
    assert one == again != other
    assert other.startswith("x@")


WORDS = ("NA", "None", "left", "nan", "null")


def test_words_that_pandas_takes_for_missing_are_labels(run_path: Path, tmp_path: Path) -> None:
    with RunFile(run_path) as run:
        target = Target(run, write(tmp_path / "words.csv", range(1797), [WORDS[i % 5] for i in range(1797)]))
        assert target.classes == WORDS
        for split in run.splits:
            assert np.array_equal(target.rows(split), np.arange(len(run.indices(split))))
            assert np.array_equal(target.labels(split), run.indices(split) % 5)
