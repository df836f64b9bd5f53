"""What a sweep needs of every kind of probe: the names of its probes at each depth, and their fits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from layerwise.errors import UsageError
from probes.protocol import has_fold
from probes.tasks.task import CLASS, NO_CONTROL

if TYPE_CHECKING:
    from layerwise.runfile import RunFile
    from probes.protocol import Fit, Kind
    from probes.tasks.task import Task


Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class ProbeName:
    """What names a probe at a depth, beside the run: columns of the key, and the number type it is fitted in.

    pooling: side of the average A; 0 where the probe reads whole maps. probe_width: 0 where it has none.
    probe_seed: of a CNN probe; the draw of the projection for matched or input features; else 0.
    control, target: what it is asked to tell, as in probes.tasks.task.Task.
    """

    depth: int
    probe: str
    probe_width: int = 0
    probe_seed: int = 0
    control: str = NO_CONTROL
    pooling: int = 2
    features: str = "native"
    target: str = CLASS
    precision: str = "fp32"


# Some probes of a depth that are fitted together: their kind, what opens its data, and their names.
Played = tuple["Kind[ProbeName, Any, Any]", Callable[[Sequence[str]], Any], Sequence[ProbeName]]


class Family(ABC):
    """Probes that share work: those of one kind, fitted to one run and one task.

    Attributes:
        run, task: what is probed, and for which labels.
        title: what is fitted, for the head of the table.
        fitted: takes the last fit of each probe that is fitted, where a caller wants them; None where nobody does.
        iterations, batch_size: of the recipe; rows of other numbers are not these probes. None: no setting.
        is_shared: whether all ranks fit a depth together; else each fits whole depths, and they take them in turns.
    """

    run: RunFile
    task: Task
    title: str
    fitted: dict[ProbeName, Any] | None = None
    iterations: int | None = None
    batch_size: int | None = None
    is_shared: bool = False

    @property
    def selection(self) -> str:
        """What chooses the hyper-parameters, where there are any: see probes.protocol.Fit."""
        if not has_fold(self.run):
            return "seen"
        return "validation" if self.task.chooser is self.task else "control"

    @abstractmethod
    def depths(self) -> list[int]:
        """Return the depths at which these probes have something to say."""

    @abstractmethod
    def names(self, depth: int) -> list[ProbeName]:
        """Return the probes of a depth."""

    @abstractmethod
    def fit(self, depth: int, wanted: Sequence[ProbeName]) -> list[tuple[ProbeName, list[Fit]]]:
        """Fit the wanted probes of a depth by the protocol."""

    @abstractmethod
    def again(self, depth: int, names: Sequence[ProbeName]) -> Iterator[Played]:
        """Yield what is played for probes of a depth that stand in the table, to fit them as they were fitted.

        Where choosing is much of the work, what the rows hold is taken.
        """

    def estimators(self, depth: int) -> list[tuple[ProbeName, Any]]:
        """Return the probes of a depth with their names, as scikit-learn estimators of A x_j, [n, C side side].

        Each is the last fit, the refit where there is one. What this family did not fit itself, since its rows stood in
        the table, is fitted now; no test split is read. Probes for which `require_estimators` raises have none.
        """
        raise NotImplementedError

    def require_estimators(self) -> None:
        """Raise UsageError where no estimator of scikit-learn's can stand for these probes: before they are fitted."""
        if type(self).estimators is Family.estimators:
            raise UsageError(f"{self.title}: no estimator of scikit-learn's can stand for it, so none can be returned.")

    def check(self, depths: Sequence[int]) -> None:  # noqa: B027 - most can probe every depth of a run
        """Raise UserError, saying why, if one of these depths, which a user asks for, cannot be probed."""

    def prepare(self, missing: Mapping[int, Sequence[ProbeName]]) -> None:  # noqa: B027 - most have nothing to do
        """Choose what is chosen once for all depths, given the probes still to fit at each."""

    def each(self, depths: Sequence[int], work: Callable[[int], Value]) -> Iterator[tuple[int, Value]]:
        """Yield what the work makes of each depth, in their order, on rank 0 at least.

        Ranks do it together or, each alone, at depths of their own.
        """
        if self.is_shared:
            return ((depth, work(depth)) for depth in depths)
        from layerwise import ranks  # here, since it loads torch, and names of probes are asked for without it

        return ranks.dealt(depths, work)
