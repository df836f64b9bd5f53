"""How outputs become maps: axes in their order, patch tokens on their grid, the class token apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference import slow_average

from layerwise.errors import UserError
from layerwise.extraction.forms import Convention, form_of
from layerwise.runfile.depths import pooled

PATCH = Convention()


def test_maps_stay_as_they_are() -> None:
    x = torch.randn(3, 4, 5, 6)
    form = form_of((4, 5, 6), PATCH)
    assert (form.kind, form.shape, form.pooled_shape) == ("maps", (4, 5, 6), (4, 2, 2))
    assert form.maps(x) is x
    np.testing.assert_allclose(pooled(x, form.pooled_shape), slow_average(x.numpy(), 2), rtol=1e-5, atol=1e-6)


def test_channels_that_come_last_are_brought_to_the_front() -> None:
    x = torch.randn(3, 5, 6, 4)
    form = form_of((5, 6, 4), Convention(channels_last=True))
    assert (form.kind, form.shape) == ("maps, channels last", (4, 5, 6))
    for c in range(4):
        torch.testing.assert_close(form.maps(x)[:, c], x[..., c], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("count", "convention", "prefix", "has_class_token"),
    [
        (9, PATCH, 0, False),
        (10, PATCH, 1, True),
        (9, Convention(prefix=0), 0, False),
        (9, Convention(prefix=1), 0, False),
        (11, Convention(prefix=2), 2, True),
        (13, Convention(prefix=4, has_class_token=False), 4, False),
    ],
)
def test_patch_tokens_stand_on_their_grid_row_by_row(
    count: int, convention: Convention, prefix: int, has_class_token: bool
) -> None:
    x = torch.randn(2, count, 5)
    form = form_of((count, 5), convention)
    assert (form.kind, form.shape, form.prefix) == ("patch tokens", (5, 3, 3), prefix)
    maps = form.maps(x)
    for row in range(3):
        for column in range(3):
            torch.testing.assert_close(maps[:, :, row, column], x[:, prefix + 3 * row + column], rtol=0, atol=0)
    assert form.has_class_token == has_class_token
    if has_class_token:
        torch.testing.assert_close(form.class_token(x), x[:, 0], rtol=0, atol=0)


def test_tokens_that_form_no_square_are_averaged() -> None:
    x = torch.randn(2, 8, 5)
    form = form_of((8, 5), Convention(prefix=1))
    assert (form.kind, form.shape, form.has_class_token) == ("mean of tokens", (5, 1, 1), True)
    torch.testing.assert_close(form.maps(x)[:, :, 0, 0], x[:, 1:].mean(1))


def test_the_class_token_alone() -> None:
    x = torch.randn(2, 10, 5)
    form = form_of((10, 5), Convention(tokens="class"))
    assert (form.kind, form.shape, form.has_class_token) == ("class token", (5, 1, 1), False)
    torch.testing.assert_close(form.maps(x)[:, :, 0, 0], x[:, 0], rtol=0, atol=0)
    with pytest.raises(UserError, match="has 9 tokens and no class token among them"):
        form_of((9, 5), Convention(tokens="class"))


def test_a_vector_is_its_own_average() -> None:
    x = torch.randn(2, 7)
    form = form_of((7,), PATCH)
    assert (form.kind, form.shape, form.pooled_shape) == ("vector", (7, 1, 1), (7, 1, 1))
    assert form.is_its_own_average
    torch.testing.assert_close(pooled(form.maps(x), form.pooled_shape).flatten(1), x, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("shape", "averaged", "own"),
    [((3, 1, 1), (3, 1, 1), True), ((3, 2, 2), (3, 2, 2), True), ((3, 1, 7), (3, 1, 2), False)],
)
def test_a_side_of_one_pixel_is_not_spread_out(
    shape: tuple[int, int, int], averaged: tuple[int, int, int], own: bool
) -> None:
    form = form_of(shape, PATCH)
    assert (form.pooled_shape, form.is_its_own_average) == (averaged, own)
    x = torch.randn(2, *shape)
    assert pooled(x, form.pooled_shape).shape == (2, *averaged)


@pytest.mark.parametrize("shape", [(), (2, 3, 4, 5), (3, 0)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"has an output of n x .*, but maps \(n x C x H x W\), tokens"):
        form_of(shape, PATCH)


def test_a_network_of_nothing_but_prefix_tokens_is_refused() -> None:
    with pytest.raises(UserError, match="has 2 tokens, all of them before the patch tokens"):
        form_of((2, 5), Convention(prefix=2))
