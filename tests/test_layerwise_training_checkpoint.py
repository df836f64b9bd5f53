"""Resuming: a training stopped anywhere ends as one never interrupted, and another one does not resume in silence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from conftest import make_run, small_config

from layerwise import commandline
from layerwise.errors import UserError
from layerwise.runfile import RunFile, sealed
from layerwise.runfile.place import Place
from layerwise.runfile.sealed import SealedFormat
from layerwise.training import checkpoint as state
from layerwise.training import loop as training
from layerwise.training import run as run_module
from layerwise.training import stage_batches as reuse
from layerwise.training.checkpoint import Checkpoint
from layerwise.training.run import train_run

KEPT = "greedy, the prefix kept"
PRUNED = "greedy, pruned"
FAST = "greedy, by a fast recipe"
PAIRED = "greedy, paired blocks above a whitening stem"
MODES = ("greedy", KEPT, PRUNED, FAST, PAIRED, "parallel", "end-to-end", "untrained")


@pytest.fixture(autouse=True, scope="module")
def every_epoch() -> Iterator[None]:
    """Save after every epoch, however short, so that a test can stop at any of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "SAVE_EVERY", 0)
        yield


FAST_TRAINING: dict[str, Any] = {
    "block_epochs": (3, 2), "schedule": "linear", "nesterov": True, "norm_bias_rate": 8.0, "lookahead": 0.9,
    "crop_padding": 1, "crop_fill": "reflect", "flip": True, "alternating_flip": True, "cutout": 2,
}  # fmt: skip


class Killed(BaseException):
    """Stands for a process that ends here and now."""


def digest(path: Path) -> str:
    with RunFile(path) as run:
        list(run.verify())
        return run.content_digest


def fields(mode: str) -> dict[str, Any]:
    extra: dict[str, Any] = {"training.ema_decay": 0.9} if mode != "untrained" else {}
    if mode == KEPT:
        extra, mode = {"training.crop_padding": 1, "training.views": 2, "training.prefix": "cache"}, "greedy"
    if mode == FAST:
        extra, mode = {f"training.{name}": value for name, value in FAST_TRAINING.items()}, "greedy"
    if mode == PAIRED:
        paired = {"architecture": "paired", "activation": "gelu", "k": 4, "depth": 3}
        extra, mode = {f"network.{name}": value for name, value in paired.items()}, "greedy"
    if mode == PRUNED:
        extra, mode = extra | {"network.prune_to": 2, "network.k": 3, "training.finetune_epochs": 2}, "greedy"
    few = {"data.subset": 400, "network.width": 4}
    return few | {"mode": mode, "training.epochs": 3, "training.lr_every": 2} | extra


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    return {mode: digest(make_run(folder / f"{mode}.h5", **fields(mode))) for mode in MODES}


def kill_after_saves(monkeypatch: pytest.MonkeyPatch, saves: int) -> None:
    """End the process right after it saved its state for the given time."""
    save, count = Checkpoint.save, [0]

    def saved(self: Checkpoint, *words: Any) -> None:
        save(self, *words)
        count[0] += 1
        if count[0] == saves:
            raise Killed

    monkeypatch.setattr(Checkpoint, "save", saved)


# In greedy mode 3 epochs and 2 blocks make 6 saves: in the first block, between blocks, in the second, at the end.
@pytest.mark.parametrize(
    ("mode", "saves"),
    [("greedy", n) for n in (1, 2, 3, 4, 6)]
    + [(KEPT, n) for n in (3, 4, 5)]
    + [(m, n) for m in (FAST, PAIRED) for n in (1, 3, 4)]
    + [(PRUNED, n) for n in (2, 3, 4, 5, 6, 8, 9, 10)]  # before a pruning, in and after a fine-tuning
    + [(m, n) for m in ("parallel", "end-to-end") for n in (1, 3)],
)
def test_killed_after_an_epoch_it_ends_with_the_digest_of_one_never_interrupted(
    mode: str, saves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: dict[str, str]
) -> None:
    path = tmp_path / "run.h5"
    with monkeypatch.context() as patch:
        kill_after_saves(patch, saves)
        with pytest.raises(Killed):
            make_run(path, **fields(mode))
    assert not path.exists()
    assert (tmp_path / "run.h5.state" / "state.h5").exists()
    assert digest(make_run(path, **fields(mode))) == uninterrupted[mode]
    assert os.listdir(tmp_path) == ["run.h5"]


def test_short_epochs_are_saved_now_and_then_and_the_last_of_a_stage_always(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "SAVE_EVERY", 10**6)
    written, create = [], state.create_sealed

    def noted(path: Path, form: SealedFormat) -> Any:
        written.append(path.name)
        return create(path, form)

    monkeypatch.setattr(state, "create_sealed", noted)
    make_run(tmp_path / "run.h5", **fields("greedy"))
    # The first epoch of all, and the last of each of two blocks.
    assert written == ["state.h5"] * 3


@pytest.mark.parametrize("block", [1, 2])
def test_killed_between_pruning_and_the_first_epoch_after_it_it_prunes_the_same_filters(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: dict[str, str]
) -> None:
    start = training.Report.start

    def killed(self: Any, stage: str, *words: Any, **named: Any) -> None:
        if stage == f"fine-tuning of auxiliary {block}":
            raise Killed
        start(self, stage, *words, **named)

    path = tmp_path / "run.h5"
    with monkeypatch.context() as patch:
        patch.setattr(training.Report, "start", killed)
        with pytest.raises(Killed):
            make_run(path, **fields(PRUNED))
    assert digest(make_run(path, **fields(PRUNED))) == uninterrupted[PRUNED]


@pytest.mark.parametrize("mode", ["greedy", "end-to-end"])
def test_killed_within_an_epoch_it_ends_the_same(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: dict[str, str]
) -> None:
    steps, step = [0], training.AuxiliaryProblem.descend

    def counted(self: Any, x: Any, y: Any) -> Any:
        steps[0] += 1
        if steps[0] == 15:  # 6 steps an epoch: within the third
            raise Killed
        return step(self, x, y)

    path = tmp_path / "run.h5"
    with monkeypatch.context() as patch:
        patch.setattr(training.AuxiliaryProblem, "descend", counted)
        with pytest.raises(Killed):
            make_run(path, **fields(mode))
    assert digest(make_run(path, **fields(mode))) == uninterrupted[mode]


@pytest.mark.parametrize("mode", MODES)
def test_killed_in_the_dump_it_does_not_train_again(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: dict[str, str]
) -> None:
    def killed(*words: Any) -> None:
        raise Killed

    path = tmp_path / "run.h5"
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "dump_depths", killed)
        with pytest.raises(Killed):
            make_run(path, **fields(mode))
    with monkeypatch.context() as patch:
        patch.setattr(training.AuxiliaryProblem, "descend", killed)
        assert digest(make_run(path, **fields(mode))) == uninterrupted[mode]


@pytest.mark.parametrize("mode", ["greedy", "untrained"])
def test_killed_between_publication_and_clearing_up_the_next_command_clears_up(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*words: Any) -> None:
        raise Killed

    path, folder = tmp_path / "run.h5", tmp_path / "run.h5.state"
    with monkeypatch.context() as patch:
        patch.setattr(state.shutil, "rmtree", killed)
        with pytest.raises(Killed):
            make_run(path, **fields(mode))
    assert path.exists() and folder.exists()
    os.link(path, tmp_path / ".run.h5.0123456789ab.partial")  # its temporary name, where it was killed before that went
    with pytest.raises(UserError, match="run.h5 exists already"):
        make_run(path, **fields(mode))
    assert os.listdir(tmp_path) == ["run.h5"]


@pytest.mark.parametrize("other", ["another configuration", "saved after the run file"])
def test_the_state_of_a_training_that_is_to_replace_a_run_is_kept(
    other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, kept = tmp_path / "run.h5", tmp_path / "run.h5.state" / "state.h5"
    make_run(path, **fields("greedy"))
    kill_after_saves(monkeypatch, 1)
    with pytest.raises(Killed):
        again = small_config(**fields("greedy") | ({"seed": 1} if other.startswith("another") else {}))
        train_run(again, Place(out=path, device=torch.device("cpu"), force=True))
    if other.startswith("another"):
        os.utime(kept, (0, 0))
    with pytest.raises(UserError, match="run.h5 exists already"):
        make_run(path, **fields("greedy"))
    assert kept.exists()


def test_a_process_killed_by_the_system_leaves_what_the_next_goes_on_from(warm: list[str], tmp_path: Path) -> None:
    words = ["--depth", "2", "--width", "4", "--aux-width", "4", "--epochs", "20", "--device", "cpu"]
    code = "from layerwise.commands.train import train_command; train_command()"
    command = [*warm, "-c", code, *words, "--out", "run.h5"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    state = tmp_path / "run.h5.state" / "state.h5"
    deadline = time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert state.exists()
    assert not (tmp_path / "run.h5").exists()
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "resuming from run.h5.state" in again.stderr
    assert sorted(os.listdir(tmp_path)) == ["run.h5"]
    whole = [*command[:-1], "whole.h5"]
    subprocess.run(whole, cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert digest(tmp_path / "run.h5") == digest(tmp_path / "whole.h5")


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the output of a training that was stopped after its first epoch."""
    path = tmp_path / "run.h5"
    with monkeypatch.context() as patch:
        kill_after_saves(patch, 1)
        with pytest.raises(Killed):
            make_run(path, **fields("greedy"))
    return path


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("training.epochs", 4, "training.epochs = 3, and now it is 4"),
        ("seed", 1, "seed = 0, and now it is 1"),
        ("network.k", 3, "network.k = 2, and now it is 3"),
        ("mode", "parallel", "mode = 'greedy', and now it is 'parallel'"),
    ],
)
def test_another_configuration_is_refused_with_the_field(stopped: Path, field: str, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=rf"run.h5.state was begun with {message}. .*delete that folder"):
        make_run(stopped, **fields("greedy") | {field: value})
    assert (stopped.parent / "run.h5.state" / "state.h5").exists()


def test_other_data_are_refused(stopped: Path) -> None:
    with h5py.File(stopped.parent / "run.h5.state" / "state.h5", "r+") as file:
        file.attrs["fingerprint"] = "{}"
        file.attrs["digest"] = sealed._digest(file)  # as of a state that was begun with them
    with pytest.raises(UserError, match="was begun with other data: the images of digits have changed"):
        make_run(stopped, **fields("greedy"))


def test_a_state_of_a_version_without_seeding_goes_on_where_the_seeding_of_that_time_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, older = tmp_path / "run.h5", fields("greedy") | {"network.seeding": 1}
    with monkeypatch.context() as patch:
        kill_after_saves(patch, 1)
        with pytest.raises(Killed):
            make_run(path, **older)
    with h5py.File(tmp_path / "run.h5.state" / "state.h5", "r+") as file:
        tree = json.loads(file.attrs["config"])
        del tree["network"]["seeding"]
        file.attrs["config"] = json.dumps(tree, sort_keys=True)
        file.attrs["digest"] = sealed._digest(file)
    with pytest.raises(UserError, match="begun with network.seeding = 1, and now it is 2"):
        make_run(path, **fields("greedy"))
    make_run(path, **older)
    assert digest(path) == digest(make_run(tmp_path / "whole.h5", **older))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("cut", "was cut short or damaged .*cannot be resumed from: delete"),
        ("foreign", "is not the state of a training"),
    ],
)
def test_a_state_that_cannot_be_read_is_named(stopped: Path, damage: str, message: str) -> None:
    state = stopped.parent / "run.h5.state" / "state.h5"
    if damage == "cut":
        state.write_bytes(state.read_bytes()[:3000])
    else:
        with h5py.File(state, "w") as file:
            file["x"] = 1
    with pytest.raises(UserError, match=message):
        make_run(stopped, **fields("greedy"))


@pytest.mark.parametrize("begun", ["cache", "recompute"])
def test_what_auto_was_resolved_to_holds_whatever_memory_is_free_when_it_goes_on(
    begun: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, still = tmp_path / "run.h5", fields("greedy") | {"training.crop_padding": 0, "training.prefix": "auto"}
    room = {"cache": 10**12, "recompute": 0}
    monkeypatch.setattr(reuse, "memory_room", lambda: room[begun])
    with monkeypatch.context() as patch:
        kill_after_saves(patch, 1)
        with pytest.raises(Killed):
            make_run(path, **still)
    (other,) = set(room) - {begun}
    monkeypatch.setattr(reuse, "memory_room", lambda: room[other])
    # Nothing would fit now; what is computed is the same.
    monkeypatch.setattr(training, "Kept", lambda *given: training.Recomputed(*given[:-1]))
    with pytest.raises(UserError, match=rf"begun with training.prefix = '{begun}', and now it is '{other}'"):
        make_run(path, **still | {"training.prefix": other})
    with RunFile(make_run(path, **still)) as run:
        assert run.config is not None
        assert run.config.training.prefix == begun


def test_a_field_that_forbids_the_prefix_of_auto_is_the_one_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, views = tmp_path / "run.h5", fields("greedy") | {"training.crop_padding": 1, "training.views": 1}
    with monkeypatch.context() as patch:
        kill_after_saves(patch, 1)
        with pytest.raises(Killed):
            make_run(path, **views)
    with pytest.raises(UserError, match="was begun with training.views = 1, and now it is 0"):
        make_run(path, **views | {"training.views": 0})


def test_nothing_is_kept_for_a_block_whose_epochs_are_all_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: dict[str, str]
) -> None:
    def filled(*words: Any) -> None:
        raise AssertionError("an output was kept that nobody reads")

    with monkeypatch.context() as patch:
        kill_after_saves(patch, 6)
        with pytest.raises(Killed):
            make_run(tmp_path / "run.h5", **fields(KEPT))
    monkeypatch.setattr(training, "Kept", filled)
    assert digest(make_run(tmp_path / "run.h5", **fields(KEPT))) == uninterrupted[KEPT]


def test_a_second_process_on_the_same_output_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(out=tmp_path / "run.h5", device=torch.device("cpu"))

    def second(*words: Any) -> None:
        with pytest.raises(UserError, match=r"another layerwise-train is working on .*run.h5"):
            train_run(small_config(), place)
        raise Killed

    monkeypatch.setattr(run_module, "train", second)
    with pytest.raises(Killed):
        train_run(small_config(), place)


def test_what_a_killed_dump_left_is_removed_by_the_next_run(tmp_path: Path) -> None:
    (tmp_path / ".run.h5.0123456789ab.partial").write_text("half a dump")
    (tmp_path / ".other.h5.0123456789ab.partial").write_text("somebody else's")
    make_run(tmp_path / "run.h5")
    assert sorted(os.listdir(tmp_path)) == [".other.h5.0123456789ab.partial", "run.h5"]


def test_a_training_that_a_person_stops_says_that_it_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save = Checkpoint.save

    def stop_after(self: Checkpoint, *words: Any) -> None:
        save(self, *words)
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", stop_after)
    assert commandline.call(lambda: make_run(tmp_path / "run.h5", **fields("greedy")), "layerwise-train", []) == 130
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("layerwise-train: stopped by SIGINT. What was trained is kept in ")
    assert said.endswith("run.h5.state: the same command goes on from there.\n")
