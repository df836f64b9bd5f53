"""Trained networks as files that need nothing of this package."""

from layerwise.export.write import Exported, export_run

__all__ = ["Exported", "export_run"]
