"""recipe.json of layerwise-corrupt: from which images, and by which seed, each set below a folder was made."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from layerwise.errors import UserError
from layerwise.locks import held_briefly
from layerwise.publication import published

RECIPE = "recipe.json"


@dataclass(frozen=True)
class Made:
    """How one set was made. images: fingerprint of the test split that was corrupted."""

    dataset: str
    images: str
    seed: int


def read_recipe(folder: Path) -> dict[str, Made]:
    """Return how each set below a folder was made, by its name, as contrast/3; nothing where there is no recipe.

    Raises UserError for a file of that name that says something else.
    """
    path = folder / RECIPE
    try:
        return {name: Made(**made) for name, made in json.loads(path.read_text())["sets"].items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{path} is no recipe of layerwise-corrupt, which would stand there. Move it away, or give another folder."
        ) from None


def note_made(folder: Path, sets: Mapping[str, Made]) -> None:
    """Write into the recipe of a folder how sets were made, beside what it says of others."""
    path = folder / RECIPE
    with held_briefly(path.with_name(f".{RECIPE}.lock"), f"layerwise-corrupt is writing {path}"):
        all_sets = {name: dataclasses.asdict(made) for name, made in (read_recipe(folder) | dict(sets)).items()}
        with published(path, force=True) as temporary:
            temporary.write_text(json.dumps({"sets": all_sets}, sort_keys=True, indent=1) + "\n")
