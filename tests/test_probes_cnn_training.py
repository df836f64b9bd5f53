"""All probes of a depth from the same batches, each as if it were alone; what they cost by count."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from layerwise.errors import UserError
from layerwise.recipes import cifar10_small
from layerwise.runfile import RunFile
from layerwise.runfile.place import Place
from layerwise.settings import set_fields
from layerwise.training.run import train_run
from probes.cnn.reading import Labelled, number_type
from probes.cnn.training import (
    Candidate,
    Design,
    Trained,
    batch_size,
    features,
    new_probe,
    predict,
    require_probeable,
    scaled,
    scorer,
    train_together,
)
from probes.probe import ProbeName
from probes.tasks.task import Task

CPU = torch.device("cpu")
THREE = [Candidate(Design(1, 4, 0), 0.01), Candidate(Design(1, 6, 0), 0.03), Candidate(Design(2, 4, 1), 0.01)]


def train(
    run: RunFile, candidates: list[Candidate], source: str = "stored", **words: object
) -> dict[Candidate, Trained]:
    data = Labelled(Task(run), 1, ["train", "validation"], source=source, device=CPU)
    about = {"depth": 1, "shape": run.depth_shape(1), "n_classes": 10, "epochs": 1, "precision": "fp32"}
    return train_together(data, data.counts["train"], candidates, **about | words)  # type: ignore[arg-type]


def test_every_probe_ends_as_it_does_alone(run_path: Path) -> None:
    with RunFile(run_path) as run:
        together = train(run, THREE)
        for candidate in THREE:
            alone = train(run, [candidate])[candidate].module.state_dict()
            for name, value in together[candidate].module.state_dict().items():
                assert torch.equal(value, alone[name])


def test_a_batch_is_computed_once_for_all(run_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from layerwise.activations import Activations
    from probes.cnn import reading

    computed: list[int] = []
    compute = Activations.compute

    def counted(self: Activations, values: np.ndarray) -> torch.Tensor:
        computed.append(len(values))
        return compute(self, values)

    monkeypatch.setattr(Activations, "compute", counted)
    monkeypatch.setattr(reading, "KEPT_BYTES", 0)
    with RunFile(run_path) as run:
        train(run, THREE, source="recompute", epochs=2)
    # For the standardisation, in two epochs, and for the statistics of BatchNorm after one of them and after both.
    assert sum(computed) == (1 + 2 + 2) * 1295


def test_seconds_are_shared_by_operations(run_path: Path) -> None:
    with RunFile(run_path) as run:
        found = train(run, THREE)
        work = [c.design.training_operations(run.depth_shape(1), 10) for c in THREE]
    seconds = np.array([found[c].seconds for c in THREE])
    assert seconds / seconds.sum() == pytest.approx(np.array(work) / sum(work))
    assert {found[c].n_train for c in THREE} == {1295}


@pytest.mark.parametrize("design", [Design(1, 5, 0), Design(3, 4, 0)])
def test_operations_are_those_that_torch_counts(design: Design) -> None:
    shape, n = (6, 8, 8), 3
    probe = new_probe(design, shape, 10, 1)
    with FlopCounterMode(display=False) as counter:
        loss = probe(torch.rand(n, *shape)).sum()
    assert counter.get_total_flops() == n * design.operations(shape, 10)
    with FlopCounterMode(display=False) as counter:
        loss.backward()
    # The linear layer's gradient of its input and weights are counted; the first convolution has none of its input.
    assert n * design.operations(shape, 10) + counter.get_total_flops() == n * design.training_operations(shape, 10)


def test_a_scorer_says_what_its_probe_says(run_path: Path) -> None:
    with RunFile(run_path) as run:
        found = train(run, [THREE[2]])[THREE[2]].module
        data = Labelled(Task(run), 1, ["validation"], source="stored", device=CPU)
        (x,) = data.in_order(range(143))
    with torch.no_grad():
        torch.testing.assert_close(found.linear(features(scorer(found), x, "fp32")), found(x), rtol=1e-4, atol=1e-4)


def test_rounding_to_bfloat16_leaves_no_ties_and_nearly_the_same_accuracy(run_path: Path) -> None:
    with RunFile(run_path) as run:
        found = {}
        for precision in ("fp32", "bf16"):
            dtype = number_type(run, 1)
            data = Labelled(Task(run), 1, ["train", "validation"], source="stored", device=CPU, dtype=dtype)
            about = {"depth": 1, "shape": run.depth_shape(1), "n_classes": 10, "epochs": 4, "precision": precision}
            candidate = Candidate(Design(1, 16, 0), 0.01)
            probe = train_together(data, 1295, [candidate], **about)[candidate]  # type: ignore[arg-type]
            (found[precision],) = (p.rows(range(1295, 1438)) for p in predict([probe], data, precision))
    assert abs(found["fp32"].accuracy - found["bf16"].accuracy) < 0.06
    assert len(np.unique(found["bf16"].true_log_probability)) > 130  # of 143; logits in bfloat16 would coincide


def test_half_of_the_epochs_is_scored_from_the_same_training(run_path: Path) -> None:
    with RunFile(run_path) as run:
        (shorter,) = train(run, [THREE[0]], epochs=1).values()
        (longer,) = train(run, [THREE[0]], epochs=3).values()
        data = Labelled(Task(run), 1, ["validation"], source="stored", device=CPU)
        both, half, none = predict([longer, replace(longer, module=longer.half), shorter], data, "fp32")
    assert longer.half is not None and shorter.half is None and none.predicted_half is None
    assert both.predicted_half is not None
    assert (both.predicted_half == half.predicted).all() and (both.predicted_half != both.predicted).any()


def test_probes_of_other_images_are_scored_through_their_own_standardisation(run_path: Path) -> None:
    with RunFile(run_path) as run:
        data = Labelled(Task(run), 1, ["train", "validation"], source="stored", device=CPU)
        about = {"depth": 1, "shape": run.depth_shape(1), "n_classes": 10, "epochs": 1, "precision": "fp32"}
        probes = [train_together(data, n, [THREE[0]], **about)[THREE[0]] for n in (30, 1438)]  # type: ignore[arg-type]
        together = predict(probes, data, "fp32")
        alone = [predict([probe], data, "fp32")[0] for probe in probes]
    for one, other in zip(together, alone, strict=True):
        assert np.array_equal(one.true_log_probability, other.true_log_probability)


def test_a_gpu_takes_larger_batches_at_a_larger_rate() -> None:
    assert batch_size(CPU) == 32 and batch_size(torch.device("cuda")) == 256
    assert scaled(0.01, 32) == 0.01
    assert scaled(0.01, 256) == 0.028  # sqrt(8) times


def test_what_a_name_means() -> None:
    name = ProbeName(depth=3, probe="cnn-2", probe_width=64, probe_seed=1)
    assert Design.named(name) == Design(2, 64, 1)


def test_seeds_start_from_different_weights() -> None:
    a, b = (new_probe(Design(1, 4, seed), (6, 8, 8), 10, 1).convs[0].weight for seed in (0, 1))
    assert not torch.equal(a, b)


def test_a_wide_probe_learns_its_training_images_by_heart(some_cifar10: Path, tmp_path: Path) -> None:
    """On real images at depth 1, as the paper observes of its CNN-p probes."""
    config = set_fields(cifar10_small(), {
        "data.dataset": "imagefolder", "data.label": "cifar10", "data.subset": 200, "training.epochs": 2,
        "network.depth": 1, "network.width": 16, "network.aux_width": 8, "network.downsample": "1", "precision": "fp32",
    })  # fmt: skip
    path = tmp_path / "run.h5"
    train_run(config, Place(out=path, data_dir=some_cifar10, device=CPU, max_size=10**9))
    wide = Candidate(Design(1, 256, 0), 0.01)
    with RunFile(path) as run:
        data = Labelled(Task(run), 1, ["train", "validation"], device=CPU)
        about = {"depth": 1, "shape": run.depth_shape(1), "n_classes": 10, "epochs": 30, "precision": "fp32"}
        probe = train_together(data, len(data), [wide], **about)[wide]  # type: ignore[arg-type]
        (found,) = predict([probe], data, "fp32")
    assert len(found.label) == 200
    assert found.accuracy > 0.99


def test_maps_too_small_are_refused_with_the_depth_and_the_way_out() -> None:
    class Tiny:
        def depth_shape(self, depth: int) -> tuple[int, int, int]:
            return 16, 1, 1

    with pytest.raises(UserError, match=r"depth 3 has maps of 1x1, too small .* averages to 2x2.* --depths"):
        require_probeable(Tiny(), 3)  # type: ignore[arg-type]
