"""The Python API of `probes`: `fit` does what the command probe-depth does."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from layerwise.errors import unknown
from layerwise.hardware import ordinary_torch, pick_device
from layerwise.runfile import RunFile
from layerwise.spoken import python_call
from probes.families import families
from probes.names import CNN_EPOCHS, CNN_SEEDS, Settings, hidden_convolutions
from probes.sweep import rows_at, sweep
from probes.tasks.controls import controlled
from probes.tasks.task import Task


@python_call("probe-depth")
@ordinary_torch()
def fit(
    run: RunFile,
    probe: str = "linear",
    *,
    depths: Sequence[int] | None = None,
    control: str = "none",
    pools: Sequence[int] = (2,),
    features: str = "native",
    pixels: bool = True,
    widths: Sequence[int] = (64, 128, 256),
    seeds: int = CNN_SEEDS,
    epochs: int = CNN_EPOCHS,
    source: str = "auto",
    device: str = "auto",
    force: bool = False,
) -> pd.DataFrame:
    """Fit one probe at every depth by the protocol, keep its rows beside the run file, and return them.

    Args:
        run: an open run file; its rows go to x.probes.csv beside x.h5.
        probe: linear, linear-ovr, cnn-1, cnn-2, ..., knn, ncm, auxiliary, ensemble.
        depths: depths to probe; None takes all at which the probe has something to say.
        control: none, permuted or teacher: labels of a control task.
        pools: of linear, knn and ncm: sides of the average A.
        features: of linear probes: native, or projected: matched to the least width, input to the input's number.
        pixels: of linear probes: whether depth 0 is probed as raw pixels too, as a reference.
        widths, seeds, epochs, source: of CNN probes: widths M, number of seeds, epochs, where maps come from.
        device: auto, cpu or cuda.
        force: fit again what the table already holds.

    Returns:
        A row for each number, with the columns of docs/format.md: depth, split, metric, refit, value, ci_low, ...

    Raises UserError for a probe, depth or source that is not there.
    """
    hidden_convolutions(probe)
    settings = Settings(
        pools=pools, features=features, pixels=pixels, widths=widths, seeds=seeds, epochs=epochs,
        source=source, device=pick_device(device),
    )  # fmt: skip
    task = controlled(Task(run), control)
    (family,) = families(run, task, [probe], settings)
    available = family.depths()
    chosen = available if depths is None else list(depths)
    family.check([depth for depth in chosen if depth in run.depths])
    for depth in chosen:
        if depth not in available:
            raise unknown("depth", depth, available)
    sweep(run, task, family, chosen, force=force)
    return rows_at(run, family, chosen).reset_index(drop=True)
