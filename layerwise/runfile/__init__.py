"""run.h5: its layout, writing, reading and digests, and the plan of what fits it."""

from layerwise.runfile.layout import SPLITS
from layerwise.runfile.reader import RunFile, run_id
from layerwise.runfile.rows import Rows

__all__ = ["SPLITS", "Rows", "RunFile", "run_id"]
