"""Data sets: published ones, folders of images, and the validation fold set apart."""

from layerwise.config import DATASETS
from layerwise.datasets.dataset import Dataset, Sizes, load_configured, load_dataset
from layerwise.datasets.split import Split

__all__ = ["DATASETS", "Dataset", "Sizes", "Split", "load_configured", "load_dataset"]
