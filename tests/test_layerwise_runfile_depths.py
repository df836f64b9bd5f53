"""Depths as a stream: rows in order whatever the batches, rounded once, and what cannot be kept is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from layerwise.errors import UserError
from layerwise.extraction.forms import Convention, form_of
from layerwise.runfile import RunFile
from layerwise.runfile.depths import DepthStream, NeedsFloat32
from layerwise.runfile.writer import create_run

COUNTS = {"train": 5, "test": 3}
SHAPES = [(3, 4, 4), (5, 6), (7,)]  # of what each layer returns for one sample
FORMS = [form_of(shape, Convention()) for shape in SHAPES]
DEPTHS = {
    j: form.depth(name, shape)
    for j, (name, form, shape) in enumerate(zip(["input", "block", "fc"], FORMS, SHAPES, strict=True))
}


def outputs(n: int, scale: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [scale * torch.randn(n, *shape, generator=generator) for shape in SHAPES]


def written(
    path: Path, whole: list[Tensor], sizes: list[int], *, maps: bool = True, in_float32: frozenset[int] = frozenset()
) -> RunFile:
    """Write rows 1, 2, 4, 6, 7 of `whole` as train and 0, 3, 5 as test, in batches of the given sizes."""
    owned = {"train": np.array([1, 2, 4, 6, 7]), "test": np.array([0, 3, 5])}
    with create_run(path, force=True) as writer:
        stream = DepthStream(writer, DEPTHS, COUNTS, maps=maps, in_float32=in_float32)
        start = 0
        for n in sizes:
            inside = {s: rows[(rows >= start) & (rows < start + n)] - start for s, rows in owned.items()}
            stream.start_batch(inside, n)
            for j, x in enumerate(whole):
                output = x[start : start + n]
                stream.take(j, FORMS[j].maps(output), FORMS[j].class_token(output))
            start += n
        stream.finish()
        for split, n in COUNTS.items():
            writer.array(f"samples/{split}/label", np.zeros(n, dtype=np.int64))
        about = {"name": "made", "classes": ["a"], "fingerprint": {}, "normalisation": {"mean": [], "std": []}}
        writer.attributes("/", {"dataset": json.dumps(about)})
        writer.attributes("provenance", {"run_id": "r"})
    return RunFile(path)


@pytest.mark.parametrize("sizes", [[8], [3, 5], [1] * 8])
def test_rows_go_to_their_split_in_order_whatever_the_batches(sizes: list[int], tmp_path: Path) -> None:
    whole = outputs(8)
    with written(tmp_path / "run.h5", whole, sizes) as run:
        for split, rows in {"train": [1, 2, 4, 6, 7], "test": [0, 3, 5]}.items():
            for j, form in enumerate(FORMS):
                x = form.maps(whole[j][rows])
                pooled = run.pooled(j, split)
                assert pooled is not None
                np.testing.assert_array_equal(
                    pooled[:], adaptive_avg_pool2d(x, form.pooled_shape[1:]).numpy().astype(np.float16)
                )
            maps, token = run.maps(0, split), run.class_token(1, split)
            assert maps is not None and token is not None
            np.testing.assert_array_equal(maps[:], whole[0][rows].numpy().astype(np.float16))
            np.testing.assert_array_equal(token[:], whole[1][rows, 0].numpy().astype(np.float16))
            assert run.maps(1, split) is None and run.maps(2, split) is None  # A changes nothing there
        assert [run.depth_form(j) for j in run.depths] == ["maps", "patch tokens", "vector"]
        assert [run.depth_shape(j) for j in run.depths] == [(3, 4, 4), (6, 2, 2), (7, 1, 1)]


def test_without_maps_pooled_features_and_class_tokens_alone_are_kept(tmp_path: Path) -> None:
    assert DEPTHS[0].kept == {"pooled": (3, 2, 2), "maps": (3, 4, 4)}
    assert DEPTHS[1].kept == {"pooled": (6, 2, 2), "class_token": (6,)}
    with written(tmp_path / "run.h5", outputs(8), [8], maps=False) as run:
        assert run.maps(0, "train") is None


def test_depths_beyond_float16_are_found_over_all_batches_and_nothing_is_published(tmp_path: Path) -> None:
    whole = outputs(8)
    whole[0][1, 0, 0, 0] = 70_000
    whole[2][7, 3] = -1e6
    with pytest.raises(NeedsFloat32) as error:
        written(tmp_path / "run.h5", whole, [3, 5])
    assert error.value.depths == {0, 2}
    assert list(tmp_path.iterdir()) == []
    with written(tmp_path / "run.h5", whole, [3, 5], in_float32=frozenset({0, 2})) as run:
        types = [run.pooled(j, "train").dtype for j in run.depths]  # type: ignore[union-attr]
        assert types == [np.float32, np.float16, np.float32]
        assert run.maps(0, "train")[:].max() == 70_000  # type: ignore[index]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_named_by_layer_and_sample(bad: float, tmp_path: Path) -> None:
    whole = outputs(8)
    whole[1][6, 2, 0] = bad
    with pytest.raises(UserError) as error:
        written(tmp_path / "run.h5", whole, [3, 5])
    assert str(error.value) == (
        "layer block (depth 1) has NaN or infinity for sample 3 of the train split. Mend what computes it, or, of "
        "an extraction, choose layers without it."
    )
    assert list(tmp_path.iterdir()) == []
