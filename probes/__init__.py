"""Fit probes to the frozen depths of runs and keep every number as a row of run.probes.csv.

Its Python API is `fit`, `estimators` and `compare`, loaded when first asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.api import compare, estimators, fit

__all__ = ["compare", "estimators", "fit"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from probes import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted(__all__)
