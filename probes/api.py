"""Owns the function of the Python API of `probes`: fit probes to a run, as the command probe-depth does."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from layerwise.errors import unknown
from layerwise.hardware import pick_device
from layerwise.runfile import RunFile
from probes.catalogue import Settings, depths_of, fit_at, hidden_convolutions
from probes.results import check_files, rows, save


def fit(
    run: RunFile,
    probe: str = "linear",
    *,
    depths: Sequence[int] | None = None,
    widths: Sequence[int] = (64, 128, 256),
    seeds: int = 1,
    epochs: int = 12,
    source: str = "auto",
    device: str = "auto",
) -> pd.DataFrame:
    """Fit one probe at every depth by the protocol, keep its rows beside the run file, and return them.

    Args:
        run: an open run file; its rows go to x.probes.csv beside x.h5.
        probe: linear, linear-ovr, cnn-1, cnn-2, ..., auxiliary, ensemble.
        depths: depths to probe; None takes all at which the probe has something to say.
        widths, seeds, epochs, source: of CNN probes: widths M, number of seeds, epochs, where maps come from.
        device: auto, cpu or cuda.

    Returns:
        A row for each number, with the columns of docs/format.md: depth, split, metric, refit, value, ci_low, ...

    Raises UserError for a probe, depth or source that is not there.
    """
    hidden_convolutions(probe)
    available = depths_of(run, probe)
    chosen = available if depths is None else list(depths)
    for depth in chosen:
        if depth not in available:
            raise unknown("depth", depth, available)
    settings = Settings(widths=widths, seeds=seeds, epochs=epochs, source=source, device=pick_device(device))
    check_files(run.path)
    found = []
    for depth in chosen:
        fitted = fit_at(run, depth, probe, settings)
        save(run, fitted)
        found += [row for name, fits in fitted for row in rows(run, name, fits)]
    return pd.DataFrame(found)
