"""Stages: what each mode trains together."""

from __future__ import annotations

import pytest
from conftest import small_config

from layerwise.model.network import LayerwiseNetwork
from layerwise.training.stages import stages


def test_where_blocks_are_pruned_each_auxiliary_is_trained_on_behind_its_block() -> None:
    config = small_config(**{"network.prune_to": 3, "training.finetune_epochs": 4, "training.finetune_rate": 0.02})
    network = LayerwiseNetwork(config.network, (1, 8, 8), 10, (0.0,), (1.0,), 0)
    found = stages(network, config)
    assert [(stage.prefix, stage.depths, stage.prunes) for stage in found] == [
        (0, (1,), 0),
        (1, (1,), 1),
        (1, (2,), 0),
        (2, (2,), 2),
    ]
    for trained, tuned, auxiliary in zip(found[::2], found[1::2], network.auxiliaries, strict=True):
        assert (trained.first_epoch, trained.last_epoch, tuned.first_epoch, tuned.last_epoch) == (0, 1, 2, 5)
        assert tuned.classifiers == trained.classifiers == (auxiliary,)
        assert not list(tuned.blocks[0].parameters())
        assert (tuned.training.learning_rate, trained.training.learning_rate) == (0.02, 0.1)


@pytest.mark.parametrize(
    ("mode", "prefixes", "depths", "chained"),
    [
        ("greedy", [0, 1, 2], [(1,), (2,), (3,)], False),
        ("parallel", [0], [(1, 2, 3)], True),
        ("end-to-end", [0], [(3,)], False),
        ("untrained", [], [], False),
    ],
)
def test_prefix_depths_and_chaining(
    mode: str, prefixes: list[int], depths: list[tuple[int, ...]], chained: bool
) -> None:
    config = small_config(mode=mode, **{"network.depth": 3})
    network = LayerwiseNetwork(config.network, (1, 8, 8), 10, (0.0,), (1.0,), 0)
    found = stages(network, config)
    assert [stage.prefix for stage in found] == prefixes
    assert [stage.depths for stage in found] == depths
    assert all(stage.chained == chained for stage in found)
    assert tuple(config.heads) == tuple(j for stage in found for j in stage.depths)
    blocks = [block for stage in found for part in stage.blocks for block in (part if mode == "end-to-end" else [part])]
    assert blocks == ([] if mode == "untrained" else list(network.blocks))
    classifiers = [classifier for stage in found for classifier in stage.classifiers]
    assert classifiers == [network.auxiliaries[j - 1] for j in config.heads]
