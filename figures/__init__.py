"""Draw tidy tables as figures fit for a paper. Nothing here computes a statistic.

Its Python API is what `__all__` names, loaded when first asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from figures.api import draw
    from figures.depths import draw_depths, draw_geometry, draw_similarity
    from figures.images import draw_atlas, draw_images
    from figures.page.api import separability_report
    from figures.parts import attribution_caption, caption, draw_attribution, draw_training, table, training_caption
    from figures.study.conduct import run_study

__all__ = [
    "attribution_caption",
    "caption",
    "draw",
    "draw_atlas",
    "draw_attribution",
    "draw_depths",
    "draw_geometry",
    "draw_images",
    "draw_similarity",
    "draw_training",
    "run_study",
    "separability_report",
    "table",
    "training_caption",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from layerwise.hidden import require_shown

    require_shown()
    from figures import api, depths, images, parts
    from figures.page import api as page
    from figures.study import conduct

    homes = {"draw": api, "run_study": conduct, "separability_report": page}
    homes |= dict.fromkeys(("draw_depths", "draw_geometry", "draw_similarity"), depths)
    homes |= dict.fromkeys(("draw_atlas", "draw_images"), images)
    return getattr(homes.get(name, parts), name)


def __dir__() -> list[str]:
    return sorted(__all__)
