"""Data sets: published ones, folders of images, and the validation fold set apart."""

from layerwise.config import DATASETS
from layerwise.datasets.dataset import Dataset, Sizes, Split, load_configured, load_dataset

__all__ = ["DATASETS", "Dataset", "Sizes", "Split", "load_configured", "load_dataset"]
