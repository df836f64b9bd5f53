"""Training: frozen blocks keep every bit, the loop agrees with a slow one, the fold is unseen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import small_config, train_network
from reference import slow_sgd
from torch import Tensor, nn

from layerwise.config import RunConfig, TrainingConfig
from layerwise.datasets import Dataset, Split, load_dataset
from layerwise.errors import UserError
from layerwise.model.network import LayerwiseNetwork
from layerwise.model.seeds import derive_seed
from layerwise.training.checkpoint import Checkpoint
from layerwise.training.loop import DeviceSplit, evaluate, settle_batch_norm, solve, train
from layerwise.training.problem import AuxiliaryProblem
from layerwise.training.report import Report


@pytest.fixture(scope="module")
def data() -> Dataset:
    whole = load_dataset("digits", holdout=0.1)
    fewer = {n: Split(s.images[:200], s.label[:200], s.index[:200]) for n, s in whole.splits.items()}
    return replace(whole, splits=fewer)


def network(config: RunConfig, data: Dataset) -> LayerwiseNetwork:
    return LayerwiseNetwork(config.network, data.image_shape, len(data.classes), data.mean, data.std, config.seed)


def bits(module: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in module.state_dict().items()}


def plain_batches(
    data: DeviceSplit, net: LayerwiseNetwork, config: RunConfig, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    for choice in data.choices(config.training, seed):
        images, y = data.take(choice, config.training)
        yield net.normalise(images), y


class Watched(Checkpoint):
    """A checkpoint that keeps the bits of all parts after every epoch, by (stage, epochs done)."""

    def save(self, stage: int, epochs_done: int, network: LayerwiseNetwork, problems: object) -> None:
        self.seen[stage, epochs_done] = [bits(part) for part in (*network.blocks, *network.auxiliaries)]


@pytest.mark.parametrize("k", [1, 2, 3])
def test_frozen_blocks_keep_every_bit_of_parameters_and_buffers(data: Dataset, k: int) -> None:
    config = small_config(**{"network.depth": 3, "network.k": k})
    net = network(config, data)
    watched = Watched(None, config, {})
    watched.seen = {(0, 0): [bits(part) for part in (*net.blocks, *net.auxiliaries)]}
    with Report(2) as report:
        train(net, data, config, watched, report)
    moments = sorted(watched.seen)
    for before, after in pairwise(moments):
        changed = [a != b for a, b in zip(watched.seen[before], watched.seen[after], strict=True)]
        assert changed == [i == after[0] for i in range(3)] * 2
    assert not any(p.requires_grad for p in net.parameters())
    assert not any(m.training for part in (net.blocks, net.auxiliaries) for m in part.modules() if m is not part)


@pytest.mark.parametrize("mode", ["parallel", "end-to-end"])
def test_the_other_modes_train_what_they_say(data: Dataset, mode: str) -> None:
    config = small_config(mode=mode, **{"network.depth": 3})
    net = network(config, data)
    before = [bits(part) for part in (*net.blocks, *net.auxiliaries)]
    epochs = train_network(net, data, config)
    changed = [a != bits(part) for a, part in zip(before, (*net.blocks, *net.auxiliaries), strict=True)]
    assert changed == [True] * 3 + ([True] * 3 if mode == "parallel" else [False, False, True])
    depths = (1, 2, 3) if mode == "parallel" else (3,)
    assert [(e.block, e.epoch) for e in epochs] == [(j, e) for e in range(2) for j in depths]


def test_no_gradient_reaches_an_earlier_block_in_parallel_mode(data: Dataset) -> None:
    """Block 1 with its auxiliary ends as if it had been trained alone: what comes after cannot touch it."""
    parallel, alone = small_config(mode="parallel"), small_config(**{"network.depth": 1})
    first, second = network(parallel, data), network(alone, data)
    train_network(first, data, parallel)
    train_network(second, data, alone)
    assert bits(first.blocks[0]) == bits(second.blocks[0])
    assert bits(first.auxiliaries[0]) == bits(second.auxiliaries[0])


def test_parallel_blocks_take_the_steps_of_a_plain_loop(data: Dataset) -> None:
    config = small_config(mode="parallel", **{"training.epochs": 1, "training.crop_padding": 0})
    net, oracle = network(config, data), network(config, data)
    train_network(net, data, config)
    optimizers = [
        torch.optim.SGD([*b.parameters(), *a.parameters()], lr=0.1, momentum=0.9, weight_decay=5e-4)
        for b, a in zip(oracle.blocks, oracle.auxiliaries, strict=True)
    ]
    train_data = DeviceSplit(data.splits["train"], torch.device("cpu"))
    for x, y in plain_batches(train_data, oracle, config, derive_seed(0, "order 0", 1)):
        for block, auxiliary, optimizer in zip(oracle.blocks, oracle.auxiliaries, optimizers, strict=True):
            hidden = block(x.detach())
            optimizer.zero_grad()
            nn.functional.cross_entropy(auxiliary(hidden), y).backward()
            optimizer.step()
            x = hidden
    for ours, theirs in zip(net.parameters(), oracle.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_end_to_end_takes_the_steps_of_plain_backpropagation(data: Dataset) -> None:
    config = small_config(mode="end-to-end", **{"training.epochs": 1})
    net, oracle = network(config, data), network(config, data)
    train_network(net, data, config)
    whole = nn.Sequential(*oracle.blocks, oracle.auxiliaries[-1])
    optimizer = torch.optim.SGD(whole.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    train_data = DeviceSplit(data.splits["train"], torch.device("cpu"))
    for x, y in plain_batches(train_data, oracle, config, derive_seed(0, "order 0", 2)):
        optimizer.zero_grad()
        nn.functional.cross_entropy(whole(x), y).backward()
        optimizer.step()
    for ours, theirs in zip(net.parameters(), oracle.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_the_loop_takes_the_steps_of_plain_sgd_that_forgets_its_momentum_at_each_drop() -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [
        (torch.randn(8, 5, generator=generator), torch.randint(0, 3, (8,), generator=generator)) for _ in range(6)
    ]
    config = TrainingConfig(epochs=4, learning_rate=0.2, lr_factor=0.5, lr_every=2, momentum=0.9, weight_decay=0.01)
    module = nn.Linear(5, 3)
    start = {name: p.detach().numpy().astype(np.float64) for name, p in module.named_parameters()}
    list(solve([AuxiliaryProblem(nn.Identity(), module, config)], lambda epoch: batches, range(4), 6, "a test"))
    weight, bias = slow_sgd(
        start["weight"], start["bias"], [(x.numpy(), y.numpy()) for x, y in batches], epochs=4,
        rates=[0.2, 0.2, 0.1, 0.1], momentum=0.9, weight_decay=0.01,
    )  # fmt: skip
    np.testing.assert_allclose(module.weight.detach().numpy(), weight, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(module.bias.detach().numpy(), bias, rtol=1e-4, atol=1e-6)


def test_problems_side_by_side_end_as_they_do_alone() -> None:
    x, y = torch.randn(16, 4, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 2

    def problem(seed: int, rate: float) -> AuxiliaryProblem:
        torch.manual_seed(seed)
        return AuxiliaryProblem(nn.Identity(), nn.Linear(4, 2), TrainingConfig(epochs=3, learning_rate=rate))

    together = [problem(0, 0.1), problem(1, 0.01)]
    list(solve(together, lambda epoch: [(x, y)], range(3), 1, "a test"))
    for i, rate in enumerate((0.1, 0.01)):
        alone = problem(i, rate)
        list(solve([alone], lambda epoch: [(x, y)], range(3), 1, "a test"))
        assert torch.equal(alone.classifier.weight, together[i].classifier.weight)


def test_the_validation_fold_changes_no_weight(data: Dataset) -> None:
    config = small_config()
    poisoned = dict(data.splits)
    held = poisoned["validation"]
    poisoned["validation"] = Split(255 - held.images, (held.label + 1) % 10, held.index)
    nets = []
    for splits in (data.splits, poisoned):
        net = network(config, data)
        epochs = train_network(net, replace(data, splits=splits), config)
        nets.append(net)
    assert bits(nets[0]) == bits(nets[1])
    assert epochs[-1].validation is not None


def test_history_has_an_epoch_for_each_block_with_its_learning_rate(data: Dataset) -> None:
    config = small_config(**{"training.epochs": 3, "training.lr_every": 2, "training.lr_factor": 0.5})
    epochs = train_network(network(config, data), data, config)
    assert [(e.block, e.epoch) for e in epochs] == [(j, e) for j in (1, 2) for e in range(3)]
    assert [e.learning_rate for e in epochs] == [0.1, 0.1, 0.05] * 2
    assert all(e.train.n == 200 for e in epochs)


def test_training_twice_gives_the_same_bits_and_another_seed_does_not(data: Dataset) -> None:
    def trained(seed: int) -> dict[str, bytes]:
        config = small_config(seed=seed)
        net = network(config, data)
        train_network(net, data, config)
        return bits(net)

    assert trained(0) == trained(0)
    assert trained(0) != trained(1)


def test_a_loss_that_is_not_finite_stops_with_where_and_what_to_try(data: Dataset) -> None:
    config = small_config(**{"training.learning_rate": 1e20, "network.k": 1})
    with pytest.raises(
        UserError,
        match=r"the loss is not finite at block 1, epoch 0, step \d: .*Try --set training.learning_rate=2e\+19",
    ):
        train_network(network(config, data), data, config)


def test_evaluate_is_the_mean_over_images_whatever_the_batches() -> None:
    x, y = torch.randn(10, 4, generator=torch.Generator().manual_seed(0)), torch.arange(10) % 3
    module = nn.Linear(4, 3)
    logits = module(x).detach()
    (score,) = evaluate([(nn.Identity(), module)], [(x[:7], y[:7]), (x[7:], y[7:])])
    expected = -torch.log_softmax(logits, 1)[torch.arange(10), y].mean()
    assert score.loss == pytest.approx(float(expected), rel=1e-6)
    assert score.accuracy == int((logits.argmax(1) == y).sum()) / 10
    assert not module.training


def test_untrained_batch_norm_has_the_mean_statistics_of_one_pass(data: Dataset) -> None:
    config = small_config(mode="untrained")
    net = network(config, data)
    weights = {name: p.clone() for name, p in net.blocks.named_parameters()}
    train = DeviceSplit(data.splits["train"], torch.device("cpu"))
    settle_batch_norm(net, train)
    conv: Tensor = net.blocks[0].conv(net.normalise(train.images))
    # 200 images are one batch, so the running statistics are those of the whole set.
    torch.testing.assert_close(net.blocks[0].norm.running_mean, conv.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net.blocks[0].norm.running_var, conv.var((0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(p, weights[name]) for name, p in net.blocks.named_parameters())
    assert not any(m.training for m in net.modules())
