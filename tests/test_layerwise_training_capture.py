"""Capture: each call does its work once, whatever was captured; a capture that fails costs nothing but a warning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from conftest import small_config, train_network
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from layerwise import commandline
from layerwise.config import TrainingConfig
from layerwise.datasets import load_dataset
from layerwise.model.network import LayerwiseNetwork
from layerwise.training.batches import DeviceSplit
from layerwise.training.capture import UNCAPTURED, CapturedStep, Recorder
from layerwise.training.loop import solve
from layerwise.training.prefix import FrozenPrefix
from layerwise.training.problem import AuxiliaryProblem
from layerwise.training.stage_batches import Recomputed

CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


class Tape(Recorder):
    """Stands for a GPU's recorder: what it records runs on the inputs as they are when it is played."""

    def __init__(self, fails: bool = False):
        self.fails, self.ran, self.recorded, self.played = fails, 0, 0, 0

    def run(self, function: Callable[..., None], tensors: Sequence[Tensor]) -> None:
        self.ran += 1
        function(*tensors)

    def record(self, function: Callable[..., None], inputs: Sequence[Tensor]) -> Callable[[], None]:
        self.recorded += 1
        if self.fails:
            raise RuntimeError("operation not permitted\nwhen stream is capturing")

        def play() -> None:
            self.played += 1
            function(*inputs)

        return play


def call(step: CapturedStep, sizes: Sequence[int]) -> None:
    for i, n in enumerate(sizes):
        step(torch.full((n,), float(i)))


@pytest.mark.parametrize("fails", [False, True])
def test_every_call_does_its_work_once_on_its_own_values(fails: bool) -> None:
    seen: list[list[float]] = []
    step = CapturedStep(lambda t: seen.append(t.tolist()), CPU, Tape(fails))
    sizes = [3, 3, 2, 3, 3, 3, 2, 3]
    call(step, sizes)
    assert seen == [[float(i)] * n for i, n in enumerate(sizes)]
    assert step.is_captured is not fails


def test_full_batches_are_captured_when_warm_and_shorter_ones_never() -> None:
    tape = Tape()
    call(CapturedStep(lambda t: None, CPU, tape), [3] * 10 + [2] * 10)
    assert (tape.ran, tape.recorded, tape.played) == (UNCAPTURED + 10, 1, 10 - UNCAPTURED)


def test_a_failed_capture_is_said_once_and_not_tried_again(capsys: pytest.CaptureFixture[str]) -> None:
    tape = Tape(fails=True)
    commandline.set_verbosity(quiet=True, verbose=False)
    call(CapturedStep(lambda t: None, CPU, tape), [3] * 10)
    assert tape.recorded == 1
    assert " ".join(capsys.readouterr().err.split()) == (
        "the training step could not be captured as a CUDA graph (operation not permitted when stream is capturing): "
        "it goes on without one"
    )


def test_on_the_cpu_nothing_is_captured() -> None:
    seen: list[int] = []
    step = CapturedStep(lambda t: seen.append(len(t)), CPU)
    call(step, [3] * 6)
    assert seen == [3] * 6
    assert not step.is_captured
    assert step.seconds == 0


@pytest.mark.parametrize(
    "fields", [{}, {"optimizer": "adamw", "schedule": "cosine"}, {"ema_decay": 0.9}], ids=["sgd", "adamw", "averaged"]
)
def test_all_that_a_step_changes_keeps_its_place(fields: dict[str, Any]) -> None:
    """A graph repeats itself on the memory that it was captured with, over epochs and drops of the learning rate."""
    torch.manual_seed(0)
    cfg = TrainingConfig(epochs=4, lr_every=2, **fields)
    problem = AuxiliaryProblem(nn.BatchNorm1d(4), nn.Linear(4, 2), cfg)
    x, y = torch.randn(8, 4), torch.arange(8) % 2

    def places() -> list[int]:
        state = [t for entries in problem.optimizer.state.values() for t in entries.values() if isinstance(t, Tensor)]
        averaged = list(problem.averaged.state_dict().values()) if problem.averaged else []
        parts = [*problem.module.state_dict().values(), *state, *averaged, problem._sums, problem._finite]
        return [t.data_ptr() for t in parts]

    found = []
    for epoch in range(4):
        problem.start_epoch(epoch, 2)
        for _ in range(2):
            problem.step(x, y)
            found.append(places())
    assert all(place == found[0] for place in found)


def source(config: Any, device: torch.device) -> tuple[AuxiliaryProblem, Recomputed]:
    data = load_dataset("digits", holdout=0.1)
    torch.manual_seed(0)
    net = LayerwiseNetwork(config.network, data.image_shape, 10, data.mean, data.std, 0).to(device)
    problem = AuxiliaryProblem(net.blocks[0], net.auxiliaries[0], config.training, config.precision)
    splits = {"train": DeviceSplit(data.splits["train"], device)}
    return problem, Recomputed(splits, FrozenPrefix(net, 0, config.precision), config, 1)


class NothingRead(TorchDispatchMode):
    """Refuses what would bring a value, or a shape that depends on values, to the host."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert function.overloadpacket.__name__ not in {"_local_scalar_dense", "nonzero", "equal", "masked_select"}
        return function(*args, **kwargs or {})


def test_what_would_wait_is_refused() -> None:
    with pytest.raises(AssertionError), NothingRead():
        float(torch.ones(()))


@pytest.mark.parametrize("fields", [{}, {"training.ema_decay": 0.9}, {"training.schedule": "cosine"}])
def test_a_step_reads_nothing_back_to_the_host(fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU's own check, as far as a CPU can make it."""
    original, steps = CapturedStep.__call__, []

    def watched(self: CapturedStep, *tensors: Tensor) -> None:
        with NothingRead():
            original(self, *tensors)
        steps.append(len(tensors))

    monkeypatch.setattr(CapturedStep, "__call__", watched)
    problem, batches = source(small_config(**fields), CPU)
    list(solve([problem], batches.batches, range(1), 21, "a test", fetch=batches.fetch))
    assert steps == [2] * 21


def test_what_trains_before_and_after_a_pruning_is_captured_anew_and_ends_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The network changes its size between stages, and what is recorded of one must not serve the next."""
    config = small_config(**{"network.k": 3, "network.prune_to": 3, "training.finetune_epochs": 2})
    data = load_dataset("digits", holdout=0.1)
    results, tapes, original = [], [], CapturedStep.__init__

    def taped(self: CapturedStep, function: Callable[..., None], device: torch.device) -> None:
        tapes.append(Tape())
        original(self, function, device, tapes[-1])

    for init in (original, taped):
        monkeypatch.setattr(CapturedStep, "__init__", init)
        net = LayerwiseNetwork(config.network, data.image_shape, 10, data.mean, data.std, 0)
        train_network(net, data, config)
        results.append(net.state_dict())
    assert [tape.recorded for tape in tapes] == [1] * 4
    assert all(tape.played > tape.ran for tape in tapes)
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name])


def test_a_step_of_fine_tuning_reads_nothing_back_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    original = CapturedStep.__call__

    def watched(self: CapturedStep, *tensors: Tensor) -> None:
        with NothingRead():
            original(self, *tensors)

    monkeypatch.setattr(CapturedStep, "__call__", watched)
    config = small_config(**{"network.prune_to": 3, "training.finetune_epochs": 1, "training.epochs": 1})
    data = load_dataset("digits", holdout=0.1)
    net = LayerwiseNetwork(config.network, data.image_shape, 10, data.mean, data.std, 0)
    assert len(train_network(net, data, config)) == 4


@needs_gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize(
    "fields", [{}, {"training.optimizer": "adamw", "training.schedule": "cosine"}, {"training.ema_decay": 0.9}]
)
def test_no_step_waits_for_the_host(fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    original, steps = CapturedStep.__call__, []

    def watched(self: CapturedStep, *tensors: Tensor) -> None:
        torch.cuda.set_sync_debug_mode("error")
        try:
            original(self, *tensors)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        steps.append(self.is_captured)

    monkeypatch.setattr(CapturedStep, "__call__", watched)
    problem, batches = source(small_config(**fields), torch.device("cuda"))
    list(solve([problem], batches.batches, range(2), 21, "a test", fetch=batches.fetch))
    assert steps.count(True) == len(steps) - UNCAPTURED


@needs_gpu
def test_captured_steps_end_where_steps_kernel_by_kernel_end(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for captured in (True, False):
        if not captured:
            monkeypatch.setattr(CapturedStep, "_is_due", lambda self, tensors: False)
        problem, batches = source(small_config(), torch.device("cuda"))
        list(solve([problem], batches.batches, range(2), 21, "a test", fetch=batches.fetch))
        results.append(problem.classifier.linear.weight.detach().clone())
    torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-4)
