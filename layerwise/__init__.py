"""Train CNNs greedily, block by frozen block, and keep what every depth computes in one HDF5 file.

`layerwise` owns the networks, their training, the data sets and the run file (run.h5). Its Python API is `train`,
`extract_network`, `extract_arrays`, `open_run` and `export_network`; they are loaded when first asked for, since they
need torch.
"""

import warnings
from typing import TYPE_CHECKING, Any

from layerwise.hidden import hidden, is_command

if TYPE_CHECKING:
    from layerwise.api import export_network, extract_arrays, extract_network, open_run, train

__version__ = "0.1.0"
__all__ = ["export_network", "extract_arrays", "extract_network", "open_run", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from layerwise import api

    return getattr(api, name)


for _line in () if is_command() else hidden():
    warnings.warn(_line, stacklevel=2)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
