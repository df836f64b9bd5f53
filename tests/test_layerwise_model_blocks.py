"""P, A, the block and the auxiliary classifier against slow forms and independent formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference import slow_average, slow_conv3x3, slow_downsample

from layerwise.errors import UserError
from layerwise.model.architectures import shapes
from layerwise.model.blocks import AuxiliaryClassifier, Block, average, downsample


def random_maps(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_p_is_what_its_definition_says() -> None:
    x = random_maps(2, 3, 6, 4)
    assert np.array_equal(downsample(x).numpy(), slow_downsample(x.numpy()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8])
def test_p_is_inverted_bit_for_bit(dtype: torch.dtype) -> None:
    x = (100 * random_maps(4, 5, 8, 6).abs()).to(dtype)
    x_down = downsample(x)
    assert x_down.shape == (4, 20, 4, 3)
    assert torch.equal(torch.pixel_shuffle(x_down, 2), x)


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (6, 9), (2, 2), (1, 1)])
def test_a_averages_the_regions(size: tuple[int, int]) -> None:
    x = random_maps(2, 3, *size)
    np.testing.assert_allclose(average(x, 2).numpy(), slow_average(x.numpy(), 2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("downsampling", [False, True])
def test_block_is_relu_of_a_convolution_of_p(downsampling: bool) -> None:
    block = Block(2, 3, downsampling=downsampling, batch_norm=False, bias=True)
    x = random_maps(2, 2, 4, 4)
    inside = slow_downsample(x.numpy()) if downsampling else x.numpy()
    weight, bias = block.conv.weight.detach().numpy(), block.conv.bias.detach().numpy()
    expected = np.maximum(slow_conv3x3(inside, weight) + bias[:, None, None], 0)
    np.testing.assert_allclose(block(x).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_block_normalises_between_convolution_and_relu() -> None:
    block = Block(2, 3, downsampling=False, batch_norm=True, bias=False).eval()
    block.norm.running_mean.copy_(torch.tensor([1.0, -1.0, 0.5]))
    block.norm.running_var.copy_(torch.tensor([4.0, 1.0, 0.25]))
    x = random_maps(2, 2, 4, 4)
    conv = slow_conv3x3(x.numpy(), block.conv.weight.detach().numpy())
    mean, var = block.norm.running_mean.numpy(), block.norm.running_var.numpy()
    expected = np.maximum((conv - mean[:, None, None]) / np.sqrt(var[:, None, None] + block.norm.eps), 0)
    np.testing.assert_allclose(block(x).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_auxiliary_is_l_a_of_k_minus_1_convolutions(k: int) -> None:
    auxiliary = AuxiliaryClassifier(3, 5, k=k, width=4, batch_norm=False)
    x = random_maps(2, 3, 4, 4)
    z = x.numpy()
    for conv in auxiliary.convs:
        z = np.maximum(slow_conv3x3(z, conv.weight.detach().numpy()), 0)
    flat = slow_average(z, 2).reshape(2, -1)
    expected = flat @ auxiliary.linear.weight.detach().numpy().T + auxiliary.linear.bias.detach().numpy()
    np.testing.assert_allclose(auxiliary(x).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sides", [(4, 6), (5, 7)])
def test_a_halving_auxiliary_is_the_usual_one_of_maps_averaged_to_half(sides: tuple[int, int]) -> None:
    usual, halving = (AuxiliaryClassifier(3, 5, k=3, width=4, batch_norm=True, halving=h).eval() for h in (False, True))
    halving.load_state_dict(usual.state_dict())
    x = random_maps(2, 3, *sides)
    half = [x.shape[2] // 2, x.shape[3] // 2]
    expected = usual(torch.nn.functional.adaptive_avg_pool2d(x, half))
    assert torch.equal(halving(x), expected)
    assert halving.convs[0](expected.new_zeros(1, 3, *half)).shape[2:] == tuple(half)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_parameter_count_of_each_k(k: int, batch_norm: bool) -> None:
    channels, width, classes = 6, 8, 10
    auxiliary = AuxiliaryClassifier(channels, classes, k=k, width=width, batch_norm=batch_norm)
    hidden = 0 if k == 1 else 9 * channels * width + (k - 2) * 9 * width * width
    last = channels if k == 1 else width
    norms = (2 * width * (k - 1) + 2 * last) if batch_norm else 0
    assert sum(p.numel() for p in auxiliary.parameters()) == hidden + norms + 4 * last * classes + classes


def test_shapes_double_the_width_and_halve_the_maps_at_each_p() -> None:
    # The documented CIFAR-10 command for k = 2, 3: P before block 3.
    assert shapes((3, 32, 32), 4, 128, (3,)) == [(3, 32, 32), *[(128, 32, 32)] * 2, *[(256, 16, 16)] * 2]
    # ImageNet, k = 2, 3: P at the input, where it does not double M, and at j = 2, 4, 6.
    imagenet = shapes((3, 224, 224), 8, 128, (1, 3, 5, 7))
    assert imagenet[1] == (128, 112, 112)
    assert imagenet[-1] == (1024, 14, 14)


def test_an_odd_size_that_p_cannot_halve_is_an_error_that_says_where() -> None:
    with pytest.raises(UserError, match="P before block 2 cannot halve maps of 7x8"):
        shapes((1, 7, 8), 3, 4, (2,))
