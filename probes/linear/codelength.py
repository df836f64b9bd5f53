"""Codelength: how many bits the labels of the train fold cost, given a depth's features and what was learnt so far.

Prequential (online) coding with linear probes (Voita and Titov 2020): the labels of the smallest of eight nested sizes
cost log2 K bits each; those that each next size adds cost what the fit of the size before gives them. A depth of which
the classes are decoded from few images has a short code, whatever accuracy is reached in the end. Beside it stands the
loss on the test split against the number of images (Whitney et al. 2020).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from layerwise.commandline import progress
from layerwise.errors import UsageError
from layerwise.runfile import RunFile
from probes.linear.depth import LinearFits
from probes.linear.features import DepthData, read_depth
from probes.linear.nested import SIZES, Score, fit_nested, nested
from probes.linear.penalties import MANY_CLASSES, ROUGH, Candidate
from probes.linear.probe import LinearFamily
from probes.linear.problem import FIXED_PENALTY, Fitted, LinearProblem, all_right
from probes.names import CODELENGTH
from probes.probe import Family, Played, ProbeName
from probes.protocol import TEST, Fit, Value, play
from probes.results.intervals import normal_interval, wilson_interval
from probes.solver.fit import LinearFit
from probes.solver.path import Fitter
from probes.solver.rows import Rows, View
from probes.solver.standardiser import Standardiser
from probes.tasks.task import Task

# A probe, and which of its nested sizes.
Key = tuple[ProbeName, int]


@dataclass(frozen=True)
class Sizes:
    """The nested sizes of a probe: which images are of each, bool [SIZES, n]."""

    taken: np.ndarray

    @property
    def counts(self) -> list[int]:
        return [int(count) for count in self.taken.sum(1)]

    def added(self, i: int) -> np.ndarray:
        """Return the rows of the images that the size behind i adds to it."""
        return np.flatnonzero(self.taken[i + 1] & ~self.taken[i])


class CodelengthKind(LinearFits[Key]):
    """One probe of a depth at all its sizes.

    Features are standardised on all images of the train fold: sender and receiver both have the images, and only labels
    are sent.
    """

    def __init__(self, name: ProbeName, classes: Sequence[str], selection: str):
        self.name, self.classes, self.selection = name, classes, selection
        self.problem = LinearProblem("linear", len(classes), None)
        self.sizes: Sizes | None = None

    def choose(self, data: DepthData) -> dict[Key, Fitted]:
        begin = time.perf_counter()
        y, x = data.y["train"], data.x["train"]
        if data.fits_memory(len(x)):  # whose rows of each size are read for every penalty
            x = np.asarray(x[:]).reshape(len(x), -1)
        self.sizes = Sizes(nested(y, self.classes, self.name.probe_seed, data.where("train")))
        standardise = Standardiser(x, data.device, data.where("train"), is_shared=True)
        fitter = Fitter(
            x, data.own("train", y), n_classes=len(self.classes), sample_weight=data.own("train", self.sizes.taken),
            standardiser=standardise, max_memory=data.max_memory, device=data.device, where=f"depth {data.depth}",
            is_shared=True,
        )  # fmt: skip
        if "validation" in data.x:
            rough = ROUGH if len(self.classes) >= MANY_CLASSES else 0.0
            scored = fit_nested(fitter, self._score(x, data, standardise), rough=rough)
            fits = [one.fit for one in scored]
        else:
            fits = [fit for (fit,) in fitter.fit([FIXED_PENALTY])]
        seconds = (time.perf_counter() - begin) / SIZES
        return {
            (self.name, i): Fitted(self.problem, standardise, fit, n, seconds)
            for i, (fit, n) in enumerate(zip(fits, self.sizes.counts, strict=True))
        }

    def _score(self, x: Rows | np.ndarray, data: DepthData, standardise: Standardiser) -> Score:
        assert self.sizes is not None
        y = data.own("train", data.y["train"])
        rows = [np.flatnonzero(taken) for taken in data.own("train", self.sizes.taken)]

        def score(i: int, fit: LinearFit, is_rough: bool) -> Candidate:
            (validation,) = self.problem.predict([fit], data, "validation", data.y["validation"], standardise)
            separates = all_right(fit, View(x, kept=rows[i]), y[rows[i]], data.device, standardise)
            return Candidate(fit, validation, separates, is_rough)

        return score

    def refit(self, data: DepthData, chosen: Mapping[Key, Fitted]) -> dict[Key, Fitted]:
        return {}


def with_values(fits: Sequence[Fit], sizes: Sizes, n_classes: int) -> list[Fit]:
    """Return the fits of all sizes with what is reported of each, in the place of their scores.

    The last, of the whole fold, has the codelength.
    """
    values = [_at_size(fit, n) for fit, n in zip(fits, sizes.counts, strict=True)]
    label = fits[-1].scores["train"].label
    sent = [-fit.scores["train"].true_log_probability[sizes.added(i)] / math.log(2) for i, fit in enumerate(fits[:-1])]
    first = sizes.counts[0] * math.log2(n_classes)
    for i, bits in enumerate(sent):
        values[i]["train", f"next_loss_bits@{sizes.counts[i]}"] = Value(float(bits.mean()), label[sizes.added(i)])
    total, uniform = first + sum(float(bits.sum()) for bits in sent), len(label) * math.log2(n_classes)
    low, high = normal_interval(total, math.sqrt(sum(len(bits) * float(bits.var()) for bits in sent)))
    values[-1] |= {
        ("train", "codelength_bits"): Value(total, label, max(first, low), high),
        ("train", "codelength_uniform_bits"): Value(uniform, label),
        ("train", "compression"): Value(uniform / total, label, uniform / high, uniform / max(first, low)),
    }
    return [replace(fit, scores={}, values=one) for fit, one in zip(fits, values, strict=True)]


def _at_size(fit: Fit, n: int) -> dict[tuple[str, str], Value]:
    test = fit.scores[TEST]
    interval = wilson_interval(test.accuracy, len(test.label))
    return {
        (TEST, f"log_loss_bits@{n}"): Value(test.log_loss_bits, test.label),
        (TEST, f"accuracy@{n}"): Value(test.accuracy, test.label, *interval),
    }


class CodelengthFamily(Family):
    """The codelength of the labels at every depth of a run, by linear probes of A x_j, for each order of the images."""

    is_shared = True

    def __init__(
        self, run: RunFile, task: Task, *, pools: Sequence[int], seeds: int, device: torch.device,
        max_memory: int | None = None, pixels: bool = True,
    ):  # fmt: skip
        if task.control == "permuted":
            raise UsageError(
                f"--probe {CODELENGTH} chooses a penalty for each size, and on permuted labels there is nothing to "
                "choose by. Beside it stands the uniform code; leave out --control."
            )
        self.run, self.task, self.device, self.max_memory, self.seeds = run, task, device, max_memory, seeds
        self._linear = LinearFamily(
            run, task, "linear", pools=pools, device=device, max_memory=max_memory, pixels=pixels
        )
        self.title = f"codelength by linear probes at {SIZES} sizes"

    def depths(self) -> list[int]:
        return self._linear.depths()

    def names(self, depth: int) -> list[ProbeName]:
        """Return a name for each pooling and order, as of linear probes."""
        return [
            replace(name, probe=CODELENGTH, probe_seed=seed)
            for name in self._linear.names(depth)
            for seed in range(self.seeds)
        ]

    def fit(self, depth: int, wanted: Sequence[ProbeName]) -> list[tuple[ProbeName, list[Fit]]]:
        """Fit all sizes of the wanted probes of a depth by the protocol."""
        depths = self.depths()
        with progress() as bar:
            bar.add_task(f"depth {depth}: codelength", total=len(depths), completed=depths.index(depth))
            return [(name, self._play(depth, name)) for name in wanted]

    def _play(self, depth: int, name: ProbeName) -> list[Fit]:
        kind = CodelengthKind(name, self.task.classes, self.selection)

        def open_splits(splits: Sequence[str]) -> DepthData:
            return read_depth(
                self.task, depth, splits, side=name.pooling, device=self.device, max_memory=self.max_memory
            )

        played = play(kind, open_splits, self.run.splits)
        assert kind.sizes is not None
        return with_values([played[name, i][0] for i in range(SIZES)], kind.sizes, len(self.task.classes))

    def again(self, depth: int, names: Sequence[ProbeName]) -> Iterator[Played]:
        raise NotImplementedError("a codelength is of the train fold, and shown no other images")
