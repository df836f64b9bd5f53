"""The dump: what is stored is what the frozen network computes, rounded once, in the type that fits it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from conftest import make_run, small_config
from reference import slow_average
from torch import Tensor

from layerwise.activations import open_activations
from layerwise.datasets import Dataset, Split, load_dataset
from layerwise.errors import UserError
from layerwise.model.network import LayerwiseNetwork, freeze
from layerwise.runfile import RunFile, rounding
from layerwise.runfile.depths import publish_run
from layerwise.runfile.plan import plan
from layerwise.runfile.writer import ALIGNMENT, RunWriter
from layerwise.training.dump import DUMP_BATCH, depth_batches, depths_of, dump_depths


@pytest.fixture(scope="module")
def data() -> Dataset:
    whole = load_dataset("digits", holdout=0.1)
    n = DUMP_BATCH + 20  # more than one batch, the last one short
    return replace(whole, splits={m: Split(s.images[:n], s.label[:n], s.index[:n]) for m, s in whole.splits.items()})


def network(data: Dataset, scale: float = 1.0) -> LayerwiseNetwork:
    net = LayerwiseNetwork(small_config().network, data.image_shape, 10, data.mean, data.std, 0)
    freeze(net)
    net.blocks[1].conv.weight.mul_(scale)
    return net


def dump(path: Path, net: LayerwiseNetwork, data: Dataset, store: str) -> RunFile:
    counts = data.counts

    def write(writer: RunWriter, in_float32: frozenset[int]) -> None:
        dump_depths(writer, net, data, plan(depths_of(net.shapes), counts, store=store, max_size=10**9), in_float32)
        writer.attributes("provenance", {"run_id": "r"})

    publish_run(path, force=False, write=write)
    return RunFile(path)


@torch.no_grad()
def directly(net: LayerwiseNetwork, split: Split, depth: int) -> np.ndarray:
    return net.advance(net.normalise(torch.from_numpy(split.images)), 0, depth).numpy()


@pytest.mark.parametrize("store", ["pooled", "maps"])
def test_each_depth_of_each_split_is_stored_in_order(tmp_path: Path, data: Dataset, store: str) -> None:
    net = network(data)
    with dump(tmp_path / "run.h5", net, data, store) as run:
        for name, split in data.splits.items():
            for depth in (0, 1, 2):
                x = directly(net, split, depth)
                pooled, maps = run.pooled(depth, name), run.maps(depth, name)
                assert pooled is not None
                assert pooled.dtype == np.float16
                np.testing.assert_allclose(pooled[:], slow_average(x, 2), rtol=2**-10, atol=1e-4)
                assert (maps is not None) == (store == "maps")
                if maps is not None:
                    np.testing.assert_allclose(maps[:], x, rtol=2**-10, atol=1e-4)


def test_values_beyond_float16_are_stored_in_float32_and_other_depths_are_not(tmp_path: Path, data: Dataset) -> None:
    net = network(data, scale=1e6)
    with dump(tmp_path / "run.h5", net, data, "maps") as run:
        for kind in ("pooled", "maps"):
            types = [getattr(run, kind)(depth, "train").dtype for depth in (0, 1, 2)]
            assert types == [np.float16, np.float16, np.float32]
        maps = run.maps(2, "test")
        assert maps is not None
        assert np.isfinite(maps[:]).all()
        assert maps[:].max() > 65504


def test_what_was_begun_in_float16_leaves_nothing_behind(
    tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest value comes in the last split, when nearly everything has been written."""
    net = network(data)
    most = {name: float(directly(net, split, 2).max()) for name, split in data.splits.items()}
    order = sorted(most, key=most.__getitem__)
    monkeypatch.setattr(rounding, "FLOAT16_MAX", (most[order[-1]] + most[order[-2]]) / 2)
    last = replace(data, splits={name: data.splits[name] for name in order})
    with dump(tmp_path / "run.h5", net, last, "maps") as run:
        list(run.verify())
        for name, split in data.splits.items():
            maps = run.maps(2, name)
            assert maps is not None
            assert maps.dtype == np.float32
            np.testing.assert_allclose(maps[:], directly(net, split, 2), rtol=1e-5, atol=1e-5)
    with h5py.File(tmp_path / "run.h5") as file:
        sizes: list[int] = []
        file.visititems(lambda _, item: sizes.append(item.nbytes) if isinstance(item, h5py.Dataset) else None)
    assert (tmp_path / "run.h5").stat().st_size < sum(sizes) + len(sizes) * ALIGNMENT + 50_000


def test_a_depth_that_needs_float32_costs_one_more_pass(
    tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[str] = []

    def counted(net: LayerwiseNetwork, split: Split) -> Iterator[list[Tensor]]:
        passes.append(next(name for name, own in data.splits.items() if own is split))
        return depth_batches(net, split)

    monkeypatch.setattr("layerwise.training.dump.depth_batches", counted)
    dump(tmp_path / "small.h5", network(data), data, "maps").close()
    assert passes == list(data.splits)
    dump(tmp_path / "large.h5", network(data, scale=1e6), data, "maps").close()
    assert passes == 3 * list(data.splits)


def test_activations_that_are_no_numbers_are_refused_and_leave_no_file(tmp_path: Path, data: Dataset) -> None:
    net = network(data, scale=float("inf"))
    with pytest.raises(UserError, match=r"layer blocks.2 \(depth 2\) has NaN or infinity for sample 0 of the"):
        dump(tmp_path / "run.h5", net, data, "pooled")
    assert list(tmp_path.iterdir()) == []


def test_a_run_trained_in_bfloat16_is_dumped_in_float32_and_rounded_once(tmp_path: Path) -> None:
    with RunFile(make_run(tmp_path / "run.h5", precision="bf16", store="maps", **{"training.epochs": 1})) as run:
        assert run.config is not None
        assert run.config.precision == "bf16"
        exact = torch.cat(list(open_activations(run, 2, "test", source="recompute").batches()))
        stored = torch.cat(list(open_activations(run, 2, "test", source="stored").batches()))
    # bfloat16 keeps 8 bits: products computed in it would be off by 2**-9, relative, and not by float16's 2**-11.
    torch.testing.assert_close(stored, exact, rtol=2**-10, atol=1e-4)
