"""The cost of a study before it is begun: operations from shapes, bytes, time from single batches.

Linear probes are not counted: their number of steps is not known before.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from figures.study.definition import Study, Unit
from figures.study.grid import Piece, Trial, trial_config
from figures.study.work import Machine
from layerwise.settings import set_fields
from probes.names import hidden_convolutions

if TYPE_CHECKING:
    from layerwise.config import RunConfig
    from layerwise.datasets import Sizes
    from probes.cnn.training import Design

log = logging.getLogger("layerwise.study")


@dataclass(frozen=True)
class Cost:
    """Operations of training a network (scoring and dump included), of its CNN probes, and bytes of its run file."""

    network: int
    probes: int
    nbytes: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.network + other.network, self.probes + other.probes, self.nbytes + other.nbytes)


@dataclass(frozen=True)
class Speed:
    """Operations a second of this machine in the study's largest network and in its CNN probes."""

    network: float
    probes: float

    def seconds(self, cost: Cost) -> float:
        return cost.network / self.network + cost.probes / self.probes


def sizes_of(study: Study, machine: Machine) -> Sizes:
    """Return the sizes of a study's data; raise UserError where they are missing. Of a folder no image is decoded."""
    from layerwise.datasets.dataset import load_sizes

    data = study.config(study.units()[0]).data
    sizes = load_sizes(data, machine.data_dir, download=machine.download, subset_is_most=machine.subset_is_most)
    if (count := sizes.total_train) < data.subset:
        log.info("all %d training images are used; the budget takes at most %d", count, data.subset)
    return sizes


def _of_data(config: RunConfig, sizes: Sizes) -> RunConfig:
    """Return a configuration without a subset that the data are less than, as each network of the study will be."""
    is_less = sizes.total_train < config.data.subset
    return set_fields(config, {"data.subset": 0}) if is_less else config


def cost_of(study: Study, unit: Piece, sizes: Sizes, machine: Machine) -> Cost:
    """Return what one network costs, whatever its seed; of a point of the grid no file stays."""
    from layerwise.hardware import pick_device
    from layerwise.model.counts import count_problems
    from layerwise.runfile.place import Place
    from layerwise.training.operations import count_operations
    from layerwise.training.run import plan_storage, resolve
    from probes.cnn.forecast import planned_operations

    asked = trial_config(study, unit) if isinstance(unit, Trial) else study.config(unit)
    config = resolve(_of_data(asked, sizes), sizes, pick_device(machine.device))
    if isinstance(unit, Trial):
        return Cost(count_operations(config, sizes).total, 0, 0)
    problems = count_problems(config.network, sizes.image, sizes.n_classes)
    shapes = [sizes.image, *(problem.shape for problem in problems)]
    blocks = [problem.block.operations for problem in problems]
    designs = designs_of(study)
    probes = (0, 0, 0)
    if designs and not unit.linear:
        classes = sizes.n_classes
        probes = planned_operations(shapes, blocks, sizes.counts, classes, designs, study.probe_epochs)
    return Cost(
        count_operations(config, sizes).total,
        sum(probes),
        plan_storage(config, sizes, Place.max_size).total,
    )


def designs_of(study: Study) -> list[Design]:
    """Return the CNN probes of each depth."""
    from probes.cnn.training import Design

    ps = [p for name in study.probes if (p := hidden_convolutions(name)) is not None]
    return [Design(p, width, seed) for p in ps for width in study.probe_widths for seed in range(study.probe_seeds)]


def speed_of(study: Study, sizes: Sizes, machine: Machine) -> Speed:
    """Measure single batches of the largest greedy network, and of the CNN probes of its last depth."""
    from layerwise.forecast.rehearsal import Rehearsal, forecast_seconds
    from layerwise.hardware import pick_device
    from layerwise.model.counts import count_problems
    from layerwise.runfile.place import Place
    from layerwise.training.operations import count_operations
    from layerwise.training.run import plan_storage, resolve
    from probes.cnn.forecast import Bench, throughput

    device = pick_device(machine.device)
    largest = study.config(Unit("greedy", max(study.ks), max(study.widths), 0))
    config = resolve(_of_data(largest, sizes), sizes, device)
    storage = plan_storage(config, sizes, Place.max_size)
    seconds = forecast_seconds(Rehearsal(config, sizes, storage, device))
    network = count_operations(config, sizes).total / sum(seconds.values())
    sample = [design for design in designs_of(study) if design.seed == 0]
    if not sample:
        return Speed(network, network)
    last = count_problems(config.network, sizes.image, sizes.n_classes)[-1].shape
    bench = Bench(last, sizes.n_classes, device, config.precision, study.probe_epochs)
    return Speed(network, throughput(bench, config.network.depth, sample)[0])


def lines(units: Sequence[Piece], left: Sequence[Piece], costs: dict[Piece, Cost], speed: Speed) -> Iterator[str]:
    """Yield the table of what a study costs, none wider than 80 columns: a row for each kind of network."""
    from layerwise.units import show_seconds, show_size

    head = ("networks", "all", "left", "training", "CNN probes", "run files", "time left")
    yield f"{head[0]:<21}{head[1]:>6}{head[2]:>6}{head[3]:>12}{head[4]:>12}{head[5]:>11}{head[6]:>12}"

    def row(name: str, own: Sequence[Piece]) -> str:
        nothing = Cost(0, 0, 0)
        whole = sum((costs[unit] for unit in own), nothing)
        rest = sum((costs[unit] for unit in own if unit in left), nothing)
        time = show_seconds(speed.seconds(rest)) if any(unit in left for unit in own) else "-"
        remaining = sum(unit in left for unit in own)
        return (
            f"{name:<21}{len(own):>6}{remaining:>6}{whole.network:>12.2e}{whole.probes:>12.2e}"
            f"{show_size(whole.nbytes):>11}{time:>12}"
        )

    for kind in dict.fromkeys(unit.kind for unit in units):
        yield row(kind, [unit for unit in units if unit.kind == kind])
    yield row("all", units)
    yield "operations (multiply-adds are two) without the linear probes; time estimated"
    yield "from single batches of the largest network, the linear probes on top"
