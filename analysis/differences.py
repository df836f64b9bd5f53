"""Two runs compared at each depth: the same probe of both, on the same test images, image by image."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pandas as pd

from analysis.failures import only_trained, told
from analysis.selection import of_classes
from layerwise.errors import UserError
from probes.probe import ProbeName
from probes.results.columns import PROBE_NAME
from probes.results.paired_tests import holm, mcnemar, paired_interval
from probes.results.predictions import open_correct, paired
from probes.results.table import last_fits

log = logging.getLogger("layerwise.analysis")

_NAME = list(PROBE_NAME)
_LINE = ["probe", "probe_width", "probe_seed", "pooling"]


def differences(first: Path, second: Path, probes: Sequence[str] | None = None) -> pd.DataFrame:
    """Return how much more accurate each probe of the second run is, at each depth that both have.

    Args:
        first, second: probed run files of the same images.
        probes: names; None takes all that both have.

    Returns:
        A row for each probe, width and seed of it, pooling and depth: those, first, second (test accuracies in [0, 1]),
        difference (second - first), ci_low, ci_high (paired bootstrap, 95%), p (McNemar, exact), p_holm (adjusted over
        the depths of one probe), n_samples, certificate (the larger), left_out (none), did_not_train (files).
        The spread over images alone: another seed of a network may differ more.

    Raises:
        UserError: if the runs are not of the same images, or have no probe with predictions in common.
    """
    from analysis.tables import read
    from layerwise.runfile import RunFile
    from probes.results.baseline import require_same_images

    found = []
    with ExitStack() as opened:
        one, other = (opened.enter_context(RunFile(run)) for run in (first, second))
        require_same_images(one, other)
        correct, correct_of_other = (opened.enter_context(open_correct(run)) for run in (one, other))
        tables = [only_trained(read([run]), ["run"]) for run in (first, second)]
        one_rows, other_rows = (_fitted(rows, probes) for rows in tables)
        for key in one_rows.index.intersection(other_rows.index):
            *values, refit = key
            name = ProbeName(**dict(zip(_NAME, values, strict=True)))
            certificate = max(rows.loc[key, "certificate"].max() for rows in (one_rows, other_rows))
            pair = paired(correct(name, int(refit)), correct_of_other(name, int(refit)))
            if pair is None:
                continue
            low, high = paired_interval(*pair)
            before, after = (float(right.mean()) for right in pair)
            found.append(
                {column: getattr(name, column) for column in [*_LINE, "depth"]}
                | {"first": before, "second": after, "difference": after - before, "ci_low": low, "ci_high": high}
                | {"p": mcnemar(*pair), "n_samples": len(pair[0]), "certificate": certificate}
            )
    if not found:
        what = "no probe" if probes is None else f"no probe {', '.join(probes)}"
        raise UserError(
            f"{first} and {second} have {what} with predictions in common. `probe-depth RUN.H5` makes them for each."
        )
    table = pd.DataFrame(found).sort_values([*_LINE, "depth"], kind="stable").reset_index(drop=True)
    table = table.assign(**told(pd.concat(tables)))
    return table.assign(p_holm=table.groupby(_LINE, sort=False)["p"].transform(lambda p: pd.Series(holm(p), p.index)))


def _fitted(rows: pd.DataFrame, probes: Sequence[str] | None) -> pd.DataFrame:
    """Return the rows of test accuracies on the classes, of the refitted probes where there are, by name and refit."""
    own = of_classes(rows[rows["split"] == "test"])
    if probes is not None:
        own = own[own["probe"].isin(probes)]
    return last_fits(own).set_index([*_NAME, "refit"])
