"""One auxiliary problem: averaging, smoothing, precision, and a state that brings it back exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerwise.config import TrainingConfig
from layerwise.errors import UserError
from layerwise.training.problem import AuxiliaryProblem
from layerwise.training.schedule import learning_rate


def training(**fields: Any) -> TrainingConfig:
    return TrainingConfig(**{"epochs": 10, "learning_rate": 0.1} | fields)


def batch(n: int = 32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 5, generator=generator), torch.randint(0, 3, (n,), generator=generator)


def problem(config: TrainingConfig, precision: str = "fp32") -> AuxiliaryProblem:
    torch.manual_seed(0)
    return AuxiliaryProblem(nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4)), nn.Linear(4, 3), config, precision)


def run(some: AuxiliaryProblem, epochs: range, steps: int = 3) -> None:
    x, y = batch()
    for epoch in epochs:
        some.start_epoch(epoch, steps)
        for _ in range(steps):
            some.step(x, y)


def test_the_learning_rate_moves_within_an_epoch() -> None:
    some = problem(training(schedule="cosine"))
    some.start_epoch(2, 4)
    rates = []
    for _ in range(4):
        some.step(*batch())
        rates.append(some.optimizer.param_groups[0]["lr"])
    assert rates == [learning_rate(some.config, 2 + i / 4) for i in range(4)]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_score_is_the_mean_loss_and_accuracy_of_the_steps(smoothing: float) -> None:
    some = problem(training(label_smoothing=smoothing))
    some.start_epoch(0, 1)
    x, y = batch()
    with torch.no_grad():
        logits = some.module(x)
    some.step(x, y)
    score = some.score("a test")
    assert score.loss == pytest.approx(float(F.cross_entropy(logits, y, label_smoothing=smoothing)), rel=1e-5)
    assert score.accuracy == pytest.approx(float((logits.argmax(1) == y).float().mean()))
    assert score.n == 32


def test_averaged_weights_are_the_exponential_average_of_the_steps() -> None:
    some = problem(training(ema_decay=0.75))
    expected = some.classifier.weight.detach().clone()
    some.start_epoch(0, 4)
    for i in range(4):
        some.step(*batch())
        now = some.classifier.weight.detach()
        expected = now.clone() if i == 0 else 0.75 * expected + 0.25 * now
    torch.testing.assert_close(some.evaluated()[1].weight, expected)
    last = some.classifier.weight.detach().clone()
    some.finish()
    torch.testing.assert_close(some.classifier.weight.detach(), expected)
    assert not torch.equal(last, expected)


def test_without_averaging_the_last_weights_are_judged_and_kept() -> None:
    some = problem(training())
    run(some, range(1))
    last = some.classifier.weight.detach().clone()
    assert some.evaluated() == (some.block, some.classifier)
    some.finish()
    assert torch.equal(some.classifier.weight, last)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_optimizers_are_pytorchs(optimizer: str) -> None:
    some = problem(training(optimizer=optimizer, learning_rate=0.01, weight_decay=0.1))
    torch.manual_seed(0)
    module = nn.Sequential(nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4)), nn.Linear(4, 3))
    theirs: torch.optim.Optimizer
    if optimizer == "sgd":
        theirs = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1)
    else:
        theirs = torch.optim.AdamW(module.parameters(), lr=0.01, weight_decay=0.1)
    x, y = batch()
    run(some, range(1), steps=5)
    for _ in range(5):
        theirs.zero_grad()
        F.cross_entropy(module(x), y).backward()
        theirs.step()
    for a, b in zip(some.module.parameters(), module.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("fields", [{}, {"optimizer": "adamw"}, {"ema_decay": 0.9}, {"schedule": "one-cycle"}])
def test_a_restored_problem_goes_on_to_the_same_bits(fields: dict[str, Any]) -> None:
    config = training(lr_every=3, **fields)
    whole, first, second = (problem(config) for _ in range(3))
    run(whole, range(5))
    run(first, range(2))
    second.module.load_state_dict(first.module.state_dict())
    second.restore({name: np.array(value) for name, value in first.state().items()})
    run(second, range(2, 5))
    for problem_ in (whole, second):
        problem_.finish()
    for a, b in zip(whole.module.state_dict().values(), second.module.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_bf16_computes_products_in_bfloat16_and_keeps_float32_weights() -> None:
    exact, rounded = problem(training()), problem(training(), "bf16")
    for some in (exact, rounded):
        run(some, range(1), steps=1)
    assert rounded.classifier.weight.dtype == torch.float32
    assert not torch.equal(exact.classifier.weight, rounded.classifier.weight)
    torch.testing.assert_close(exact.classifier.weight, rounded.classifier.weight, rtol=0.05, atol=0.01)


def test_a_loss_that_is_not_finite_is_reported_with_the_first_such_step() -> None:
    some = problem(training())
    x, y = batch()
    some.start_epoch(3, 10)
    for step in range(5):
        some.step(x * (float("inf") if step >= 2 else 1), y)
    with pytest.raises(
        UserError, match=r"not finite at block 7, epoch 3, step 2: .* --set training.learning_rate=0.02"
    ):
        some.score("block 7")


def test_a_step_returns_the_blocks_output_without_a_graph() -> None:
    some = problem(training())
    some.start_epoch(0, 1)
    x, y = batch()
    expected = some.block(x).detach()
    hidden = some.step(x, y)
    assert not hidden.requires_grad
    torch.testing.assert_close(hidden, expected)


def test_restored_momentum_is_laid_out_as_its_weights() -> None:
    def convolution() -> AuxiliaryProblem:
        block = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        return AuxiliaryProblem(block, nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), training())

    first, second = convolution(), convolution()
    first.start_epoch(0, 1)
    first.step(torch.randn(5, 3, 3, 3), torch.arange(5) % 2)
    second.restore({name: np.ascontiguousarray(value) for name, value in first.state().items()})
    weight = second.block.weight
    momentum = second.optimizer.state[weight]["momentum_buffer"]
    assert momentum.stride() == weight.stride() != momentum.contiguous().stride()
    assert torch.equal(momentum, first.optimizer.state[first.block.weight]["momentum_buffer"])


def test_biases_of_batch_norm_have_a_rate_of_their_own_and_shrink_as_the_others() -> None:
    some = problem(training(norm_bias_rate=8.0, weight_decay=0.01))
    others, biases = some.optimizer.param_groups
    assert biases["params"] == [some.block[1].bias]
    assert len(others["params"]) == 5
    some.start_epoch(0, 1)
    some.prepare()
    assert biases["lr"] == pytest.approx(8 * others["lr"])
    assert biases["lr"] * biases["weight_decay"] == pytest.approx(others["lr"] * others["weight_decay"])


def test_nesterov_is_pytorchs() -> None:
    some = problem(training(nesterov=True, schedule="cosine"))
    twin = problem(training())
    theirs = torch.optim.SGD(twin.module.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    x, y = batch()
    some.start_epoch(0, 1)
    twin.module.train()
    for _ in range(3):
        some._step = 0  # the first rate of the schedule
        some.step(x, y)
        theirs.zero_grad()
        F.cross_entropy(twin.module(x), y).backward()
        theirs.step()
    for ours, other in zip(some.module.parameters(), twin.module.parameters(), strict=True):
        assert torch.allclose(ours, other)


def test_lookahead_pulls_the_weights_to_an_average_that_forgets_less_and_less() -> None:
    config = training(epochs=2, lookahead=0.8, schedule="cosine")
    some, plain = problem(config), problem(training(epochs=2, schedule="cosine"))
    average = {name: value.clone() for name, value in plain.module.state_dict().items()}
    x, y = batch()
    for epoch in range(2):
        for one in (some, plain):
            one.start_epoch(epoch, 10)
        for step in range(10):
            some.step(x, y)
            plain.step(x, y)
            done = 10 * epoch + step + 1
            if done % 5 == 0:
                past = 0.8**5 * (done / 20) ** 3
                for name, value in plain.module.state_dict().items():
                    if value.is_floating_point():
                        average[name] = past * average[name] + (1 - past) * value
                        value.copy_(average[name])
            for name, value in plain.module.state_dict().items():
                assert torch.allclose(some.module.state_dict()[name], value, atol=1e-6), (done, name)
    some.step(x, y)  # one beyond, which the average does not follow
    some.finish()
    for name, value in some.module.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(value, average[name], atol=1e-6)
