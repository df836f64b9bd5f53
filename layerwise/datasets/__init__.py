"""Data sets: published ones, folders of images, and the validation fold set apart."""

from layerwise.datasets.dataset import DATASETS, Dataset, Split, load_configured, load_dataset

__all__ = ["DATASETS", "Dataset", "Split", "load_configured", "load_dataset"]
