"""The labels that a probe is fitted to: the classes of the data set, or other labels of the same images."""

from __future__ import annotations

import numpy as np

from layerwise.runfile import RunFile

CLASS = "class"
NO_CONTROL = "none"


class Task:
    """The labels that a probe of a run is fitted to and scored on; here those of the data set.

    Labels are asked for a split at a time, so that those of the test split are not read before anything is chosen.

    Attributes:
        control: "none", or the name of the control in probes/tasks/controls.py.
        target: "class", or the name of another property of the images, in probes/tasks/target.py.
    """

    control = NO_CONTROL
    target = CLASS

    def __init__(self, run: RunFile):
        self.run = run

    @property
    def chooser(self) -> Task:
        """The task whose labels choose hyper-parameters: this one, unless its labels leave nothing to choose on."""
        return self

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their labels."""
        return tuple(self.run.dataset["classes"])

    def labels(self, split: str) -> np.ndarray:
        """Labels int64 [n] in [0, number of classes) of the images at `rows`."""
        return self.run.labels(split)

    def rows(self, split: str) -> np.ndarray:
        """Positions int64 [n], ascending, in the run's split of the images that have a label."""
        return np.arange(len(self.run.indices(split)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.target}, control {self.control}, {len(self.classes)} classes)"
