"""Fit probes to the frozen depths of a run and keep every number as a row of run.probes.csv.

Its Python API is `fit`, loaded when first asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.api import fit

__all__ = ["fit"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from probes import api

    return getattr(api, name)
