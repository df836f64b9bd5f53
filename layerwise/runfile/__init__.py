"""run.h5: its layout, writing, reading and digests, and the plan of what fits it."""

from layerwise.runfile.layout import SPLITS
from layerwise.runfile.reader import Rows, RunFile, run_id

__all__ = ["SPLITS", "Rows", "RunFile", "run_id"]
