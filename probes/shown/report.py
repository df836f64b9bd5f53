"""The table on the terminal of probes evaluated on other images: a line for each set, a column for each depth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

# Columns of depths that stand beside a set's name within 80 characters.
ACROSS = 7
_WIDE = 26


def lines(rows: pd.DataFrame, names: Sequence[str], title: str) -> Iterator[str]:
    """Yield the lines for the last fits of one family, means where there are several probe seeds.

    Args:
        rows: of the family, as `probes.sweep.rows_at` returns them. names: of the sets, in their order.
    """
    own = rows[(rows["metric"] == "accuracy") & (rows["refit"] == rows["refit"].max())]
    for (probe, width, pooling), panel in own.groupby(["probe", "probe_width", "pooling"], sort=False):
        reads = f", {pooling}x{pooling}" if pooling else ""
        table = panel.pivot_table(index="split", columns="depth", values="value", aggfunc="mean")
        images = panel.groupby("split")["n_samples"].first()
        what = f"{probe}{f', M {width}' if width else ''}{reads}"
        for start in range(0, table.shape[1], ACROSS):
            part = table.iloc[:, start : start + ACROSS]
            yield f"{title}: {what}; accuracy in % by depth"
            yield f"{'':<{_WIDE}} {'images':>6} " + " ".join(f"{depth:>6}" for depth in part.columns)
            for name in ("test", *names):
                cells = " ".join(f"{100 * value:6.2f}" if pd.notna(value) else f"{'-':>6}" for value in part.loc[name])
                yield f"{_short(name):<{_WIDE}} {images[name]:>6} {cells}"


def _short(name: str) -> str:
    return name if len(name) <= _WIDE else f"...{name[3 - _WIDE :]}"
