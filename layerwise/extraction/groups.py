"""Names of arrays and of splits: which arrays stand in which group, and what others call train, validation and test."""

from __future__ import annotations

import logging

from layerwise.errors import UserError
from layerwise.extraction.stores import ArrayStore
from layerwise.runfile.layout import SPLITS

log = logging.getLogger("layerwise.extract")

# What others call the splits.
ALIASES = {
    "val": "validation", "valid": "validation", "dev": "validation", "training": "train", "testing": "test",
}  # fmt: skip


def split_of(word: str) -> str | None:
    """Return the split that others call so, or None."""
    name = ALIASES.get(word.lower(), word.lower())
    return name if name in SPLITS else None


def groups_of(store: ArrayStore) -> dict[str, str]:
    """Return the split of each group of arrays by its prefix, such as "val/", in the order of the splits.

    Raises UserError where two groups are one split; arrays beside the groups are counted in one line.
    """
    heads = dict.fromkeys(key.partition("/")[0] for key in store.names() if "/" in key)
    found: dict[str, str] = {}
    for head in heads:
        if (split := split_of(head)) is None:
            continue
        if split in found:
            raise UserError(f"{store.name} has both {found[split]} and {head}/, which are both {split}. Give one.")
        found[split] = f"{head}/"
    prefixes = tuple(found.values())
    per_group = tuple(f"{prefix}{name}" for prefix in prefixes for name in ("splits", "classes"))
    beside = [
        key
        for key in store.names()
        if prefixes and key != "classes" and (not key.startswith(prefixes) or key in per_group)
    ]
    if beside:
        log.warning(
            "%s: not read are arrays beside the groups %s: %d (%s)",
            store.name, ", ".join(prefixes), len(beside), ", ".join(beside[:5]),
        )  # fmt: skip
    return {found[split]: split for split in SPLITS if split in found}
