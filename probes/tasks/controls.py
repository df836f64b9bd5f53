"""Control tasks: labels that a representation cannot know, on the same images.

A probe that is wide enough fits anything. `permuted` has nothing to learn, so that its train accuracy is memorisation.
`teacher` asks for what a random network sees in the input: the accuracy on the classes minus that on its labels, the
teacher gap, grows as a representation keeps the classes and forgets the rest of the input. Controls are the idea of
Hewitt and Liang 2019; their selectivity is another number, since nothing but memory gives the labels of their control.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from layerwise.activations import READ_BATCH, read_activations, require_images, stored_maps
from layerwise.errors import UsageError, UserError, unknown
from layerwise.hardware import exact_float32
from layerwise.model.network import Normalisation
from layerwise.model.seeds import derive_seed, initialised
from layerwise.runfile import RunFile
from probes.tasks.target import Target
from probes.tasks.task import NO_CONTROL, Task

CONTROLS = (NO_CONTROL, "permuted", "teacher")

_TEACHER_CHANNELS = (32, 64)
# Temperatures of the assignment, as a share of the spread of the teacher's outputs, and steps at each.
_TEMPERATURES, _STEPS = (1.0, 0.3, 0.1, 0.03, 0.01), 20


class Permuted(Task):
    """The labels of another task, permuted among the images of each split: nothing of them can be predicted.

    The permutation of a split is fixed by the split's name and its number of images.
    """

    control = "permuted"

    def __init__(self, task: Task):
        super().__init__(task.run)
        self.task = task
        self.target = task.target

    @property
    def chooser(self) -> Task:
        return self.task

    @property
    def classes(self) -> tuple[str, ...]:
        return self.task.classes

    def labels(self, split: str) -> np.ndarray:
        labels = self.task.labels(split)
        return np.random.default_rng(derive_seed(0, f"permuted {split}")).permutation(labels)

    def rows(self, split: str) -> np.ndarray:
        return self.task.rows(split)


class Teacher(Task):
    """Balanced labels from a fixed random network: a function of the image that has nothing to do with its class.

    Two convolutions of stride 2 with relu, averaged to 4x4, and a linear layer of as many outputs as the data set has
    classes; the outputs are standardised, and shifted so that the classes are equally frequent, both on the train fold
    alone. The network depends on the shape of the images and the number of classes, so all runs on the same
    images, fold and normalisation have the same labels.
    """

    control = "teacher"

    def __init__(self, run: RunFile):
        super().__init__(run)
        if 0 not in run.depths:
            raise UserError(
                f"{run.path} was made from arrays without their inputs, of which --control teacher makes its labels. "
                "Use --control permuted, or give the inputs as an array named input."
            )
        channels, n_classes = run.depth_shape(0)[0], len(self.classes)
        self._network = initialised(derive_seed(0, "teacher"), lambda: _network(channels, n_classes)).eval()
        self._labels: dict[str, np.ndarray] = {}
        self._scale: tuple[Tensor, Tensor] | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(f"teacher {i}" for i in range(len(super().classes)))

    def labels(self, split: str) -> np.ndarray:
        if split not in self._labels:
            if self._scale is None:
                outputs = self._outputs("train")
                mean, deviation = outputs.mean(0), outputs.std(0).clamp(min=1e-12)
                self._scale = mean + deviation * balancing_shifts((outputs - mean) / deviation), deviation
            shift, deviation = self._scale
            self._labels[split] = ((self._outputs(split) - shift) / deviation).argmax(1).numpy()
        return self._labels[split]

    @torch.no_grad()
    def _outputs(self, split: str) -> Tensor:
        # On the CPU whatever the probe runs on, so that no near tie falls differently on another device.
        with exact_float32():
            return torch.cat([self._network(x) for x in self._inputs(split)]).double()

    def _inputs(self, split: str) -> Iterator[Tensor]:
        """Yield x_0 in batches, of the images where there are such, since stored maps may be rounded."""
        stored, scale = self.run.images(split), self.run.dataset["normalisation"]
        if stored is None and (stored_maps(self.run, 0, split) is not None or not scale["mean"]):
            yield from read_activations(self.run, 0, split).batches()
            return
        images = require_images(self.run, split)
        normalise = Normalisation(scale["mean"], scale["std"])
        for start in range(0, len(images), READ_BATCH):
            yield normalise(torch.from_numpy(images[start : start + READ_BATCH]))


def balancing_shifts(outputs: Tensor) -> Tensor:
    """Return shifts [K] such that argmax(outputs - shifts) gives each of K classes nearly as many samples.

    It is the dual of the assignment of samples [n, K] to classes of equal size, entropic and annealed (Cuturi 2013).
    """
    n_classes = outputs.shape[1]
    shifts = outputs.new_zeros(n_classes)
    for temperature in _TEMPERATURES:
        for _ in range(_STEPS):
            share = ((outputs - shifts) / temperature).softmax(1).mean(0)
            shifts = shifts + temperature * (share * n_classes).clamp(min=1e-30).log()
    return shifts


def asked_task(run: RunFile, target: Path | str | pd.DataFrame | None, control: str) -> Task:
    """Return the task of a run's classes, or of a target's labels, under a control.

    Raises UsageError for a target with a control that makes labels of its own.
    """
    if target is not None and control == "teacher":
        raise UsageError("--control teacher makes labels of its own, so it takes no --target; use --control permuted.")
    return controlled(Task(run) if target is None else Target(run, target), control)


def controlled(task: Task, control: str) -> Task:
    """Return the task that a control of the given name makes of a task; "none" returns it as it is."""
    if control not in CONTROLS:
        raise unknown("control", control, CONTROLS)
    if control == "permuted":
        return Permuted(task)
    return Teacher(task.run) if control == "teacher" else task


def _network(channels: int, n_classes: int) -> nn.Module:
    first, second = _TEACHER_CHANNELS
    return nn.Sequential(
        nn.Conv2d(channels, first, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(first, second, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(second * 16, n_classes),
    )  # fmt: skip
