"""Trained networks as files that need nothing of this package, and test images as corrupted image files."""

from layerwise.export.corrupted import corrupt_run
from layerwise.export.write import Exported, export_run

__all__ = ["Exported", "corrupt_run", "export_run"]
