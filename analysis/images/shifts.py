"""What each probe of single networks loses on corrupted test images, beside the same images as they were."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.selection import of_classes
from layerwise.errors import UserError
from probes.results.columns import PROBE_NAME

_KEY = ["run", "run_id", *PROBE_NAME, "split", "refit", "protocol_version"]


def shifts(rows: pd.DataFrame, probes: Sequence[str] | None = None) -> pd.DataFrame:
    """Return the change of accuracy of each probe on each set of corrupted test images.

    Args:
        rows: as `analysis.tables.read` returns them. probes: names; None takes those that the runs have.

    Returns:
        A row for each run, probe, set (`split`) and depth: run, probe, probe_width, probe_seed, pooling, split, depth,
        clean, shifted (accuracies in [0, 1]), difference (shifted - clean), ci_low, ci_high (paired bootstrap over the
        images, 95%), p (McNemar, exact, not adjusted), n_samples, certificate. The spread over images alone.

    Raises UserError for runs that were not evaluated on sets that layerwise-corrupt made of their test images.
    """
    numbers = {metric: rows[rows["metric"] == metric].set_index(_KEY) for metric in ("shift", "shift_p")}
    found = numbers["shift"]
    if probes is not None:
        found = found[found.index.get_level_values("probe").isin(probes)]
    if found.empty:
        raise UserError(
            "no probe of these runs was evaluated on their own test images, changed. `layerwise-corrupt RUN.H5 -o "
            "FOLDER` makes such, `probe-depth RUN.H5 --evaluate FOLDER` evaluates on them."
        )
    shifted = of_classes(rows).set_index(_KEY)["value"].reindex(found.index)
    table = found.rename(columns={"value": "difference"}).assign(
        shifted=shifted, clean=shifted - found["value"], p=numbers["shift_p"]["value"].reindex(found.index)
    )
    columns = ["run", "probe", "probe_width", "probe_seed", "pooling", "split", "depth", "clean", "shifted"]
    columns += ["difference", "ci_low", "ci_high", "p", "n_samples", "certificate"]
    order = ["run", "probe", "probe_width", "probe_seed", "pooling", "split", "depth"]
    return table.reset_index()[columns].sort_values(order, kind="stable", ignore_index=True)
