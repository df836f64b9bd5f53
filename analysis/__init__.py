"""Turn rows of probe results into tidy tables of statistics. Nothing here draws or trains.

Its Python API is what `__all__` names, loaded when first asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.api import (
        accuracies,
        curves,
        depth_geometry,
        depth_similarity,
        gain_parts,
        image_depths,
        image_disagreement,
        line_contrasts,
        published_numbers,
        read,
        run_differences,
        single_images,
        training_curves,
        trends,
        width_curves,
    )

__all__ = [
    "accuracies",
    "curves",
    "depth_geometry",
    "depth_similarity",
    "gain_parts",
    "image_depths",
    "image_disagreement",
    "line_contrasts",
    "published_numbers",
    "read",
    "run_differences",
    "single_images",
    "training_curves",
    "trends",
    "width_curves",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from layerwise.hidden import require_shown

    require_shown()
    from analysis import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted(__all__)
