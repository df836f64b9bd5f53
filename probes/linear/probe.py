"""The linear probes of a run, linear and linear-ovr: which there are at each depth, and what they read."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from layerwise import ranks
from layerwise.activations import pooled_width
from layerwise.commandline import progress
from layerwise.errors import UsageError, UserError
from layerwise.images import images_if_any
from layerwise.runfile import RunFile
from probes.linear.depth import LinearKind
from probes.linear.features import DepthData, read_depth
from probes.linear.problem import DRAWS
from probes.probe import Family, Played, ProbeName
from probes.protocol import Fit, Fits, choose_and_refit, play
from probes.results.table import chosen_penalty
from probes.tasks.task import NO_CONTROL, Task

# Raw pixels are a reference, which is left out where their number would make it the most expensive fit of a run.
MOST_PIXELS = 8192
_MATCHED_TO = {
    "native": "",
    "matched": ", features matched to the least width",
    "input": ", features matched to the input's number",
}


class LinearFamily(Family):
    """The linear probes of a run, "linear" or "linear-ovr": one for each pooling of a depth, or each projection of it.

    Args:
        pools: sides of the average A. At depth 0 the raw pixels are probed too (pooling 0), as a reference.
        features: "native", or "matched": random orthonormal projections of the standardised features to the least
            width over depths >= 1, ten of them at each depth; or "input": such projections to the width of depth 0.
        pixels: whether the raw pixels are probed at depth 0, where the run has them and they are not too many.
        max_memory: bytes; features of which twice their size exceeds it are read block by block, with the same result.
    """

    is_shared = True

    def __init__(
        self,
        run: RunFile,
        task: Task,
        probe: str,
        *,
        pools: Sequence[int] = (2,),
        features: str = "native",
        device: torch.device,
        max_memory: int | None = None,
        pixels: bool = True,
    ):
        self.max_memory, self.pixels = max_memory, pixels
        self.run, self.task, self.probe, self.features, self.device = run, task, probe, features, device
        self.pools = tuple(pools)
        self.title = f"{probe} probe{_MATCHED_TO[features]}"
        self._done, self._total = 0, 0  # probes of a sweep, for the progress bar

    def depths(self) -> list[int]:
        """Return all depths; projected features start at depth 1, since depth 0 is the input itself."""
        return [depth for depth in self.run.depths if depth or self.features == "native"]

    def names(self, depth: int) -> list[ProbeName]:
        """Return a name for each pooling, and the raw pixels at depth 0; for projected features one for each draw."""
        pools = self.pools
        if depth == 0 and self._reads_pixels():
            pools = (*pools, 0)
        draws = range(1 if self.features == "native" else DRAWS)
        one = ProbeName(
            depth=depth, probe=self.probe, control=self.task.control, target=self.task.target, features=self.features
        )
        return [replace(one, pooling=side, probe_seed=draw) for side in pools for draw in draws]

    def prepare(self, missing: Mapping[int, Sequence[ProbeName]]) -> None:
        """Raise UserError where features are to be as many as the input's, and there are fewer or no input."""
        self._done, self._total = 0, sum(map(len, missing.values()))
        if self.features != "input":
            return
        if 0 not in self.run.depths:
            raise UserError(
                f"{self.run.path} has no depth 0, so nothing says how many features its input has. "
                "Use --features matched."
            )
        for side in self.pools:
            least = pooled_width(self.run, 0, side)
            for depth in missing:
                if (width := pooled_width(self.run, depth, side)) < least:
                    raise UserError(
                        f"{self.run.path}, depth {depth}: found {width} features ({side}x{side}-pooled), fewer than "
                        f"the {least} of the input, to which they cannot be projected. Leave it out by --depths."
                    )

    def fit(self, depth: int, wanted: Sequence[ProbeName]) -> list[tuple[ProbeName, list[Fit]]]:
        """Fit the wanted probes of a depth by the protocol: the fit on the train fold and, with a fold, the refit."""
        found: list[tuple[ProbeName, list[Fit]]] = []
        for side in dict.fromkeys(name.pooling for name in wanted):
            names = [name for name in wanted if name.pooling == side]
            _, is_rotation = self.fitted_width(depth, side)
            fits = self._play(depth, side, names[:1] if is_rotation else names)
            self._done += len(names)
            found += [(name, fits[names[0] if is_rotation else name]) for name in names]
        return found

    def estimators(self, depth: int) -> list[tuple[ProbeName, Any]]:
        """Return a pipeline of standardisation and `CertifiedLogisticRegression` for each probe of a depth."""
        if self.features != "native":
            raise UsageError(f"{self.title}: an estimator of A x_j is returned of native features alone.")
        fitted = self.fitted if self.fitted is not None else {}
        for name in self.names(depth):
            if name not in fitted:
                ((kind, open_splits, _),) = self.again(depth, [name])
                _, chosen, refitted = choose_and_refit(kind, open_splits, self.run.splits)
                fitted |= chosen | refitted
        return [(name, fitted[name].estimator()) for name in self.names(depth)]

    def again(self, depth: int, names: Sequence[ProbeName]) -> Iterator[Played]:
        for name in names:
            # With the penalty that stands in the rows: the path was walked when they were made.
            penalty = ranks.by_first(functools.partial(chosen_penalty, self.run, name, name.control))
            width = None if self.features == "native" else self._width(name.pooling)
            kind = self._kind([name], width, {name: penalty}, lambda name, penalty: None)
            yield kind, self._open(depth, name.pooling), [name]

    def _open(self, depth: int, side: int) -> Callable[[Sequence[str]], DepthData]:
        def open_splits(splits: Sequence[str]) -> DepthData:
            return read_depth(self.task, depth, splits, side=side, device=self.device, max_memory=self.max_memory)

        return open_splits

    def _kind(
        self,
        names: Sequence[ProbeName],
        width: int | None,
        taken: Mapping[ProbeName, float | None] | None,
        tell: Callable[[ProbeName, float], None],
    ) -> LinearKind:
        return LinearKind(
            self.probe, names, n_classes=len(self.task.classes), selection=self.selection, width=width, taken=taken,
            tell=tell,
        )  # fmt: skip

    def _play(self, depth: int, side: int, names: Sequence[ProbeName]) -> Fits[ProbeName]:
        width = None if self.features == "native" else self._width(side)
        # Permuted labels leave nothing to choose on: lambda is the one chosen for the real ones.
        taken = None
        if self.selection == "control":
            taken = ranks.by_first(lambda: {name: chosen_penalty(self.run, name, NO_CONTROL) for name in names})
        with progress() as bar:
            first = self._done
            task = bar.add_task(f"depth {depth}", total=self._total or len(names), completed=first)

            def tell(name: ProbeName, penalty: float) -> None:
                words = f"depth {depth}{'' if side else ', raw pixels'}: lambda {penalty:.1e}"
                bar.update(task, description=words, completed=first + names.index(name))

            kind = self._kind(names, width, taken, tell)
            return play(kind, self._open(depth, side), self.run.splits, self.fitted)

    def fitted_width(self, depth: int, side: int) -> tuple[int, bool]:
        """Return the number of features that a probe is fitted to, and whether one fit is that of all ten draws.

        A square projection is a rotation, which the penalty does not see.
        """
        width = pooled_width(self.run, depth, side)
        if self.features == "native":
            return width, False
        return self._width(side), self._width(side) == width

    def _reads_pixels(self) -> bool:
        wanted = self.pixels and self.features == "native"
        return wanted and int(np.prod(self.run.depth_shape(0))) <= MOST_PIXELS and self._has_pixels()

    def _has_pixels(self) -> bool:
        stored = self.run.maps(0, "train") is not None
        return stored or all(images_if_any(self.run, split, slice(0)) is not None for split in self.run.splits)

    def _width(self, side: int) -> int:
        """Return the number of features to which those of every depth are projected."""
        if self.features == "input":
            return pooled_width(self.run, 0, side)
        return min(pooled_width(self.run, depth, side) for depth in self.depths())
