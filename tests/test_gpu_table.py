"""The script of the GPU table, at toy size on the CPU, and that the published loop does the same work as ours."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from layerwise.model.counts import count_problems
from layerwise.model.network import LayerwiseNetwork
from layerwise.recipes import recipe
from tests.benchmarks import published
from tests.benchmarks.gpu import step_operations

ROOT = Path(__file__).resolve().parent.parent


def test_every_section_runs_at_toy_size_and_the_table_is_written(warm: list[str], tmp_path: Path) -> None:
    command = [*warm, "tests/benchmarks/gpu.py", "--toy", "--out", str(tmp_path / "table")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "table.json").read_text())
    assert [name for name, section in found.items() if "failed" in section] == []
    assert {"ours", "published", "memory", "whole run"} <= set(found)
    assert found["same as uncaptured"]["frozen_block_keeps_every_bit"]
    assert [row["depth"] for row in found["ours"]["rows"]] == [1, 2]
    assert found["whole run"]["is_whole"]
    table = (tmp_path / "table.md").read_text()
    assert "| depth | ours, ms | published, ms | ratio | floor, ms | ours / floor |" in table


@pytest.mark.parametrize("name", ["cifar10-k1", "cifar10-k3"])
def test_the_published_network_is_the_recipes(name: str) -> None:
    net = recipe(name).network
    ours = LayerwiseNetwork(net, (3, 32, 32), 10, (0.5,) * 3, (0.5,) * 3, 0)
    theirs = published.Greedy(published.Sizes(net.depth, net.width, net.aux_width, net.k, net.downsample, 1))
    count = [(sum(p.numel() for p in m.blocks.parameters())) for m in (ours, theirs)]
    assert count[0] == count[1]
    assert sum(p.numel() for p in ours.auxiliaries.parameters()) == sum(p.numel() for p in theirs.heads.parameters())


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
def test_a_published_step_spends_the_operations_of_ours() -> None:
    net = recipe("cifar10-k3").network
    sizes = published.Sizes(net.depth, 8, 8, net.k, net.downsample, 1, batch=4)
    images = np.zeros((4, 3, 32, 32), dtype=np.uint8)
    network, label = published.Greedy(sizes), np.zeros(4, dtype=np.int64)
    loader, _ = published.loaders(images, label, (images, label), sizes)
    batches = list(torch.utils.data.DataLoader(loader.dataset, batch_size=4))
    problems = count_problems(replace(net, width=8, aux_width=8), (3, 32, 32), 10)
    for j in range(1, net.depth + 1):
        optimizer = published.begin_block(network, j, 0.1)
        with FlopCounterMode(display=False) as counter:
            published.train_epoch(network, j, optimizer, batches, torch.device("cpu"))
        assert counter.get_total_flops() == step_operations(problems, j, 4)
