"""Owns run.h5: its writing, its reading, its digests, and what of a run fits it."""

from layerwise.runfile.layout import SPLITS
from layerwise.runfile.reader import Rows, RunFile, run_id

__all__ = ["SPLITS", "Rows", "RunFile", "run_id"]
