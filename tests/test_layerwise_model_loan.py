"""A network comes back as it was given: mode, gradients, buffers, hooks; wrappers are looked through."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from foreign_networks import SmallNet, made_dataset
from torch import Tensor, nn

from layerwise.api import extract_network
from layerwise.errors import UserError
from layerwise.model.loan import on_loan, require_readable, unwrapped


def test_a_network_in_training_comes_back_as_it_was(tmp_path: Path) -> None:
    net = SmallNet().train()
    net.norm.eval()
    net.conv1.weight.requires_grad_(False)
    net(torch.randn(3, 1, 8, 8)).sum().backward()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    grads = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    stream = torch.random.get_rng_state()
    extract_network(net, made_dataset(), out=tmp_path / "run.h5", trained_on="train-fold", device="cpu").close()
    assert torch.equal(torch.random.get_rng_state(), stream)
    assert net.training and net.conv2.training and not net.norm.training
    assert [name for name, p in net.named_parameters() if not p.requires_grad] == ["conv1.weight"]
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in state.items())
    for name, p in net.named_parameters():
        assert (p.grad is None) == (name not in grads) and (p.grad is None or torch.equal(p.grad, grads[name]))
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())


def test_it_comes_back_after_an_error_too(tmp_path: Path) -> None:
    net = SmallNet().train()
    with pytest.raises(UserError):
        extract_network(net, made_dataset(), out=tmp_path / "run.h5", trained_on="train-fold", layers="nowhere")
    assert net.training and not any(part._forward_hooks for part in net.modules())


def test_buffers_that_a_pass_changes_are_put_back_unless_they_may_settle() -> None:
    for settles in (False, True):
        net = nn.BatchNorm2d(2)
        with on_loan(net, settles=settles) as lent:
            assert lent is net and not net.training
            net.running_mean += 1
        assert net.training and bool(net.running_mean.any()) == settles


def test_wrappers_are_looked_through_to_the_names_of_the_network() -> None:
    net = SmallNet()
    assert unwrapped(net) is net
    assert unwrapped(nn.DataParallel(net)) is net
    assert unwrapped(torch.compile(nn.DataParallel(net), backend="eager")) is net


class PartlyCompiled(nn.Module):
    """Has a part that torch.compile has compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.compile(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), backend="eager")
        self.head = nn.Conv2d(2, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x))


@pytest.mark.parametrize("whole", [True, False])
def test_compiled_networks_give_the_values_of_plain_ones(whole: bool, tmp_path: Path) -> None:
    net: nn.Module = SmallNet().eval() if whole else PartlyCompiled().eval()
    plain, layer = net, net.get_submodule("conv2" if whole else "stem._orig_mod.0")
    net = torch.compile(net, backend="eager") if whole else net
    with torch.no_grad():
        net(torch.zeros(2, 1, 8, 8))
    name = "conv2" if whole else "stem._orig_mod.0"
    with extract_network(
        net, made_dataset(), out=tmp_path / "run.h5", trained_on="train-fold", layers=name, device="cpu"
    ) as run:
        seen: list[Tensor] = []
        layer.register_forward_hook(lambda m, a, out: seen.append(out.clone()))
        x = torch.from_numpy(run.maps(0, "test")[:]).float()  # type: ignore[index]
        with torch.no_grad():
            plain(x)
        torch.testing.assert_close(torch.from_numpy(run.maps(1, "test")[:]).float(), seen[0], rtol=1e-2, atol=1e-2)  # type: ignore[index]


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_networks_that_cannot_be_read_are_answered_with_what_is_needed(tmp_path: Path) -> None:
    scripted = torch.jit.script(nn.Sequential(nn.Conv2d(1, 2, 3)).eval())
    with torch.inference_mode():
        fixed = nn.BatchNorm2d(2)
    for net, message in (
        (scripted, "the network is TorchScript, whose parts Python does not see. Give the nn.Module"),
        (nn.Conv2d(1, 2, 3, device="meta"), "the network has no values yet: weight is on the device meta"),
        (fixed, "running_mean was made within torch.inference_mode, so BatchNorm"),
    ):
        with pytest.raises(UserError, match=message):
            extract_network(net, made_dataset(), out=tmp_path / "run.h5", trained_on="nothing")


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_what_lies_around_a_scripted_part_is_read(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), torch.jit.script(nn.Sequential(nn.ReLU())), nn.Conv2d(2, 3, 3))
    with extract_network(net, made_dataset(), out=tmp_path / "run.h5", trained_on="train-fold") as run:
        assert [run.depth_module(j) for j in run.depths] == ["input", "0", "2"]


def test_a_network_of_one_piece_is_answered_with_what_is_needed(tmp_path: Path) -> None:
    class Functional(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    with pytest.raises(UserError, match="no layer of this network can be read: it is one piece. Give the nn.Module"):
        extract_network(Functional(), made_dataset(), out=tmp_path / "run.h5", trained_on="nothing")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_network_of_another_precision_is_answered_with_what_to_do(dtype: torch.dtype) -> None:
    with pytest.raises(UserError, match=rf"parameters of {str(dtype)[6:]}, but .* in float32. .* network.float\(\)"):
        require_readable(SmallNet().to(dtype))
    require_readable(SmallNet())


@pytest.mark.parametrize("state", ["no_grad", "inference_mode", "autocast", "float64"])
def test_the_state_of_torch_around_a_call_changes_no_value(state: str, tmp_path: Path) -> None:
    net = SmallNet().eval()
    words = {"trained_on": "train-fold", "label": "net", "device": "cpu"}
    with extract_network(net, made_dataset(), out=tmp_path / "plain.h5", **words) as plain:
        digest = plain.content_digest
    context = {
        "no_grad": torch.no_grad(), "inference_mode": torch.inference_mode(), "float64": torch.no_grad(),
        "autocast": torch.autocast("cpu", torch.bfloat16),
    }[state]  # fmt: skip
    try:
        if state == "float64":
            torch.set_default_dtype(torch.float64)
        with context, extract_network(net, made_dataset(), out=tmp_path / "run.h5", **words) as run:
            assert run.content_digest == digest
        assert torch.get_default_dtype() == (torch.float64 if state == "float64" else torch.float32)
    finally:
        torch.set_default_dtype(torch.float32)
