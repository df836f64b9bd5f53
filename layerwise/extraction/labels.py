"""Labels of arrays made elsewhere: which classes there are by name, and which samples have none."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from layerwise.errors import UserError
from layerwise.extraction.stores import ArrayStore, whole

log = logging.getLogger("layerwise.extract")

NO_CLASS = -1  # what scikit-learn and STL-10 write for a sample without a class


def read_labels(store: ArrayStore, path: str) -> np.ndarray:
    """Return the labels at a path, integers or text; True and False are text."""
    labels = whole(store, path)
    if labels.dtype.kind == "b":
        return labels.astype(str)
    if not len(labels) or labels.dtype.kind not in "iuU":
        raise UserError(
            f"{store.name}: {path} has {len(labels)} values of type {labels.dtype}, but the classes "
            f"must be integers or text.{_advice(labels)}"
        )
    return labels


def _advice(labels: np.ndarray) -> str:
    if labels.dtype.kind == "O":
        row = next((i for i, label in enumerate(labels) if not isinstance(label, str)), 0)
        return f" Row {row} is {labels[row]!r}; write -1 for a sample without a class."
    return " Convert them by .astype(int)." if labels.dtype.kind == "f" else ""


def encode(store: ArrayStore, labels: Mapping[str, np.ndarray]) -> tuple[list[str], dict[str, np.ndarray]]:
    """Return the names of the classes, and the labels of each segment as positions among them, -1 for none.

    Names come from `classes` where it is there, and labels then count in it; else they are what the labels hold.
    """
    everything = np.concatenate(list(labels.values()))
    is_known = _known(store, everything)
    found = np.unique(everything[is_known])
    if "classes" in store.names():
        classes = _read_classes(store)
        codes = _positions(store, found, classes)
    else:
        classes, codes = [str(name) for name in found], np.arange(len(found))
    if len(found) < 2:
        only = f"all labels are {found[0]}" if len(found) else "no sample has a label"
        raise UserError(f"{store.name}: {only}, but at least two classes are needed.")
    coded = np.full(len(everything), NO_CLASS, dtype=np.int64)
    coded[is_known] = codes[np.searchsorted(found, everything[is_known])]
    ends = np.cumsum([len(y) for y in labels.values()])[:-1]
    return classes, dict(zip(labels, np.split(coded, ends), strict=True))


def _known(store: ArrayStore, labels: np.ndarray) -> np.ndarray:
    """Return which samples have a class: a label that is not -1 and not empty."""
    is_text = labels.dtype.kind == "U"
    values = set(np.unique(labels).tolist())
    if values in ({-1, 1}, {"-1", "1"}):  # as support vector machines have them
        log.info("%s: the labels are -1 and 1, taken for two classes", store.name)
        return np.ones(len(labels), dtype=bool)
    is_known = (labels != str(NO_CLASS)) & (labels != "") if is_text else labels != NO_CLASS
    if not is_text and (wrong := sorted(value for value in values if value < NO_CLASS)):
        raise UserError(
            f"{store.name}: {int((labels == wrong[0]).sum())} labels are {wrong[0]}, but classes are numbered from 0, "
            f"and {NO_CLASS} says that a sample has none. Number them anew, or give them names."
        )
    if missing := int((~is_known).sum()):
        log.warning(
            "%s: %d of %d samples have the label %s, which says that they have no class; they are left out. If it is "
            "one, give it a name or a number from 0.",
            store.name, missing, len(labels), "'' or '-1'" if is_text else NO_CLASS,
        )  # fmt: skip
    return is_known


def _read_classes(store: ArrayStore) -> list[str]:
    classes = [str(name) for name in whole(store, "classes")]
    if (
        twice := sorted({name for name in classes if classes.count(name) > 1})
        if len(set(classes)) < len(classes)
        else []
    ):
        raise UserError(f"{store.name}: `classes` names {twice[0]!r} more than once. Give each class its own name.")
    return classes


def _positions(store: ArrayStore, found: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Return the position among `classes` of each label that is found, ascending."""
    place = {name: i for i, name in enumerate(classes)}
    if found.dtype.kind == "U":
        if missing := [name for name in found if name not in place]:
            raise UserError(f"{store.name}: a label is {str(missing[0])!r}, which is not among `classes`.")
        return np.array([place[name] for name in found], dtype=np.int64)
    if len(found) and found[-1] >= len(classes):
        raise UserError(
            f"{store.name}: labels reach from {found[0]} to {found[-1]}, but `classes` names {len(classes)}, counted "
            "from 0."
        )
    return found.astype(np.int64)


def tell_missing(labels: Mapping[str, np.ndarray], classes: Sequence[str]) -> None:
    """Say in one line which classes train lacks, so that no probe can name them, and which test lacks."""
    held = {split: set(np.unique(label).tolist()) for split, label in labels.items()}
    everywhere = set().union(*held.values())
    lacking = {split: [classes[c] for c in sorted(everywhere - held[split])] for split in ("train", "test")}
    if any(lacking.values()):
        words = [f"{split} has no sample of {_some(names)}" for split, names in lacking.items() if names]
        log.warning("%s", "; ".join(words))


def _some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
