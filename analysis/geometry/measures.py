"""The measures of a depth by name: what they are called, and between which values they lie."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """words: as figures call it. least, most: the ends of its range, where no depth's own ends are nearer."""

    words: str
    least: float = 0.0
    most: float = math.inf


MEASURES = {
    "effective_rank": Measure("effective rank", least=1.0),
    "participation_ratio": Measure("participation ratio", least=1.0),
    "twonn": Measure("TwoNN"),
    "mle": Measure("Levina-Bickel"),
    "zeros": Measure("zeros", most=1.0),
    "hoyer": Measure("Hoyer sparsity", most=1.0),
    "dead": Measure("dead units", most=1.0),
    "nc1": Measure("NC1"),
    "cdnv": Measure("CDNV"),
    "nc2_norms": Measure("NC2, norms"),
    "nc2_angles": Measure("NC2, angles", most=2.0),
    "nc3": Measure("NC3", most=math.sqrt(2)),
    "nc4": Measure("NC4", most=1.0),
    "ncm_error": Measure("class mean error", most=1.0),
    "fisher_ratio": Measure("Fisher ratio"),
    "margin": Measure("margin", least=-1.0, most=1.0),
}
# What a probe reads there, in rows beside these.
ACCURACY = "accuracy"
# What other probes read there, likewise.
CODELENGTH = "codelength"
DECODING = {CODELENGTH: Measure("codelength (bits an image)")}
SIMILARITIES = {
    "cka": Measure("debiased CKA", least=-math.inf, most=1.0),
    "cka_biased": Measure("biased CKA", most=1.0),
    "procrustes": Measure("shape distance", most=math.pi / 2),
}
