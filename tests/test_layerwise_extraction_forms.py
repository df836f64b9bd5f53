"""How outputs become maps: axes in their order, patch tokens on their grid, the class token apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference import slow_average

from layerwise.errors import UsageError, UserError
from layerwise.extraction.forms import (
    Convention,
    check_reading,
    describe_readings,
    form_of,
    form_of_array,
    grids_of,
)
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


@pytest.mark.parametrize(
    ("image", "count", "prefix", "expected"),
    [
        ((6, 10), 16, 1, (1, 3, 5)),  # as many as 4 x 4
        ((6, 10), 16, None, (1, 3, 5)),
        ((6, 10), 15, 1, (0, 3, 5)),  # before the class token joins
        ((224, 256), 225, 1, (1, 14, 16)),  # as many as 15 x 15
        ((224, 256), 225, None, (1, 14, 16)),
        ((256, 224), 229, 5, (5, 16, 14)),  # a class token and four registers
        ((8, 8), 17, None, (1, 4, 4)),
        ((8, 8), 16, None, (0, 4, 4)),
        ((32, 32), 50, 1, (1, 7, 7)),  # a grid that does not divide the image, but is square as it is
    ],
)
def test_a_class_token_is_no_patch_of_an_oblong_image(
    image: tuple[int, int], count: int, prefix: int | None, expected: tuple[int, int, int]
) -> None:
    x = torch.randn(2, count, 5)
    form = form_of((count, 5), Convention(prefix=prefix, grids=grids_of(*image)))
    before, height, width = expected
    assert (form.kind, form.prefix, form.shape) == ("patch tokens", before, (5, height, width))
    patches = x[:, before:].transpose(1, 2).reshape(2, 5, height, width)
    torch.testing.assert_close(form.maps(x), patches, rtol=0, atol=0)


def test_tokens_of_no_grid_of_an_oblong_image_are_averaged() -> None:
    form = form_of((17, 5), Convention(prefix=1, grids=grids_of(6, 10)))
    assert (form.kind, form.prefix) == ("mean of tokens", 1)


def test_what_the_user_says_of_tokens_overrules() -> None:
    x = torch.randn(2, 16, 5)
    own = form_of((16, 5), Convention(tokens="1+3x5"))
    assert (own.kind, own.prefix, own.shape, own.has_class_token) == ("patch tokens", 1, (5, 3, 5), True)
    torch.testing.assert_close(own.maps(x)[:, :, 1, 2], x[:, 1 + 5 + 2], rtol=0, atol=0)
    assert form_of((15, 5), Convention(tokens="1+3x5")).prefix == 0
    mean = form_of((17, 5), Convention(tokens="mean"))
    assert (mean.kind, mean.prefix) == ("mean of tokens", 1)
    check_reading("1+14x16", "channels-last")
    with pytest.raises(UsageError, match=r"unknown --tokens '1\+14'. Did you mean|Choices: patch, class, mean, K\+HxW"):
        check_reading("1+14", "auto")
    with pytest.raises(UsageError, match="unknown --layout 'last'.*Choices: auto, channels-first, channels-last"):
        check_reading("patch", "last")


def test_a_sequence_with_its_width_first_is_a_map_of_one_row_or_on_its_grid() -> None:
    x = torch.randn(2, 4, 15)
    row = form_of((4, 15), Convention(width_first=True))
    assert (row.kind, row.shape, row.pooled_shape) == ("maps", (4, 1, 15), (4, 1, 2))
    grid = form_of((4, 15), Convention(width_first=True, grids=grids_of(6, 10)))
    assert grid.shape == (4, 3, 5)
    torch.testing.assert_close(grid.maps(x)[:, :, 1, 2], x[:, :, 7], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("shape", "layout", "expected", "is_guess"),
    [
        ((7, 7, 512), "auto", ("maps, channels last", (512, 7, 7)), False),  # as Keras and JAX write them
        ((512, 7, 7), "auto", ("maps", (512, 7, 7)), False),
        ((8, 8, 8), "auto", ("maps", (8, 8, 8)), True),
        ((8, 8, 8), "channels-last", ("maps, channels last", (8, 8, 8)), False),
        ((4, 15), "channels-first", ("maps", (4, 1, 15)), False),
        ((512, 7, 7), "channels-last", ("maps, channels last", (7, 512, 7)), False),
    ],
)
def test_axes_of_arrays_follow_from_their_sides_or_from_the_user(
    shape: tuple[int, ...], layout: str, expected: tuple[str, tuple[int, int, int]], is_guess: bool
) -> None:
    form = form_of_array(shape, Convention(layout=layout))
    assert ((form.kind, form.shape), form.is_guess) == (expected, is_guess)


def test_what_was_taken_for_channels_tokens_and_grid_is_said() -> None:
    forms = {
        "a": form_of((4, 8, 8), PATCH),
        "b": form_of((2, 8, 8), PATCH),
        "c": form_of_array((8, 8, 8), PATCH),
        "d": form_of((16, 5), Convention(prefix=1, grids=grids_of(6, 10))),
        "e": form_of((19, 5), Convention(prefix=4, has_class_token=False, grids=grids_of(6, 10))),
        "f": form_of((17, 5), Convention(prefix=1, grids=grids_of(6, 10))),
        "g": form_of((7,), PATCH),
    }
    assert list(describe_readings(forms.items())) == [
        "channels first: a, b",
        "channels first, a guess (--layout overrules it): c",
        "1 token, the class token first, + 3 x 5 patches of width 5: d",
        "4 tokens + 3 x 5 patches of width 5: e",
        "1 token, the class token first, + the mean of tokens of width 5: f",
        "vector of width 7: g",
    ]
