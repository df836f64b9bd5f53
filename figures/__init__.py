"""Draw tidy tables as figures fit for a paper. Nothing here computes a statistic.

Its Python API is `draw`, loaded when first asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from figures.api import draw

__all__ = ["draw"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from figures import api

    return getattr(api, name)
