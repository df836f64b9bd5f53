"""How easily the classes are decoded at a depth: codelength, and how many images a stated loss takes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from layerwise.errors import UserError
from probes.names import CODELENGTH
from probes.tasks.task import CLASS, NO_CONTROL

EPSILON = 0.5  # bits a label
_LOSS = "log_loss_bits@"
_KEY = ["run", "run_id", "depth", "pooling", "probe_seed", "features"]


def sample_complexity(sizes: Sequence[int], losses: Sequence[float], epsilon: float) -> float:
    """Return the least of the sizes n, rising, whose loss is at most epsilon; infinite where none is.

    Whitney et al. 2020, at the sizes that were fitted: the true one lies above the size before.
    """
    reached = [n for n, loss in zip(sizes, losses, strict=True) if loss <= epsilon]
    return float(reached[0]) if reached else math.inf


def surplus_description_length(sizes: Sequence[int], losses: Sequence[float], epsilon: float, n_classes: int) -> float:
    """Return the bits that the labels of all sizes cost beyond epsilon each, by a probe that learns as it goes.

    Whitney et al. 2020: the sum over n of what the loss after n images has above epsilon. Between two sizes it is taken
    as that of the smaller, as a codelength does, and log2 K before the first. Where even the largest size has a loss
    above epsilon, the sum goes on without an end, and this is a lower bound of it.
    """
    before = np.diff([0, *sizes])
    known = np.array([math.log2(n_classes), *losses[:-1]])
    return float(before @ np.maximum(known - epsilon, 0))


def decoding(rows: pd.DataFrame, epsilon: float = EPSILON) -> pd.DataFrame:
    """Return how easily each depth of each run is decoded, for each order of the images.

    Args:
        rows: as `analysis.tables.read` returns them. epsilon: a loss on the test split, in bits a label.

    Returns:
        A row for each run, pooling, order and depth: run, depth, pooling, order, n (images of the train fold), bits
        (codelength of an image's label), ci_low, ci_high (normal, 95%, over images), compression, loss (of the largest
        size on the test split), epsilon, samples (`sample_complexity`, missing where it is not reached),
        surplus_bits (`surplus_description_length`), reached (whether the largest size is within epsilon).

    Raises UserError where no run has a codelength.
    """
    own = rows[(rows["probe"] == CODELENGTH) & (rows["target"] == CLASS) & (rows["control"] == NO_CONTROL)]
    if own.empty:
        raise UserError("no run has a codelength. `probe-depth RUN.H5 --probe codelength` makes it.")
    found = [_row(key, one, epsilon) for key, one in own.groupby(_KEY, sort=False)]
    return pd.DataFrame(found).sort_values(["run", "pooling", "order", "depth"], kind="stable", ignore_index=True)


def _row(key: tuple[object, ...], own: pd.DataFrame, epsilon: float) -> dict[str, object]:
    at, total = own.set_index("metric")["value"], own[own["metric"] == "codelength_bits"].iloc[0]
    losses = {int(name.removeprefix(_LOSS)): float(loss) for name, loss in at.items() if name.startswith(_LOSS)}
    sizes = sorted(losses)
    path = [losses[n] for n in sizes]
    samples = sample_complexity(sizes, path, epsilon)
    named = dict(zip(_KEY, key, strict=True))
    return {
        **{name: named[name] for name in ("run", "depth", "pooling")},
        "order": named["probe_seed"],
        "n": sizes[-1],
        **{name: total[column] / sizes[-1] for name, column in
           (("bits", "value"), ("ci_low", "ci_low"), ("ci_high", "ci_high"))},
        "compression": at["compression"],
        "loss": path[-1],
        "epsilon": epsilon,
        "samples": samples if math.isfinite(samples) else math.nan,
        "surplus_bits": surplus_description_length(sizes, path, epsilon, int(total["n_classes"])),
        "reached": path[-1] <= epsilon,
    }  # fmt: skip
