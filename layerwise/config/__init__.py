"""The configuration of a run: frozen, validated where it is built, complete as JSON.

A run can be repeated from its configuration alone. Where the data lie, which device computes and where the output goes
are matters of the machine; they are recorded in the run's provenance.
"""

from layerwise.config.data import DATASETS, DataConfig
from layerwise.config.network import ARCHITECTURES, VGG_DEPTH, VGG_GROWTH, VGG_POOLS, NetworkConfig
from layerwise.config.run import DTYPES, MATCHED, MATCHES, MODES, PRECISIONS, STORES, TRAINED_MODES, RunConfig
from layerwise.config.training import OPTIMIZERS, PREFIXES, SCHEDULES, TrainingConfig

__all__ = [
    "ARCHITECTURES", "DATASETS", "DTYPES", "MATCHED", "MATCHES", "MODES", "OPTIMIZERS", "PRECISIONS", "PREFIXES",
    "SCHEDULES", "STORES",
    "TRAINED_MODES", "VGG_DEPTH", "VGG_GROWTH", "VGG_POOLS", "DataConfig", "NetworkConfig", "RunConfig",
    "TrainingConfig",
]  # fmt: skip
