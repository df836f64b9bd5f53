"""Which families fit the probes that a user names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from layerwise.errors import UsageError
from probes.names import CODELENGTH, LINEAR, NEAREST, TRAINED, Settings, hidden_convolutions

if TYPE_CHECKING:
    from layerwise.runfile import RunFile
    from probes.probe import Family
    from probes.tasks.task import Task


def families(run: RunFile, task: Task, names: Sequence[str], settings: Settings) -> list[Family]:
    """Return the families that fit the named probes of a run, in the order of the names; all CNN probes are one."""
    from probes.cnn.probe import CnnFamily
    from probes.linear.codelength import CodelengthFamily
    from probes.linear.probe import LinearFamily
    from probes.nearest.probe import KnnFamily, NcmFamily
    from probes.trained import TrainedFamily

    found: dict[str, Family] = {}
    for name in names:
        if name in LINEAR:
            found[name] = LinearFamily(
                run, task, name, pools=settings.pools, features=settings.features, max_memory=settings.max_memory,
                pixels=settings.pixels, device=settings.device,
            )  # fmt: skip
        elif name in NEAREST:
            kind = KnnFamily if name == "knn" else NcmFamily
            found[name] = kind(run, task, pools=settings.pools, device=settings.device, max_memory=settings.max_memory)
        elif name == CODELENGTH:
            if settings.features != "native":
                raise UsageError(f"--probe {CODELENGTH} reads native features alone. Leave out --features.")
            found[name] = CodelengthFamily(
                run, task, pools=settings.pools, seeds=settings.seeds, device=settings.device,
                max_memory=settings.max_memory, pixels=settings.pixels,
            )  # fmt: skip
        elif name in TRAINED:
            _require_plain(task, name)
            found[name] = TrainedFamily(run, name)
        elif "cnn" not in found:
            ps = list(dict.fromkeys(p for other in names if (p := hidden_convolutions(other))))
            found["cnn"] = CnnFamily(
                run, task, ps=ps, widths=settings.widths, seeds=settings.seeds, epochs=settings.epochs,
                source=settings.source, device=settings.device,
            )  # fmt: skip
    return list(found.values())


def _require_plain(task: Task, name: str) -> None:
    if task.control != "none" or task.target != "class":
        raise UsageError(
            f"--probe {name} is what the run trained on its own classes, so it has no control and no other target. "
            "Use --probe linear or cnn-1 for those."
        )
