"""The depth that the validation fold chooses for each line: where a probe reads most there.

The depth of the highest test accuracy is not it: that number is the luckiest of several on the images that measure it.
"""

from __future__ import annotations

import pandas as pd

from analysis.factors import line_columns
from analysis.tables import PANEL


def best_depths(points: pd.DataFrame) -> pd.DataFrame:
    """Return the point of each panel and line with the highest accuracy from depth 1 on; of equal ones the shallowest.

    Args:
        points: of the validation split, of probes that were fitted without it (refit=False), as
            `analysis.separability.curves` returns them.
    """
    own = points[points["depth"] > 0].sort_values("depth", kind="stable")
    best = own.sort_values("accuracy", ascending=False, kind="stable")
    return best.groupby([*PANEL, *line_columns(points["by"].iloc[0])], dropna=False, sort=False).head(1)
