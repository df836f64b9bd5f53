"""Owns how arrays made elsewhere become the depths of a run: which array is which depth, whose rows are whose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from layerwise.commandline import progress
from layerwise.datasets.folds import DIGITS_TEST_SHARE, stratified_split
from layerwise.errors import UsageError, UserError, nearest
from layerwise.extraction.forms import Convention, Form, form_of
from layerwise.extraction.inputs import within
from layerwise.extraction.origins import Origin, Subject, Target, fingerprint_of, holdout_of, require_fold
from layerwise.extraction.selection import matches
from layerwise.extraction.stores import ArrayStore, in_step, whole
from layerwise.extraction.write import write_run
from layerwise.publication import refuse_existing
from layerwise.runfile.depths import DepthStream
from layerwise.runfile.layout import SPLITS
from layerwise.runfile.plan import Plan, plan
from layerwise.runfile.writer import RunWriter

RESERVED = ("labels", "splits", "index", "classes")
INPUT = "input"  # an array of this name is depth 0
BATCH, BATCH_BYTES = 256, 64 * 10**6
# What others call the splits.
ALIASES = {"val": "validation", "valid": "validation", "dev": "validation"}


@dataclass(frozen=True)
class Segment:
    """Arrays of one length: `prefix` stands before their names; owned: ascending rows of each split among them."""

    prefix: str
    owned: Mapping[str, np.ndarray]


class ArrayRun:
    """The arrays of a store as depths: layers in their order, from 1 (0 is an array named "input").

    Args:
        layers: "auto" for all arrays in the order of the store, else names and patterns with commas, in whose order
            they become depths.
        trained_on, holdout: as for networks; a stratified share of train becomes the validation fold where none is
            given and the network has seen none of the samples.

    Raises UserError for arrays that are no run: lengths that differ, labels or splits that are missing or no such.
    """

    def __init__(self, store: ArrayStore, *, layers: str, tokens: str, trained_on: str, holdout: float):
        self.store = store
        groups = [name for name in SPLITS if any(key.startswith(f"{name}/") for key in store.names())]
        prefixes = [f"{name}/" for name in groups] or [""]
        self.layers = self._choose(prefixes, layers)
        self._check_lengths(prefixes)
        read = {prefix: self._read_labels(prefix) for prefix in prefixes}
        self.classes, coded = _encode(store, read)
        self._require_splits(groups, trained_on)
        share = holdout_of(trained_on, holdout)
        self.segments = [self._segment(prefix, coded[prefix], groups, share) for prefix in prefixes]
        owned = {split: (s, rows) for s in self.segments for split, rows in s.owned.items()}
        if not {"train", "test"} <= set(owned):
            raise UserError(
                f"{store.name} has the splits {', '.join(sorted(owned))}, but train and test are needed "
                "(validation may be there)."
            )
        order = [split for split in SPLITS if split in owned]
        self.labels = {split: coded[owned[split][0].prefix][owned[split][1]] for split in order}
        self.index = {split: self._read_index(*owned[split]) for split in order}
        self.forms = self._forms(prefixes, tokens)
        self.depths = {
            j: form.depth(name, self._shape(name))
            for (j, form), name in zip(self.forms.items(), self.layers, strict=True)
        }

    @property
    def counts(self) -> dict[str, int]:
        """Number of samples of each split."""
        return {name: len(label) for name, label in self.labels.items()}

    def plan(self, store: str, max_size: int, in_float32: frozenset[int] = frozenset()) -> Plan:
        """Return what would be kept within `max_size` bytes."""
        return plan(self.depths, self.counts, store=store, max_size=max_size, in_float32=in_float32)

    def subject(self, name: str) -> Subject:
        """Return the data as the file describes them; nothing is known of how inputs were normalised."""
        prints = {split: fingerprint_of(label, self.index[split]) for split, label in self.labels.items()}
        return Subject(name=name, classes=self.classes, mean=(), std=(), fingerprint=prints)

    def write(self, target: Target, origin: Origin, subject: Subject) -> Plan:
        """Read all arrays once and publish the run file; return what it holds."""
        refuse_existing(target.out, target.force)
        return write_run(target, origin, subject, self, self.plan, self._run)

    def _run(self, writer: RunWriter, stream: DepthStream, images: bool) -> None:
        with progress() as bar:
            task = bar.add_task("reading arrays", total=sum(self.counts.values()))
            for segment in self.segments:
                start = 0
                names = [segment.prefix + name for name in self.layers]
                for blocks in in_step(self.store, names, self._batch):
                    n = len(blocks[0])
                    stream.start_batch({split: within(rows, start, n) for split, rows in segment.owned.items()}, n)
                    for (j, form), block in zip(self.forms.items(), blocks, strict=True):
                        output = torch.from_numpy(block.astype(np.float32))
                        stream.take(j, form.maps(output), form.class_token(output))
                    start += n
                    bar.advance(task, n)

    @property
    def _batch(self) -> int:
        """Rows that are read at once, of all arrays together at most BATCH_BYTES where one row allows it."""
        row = 4 * sum(int(np.prod(self._shape(name), dtype=np.int64)) for name in self.layers)
        return max(1, min(BATCH, BATCH_BYTES // row))

    def _choose(self, prefixes: list[str], asked: str) -> list[str]:
        first = prefixes[0]
        held = [key.removeprefix(first) for key in self.store.names() if key.startswith(first)]
        names = [name for name in held if name not in RESERVED]
        if not names:
            raise UserError(f"{self.store.name} holds no array of a layer (found: {', '.join(held) or 'nothing'}).")
        if asked == "auto":
            return sorted(names, key=lambda name: name != INPUT)
        chosen: dict[str, None] = {}
        for word in (part.strip() for part in asked.split(",")):
            matched = [name for name in names if matches(name, word)]
            if not matched:
                hint = nearest(word, names) or f" It has {', '.join(names[:5])}."
                raise UsageError(f"no array of {self.store.name} is named or matches {word!r}.{hint}")
            chosen |= dict.fromkeys(matched)
        return sorted(chosen, key=lambda name: name != INPUT)

    def _check_lengths(self, prefixes: list[str]) -> None:
        held = set(self.store.names())
        for prefix in prefixes:
            labels = f"{prefix}labels"
            if labels not in held:
                raise UserError(
                    f"{self.store.name} has no array {labels!r}. Give the class of each sample there, in the order of "
                    "the rows."
                )
            n = self.store.shape(labels)[0] if self.store.shape(labels) else 0
            for name in [*self.layers, *(r for r in ("splits", "index") if prefix + r in held)]:
                if prefix + name not in held:
                    raise UserError(f"{self.store.name} has {prefixes[0]}{name}, but no {prefix}{name}.")
                shape = self.store.shape(prefix + name)
                if not shape or shape[0] != n:
                    raise UserError(
                        f"{self.store.name}: {prefix}{name} has {shape[0] if shape else 'no'} rows, but {labels} has "
                        f"{n}. Each array needs a row for each sample."
                    )

    def _read_labels(self, prefix: str) -> np.ndarray:
        labels = whole(self.store, f"{prefix}labels")
        if not len(labels) or labels.dtype.kind not in "iuUS":
            raise UserError(
                f"{self.store.name}: {prefix}labels has {len(labels)} values of type {labels.dtype}, but the classes "
                "must be integers or text."
            )
        return labels.astype(str) if labels.dtype.kind == "S" else labels

    def _segment(self, prefix: str, label: np.ndarray, groups: list[str], share: float) -> Segment:
        n = len(label)
        if prefix:
            owned = {prefix.rstrip("/"): np.arange(n)}
        elif "splits" in self.store.names():
            owned = self._read_splits()
        else:  # as digits, which are published as one set
            train, test = stratified_split(label, DIGITS_TEST_SHARE)
            owned = {"train": train, "test": test}
        if share and "train" in owned and "validation" not in (*owned, *groups):
            kept, held = stratified_split(label[owned["train"]], share)
            owned |= {"train": owned["train"][kept], "validation": owned["train"][held]}
        return Segment(prefix, owned)

    def _require_splits(self, groups: list[str], trained_on: str) -> None:
        """Raise UserError where only the user can know which samples the network has seen, and does not say it."""
        given = set(groups) or (set(self._read_splits()) if "splits" in self.store.names() else set())
        if trained_on.startswith("train-") and not given:
            raise UserError(
                f"{self.store.name} does not say which samples are for testing, but --trained-on {trained_on} says "
                "that the network has seen others. Give an array 'splits', or groups train/ and test/."
            )
        require_fold(trained_on, "validation" in given, self.store.name)

    def _read_splits(self) -> dict[str, np.ndarray]:
        given = whole(self.store, "splits").astype(str)
        names = np.array([ALIASES.get(name, name) for name in given])
        if unknown := sorted(set(names) - set(SPLITS)):
            raise UserError(
                f"{self.store.name}: splits has {str(unknown[0])!r}, but each must be train, validation or test."
            )
        return {name: np.flatnonzero(names == name) for name in SPLITS if (names == name).any()}

    def _read_index(self, segment: Segment, rows: np.ndarray) -> np.ndarray:
        path = f"{segment.prefix}index"
        if path not in self.store.names():
            return rows.astype(np.int64)
        index = whole(self.store, path)
        if index.dtype.kind not in "iu":
            raise UserError(f"{self.store.name}: {path} is of type {index.dtype}, but positions must be integers.")
        return index.astype(np.int64)[rows]

    def _shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of one row of a layer's array."""
        return self.store.shape(self.segments[0].prefix + name)[1:]

    def _forms(self, prefixes: list[str], tokens: str) -> dict[int, Form]:
        forms = {}
        for j, name in enumerate(self.layers, start=int(self.layers[0] != INPUT)):
            shapes = {self.store.shape(prefix + name)[1:] for prefix in prefixes}
            kind = self.store.dtype(prefixes[0] + name).kind
            if len(shapes) > 1:
                raise UserError(f"{self.store.name}: {name} has rows of another shape in another split: {shapes}.")
            if kind not in "fiu":
                raise UserError(f"{self.store.name}: {name} is of type {kind!r}, but real numbers are needed.")
            (shape,) = shapes
            try:
                forms[j] = form_of(shape, Convention(tokens=tokens if name != INPUT else "patch"))
            except UserError as error:
                raise UserError(f"{self.store.name}: array {name} {error}.") from None
        return forms


def _encode(store: ArrayStore, labels: Mapping[str, np.ndarray]) -> tuple[list[str], dict[str, np.ndarray]]:
    """Return the names of the classes, and the labels of each segment as positions among them.

    Names come from `classes` where it is there, and labels then count in it; else they are what the labels hold.
    """
    everything = np.concatenate(list(labels.values()))
    if "classes" in store.names():
        classes = [str(name) for name in whole(store, "classes")]
        if everything.dtype.kind == "U":
            if missing := sorted(set(everything) - set(classes)):
                raise UserError(f"{store.name}: a label is {str(missing[0])!r}, which is not among `classes`.")
            return classes, {p: np.array([classes.index(v) for v in y], dtype=np.int64) for p, y in labels.items()}
        if not 0 <= everything.min() <= everything.max() < len(classes):
            raise UserError(
                f"{store.name}: labels reach from {everything.min()} to {everything.max()}, but `classes` names "
                f"{len(classes)}, counted from 0."
            )
        return classes, {prefix: y.astype(np.int64) for prefix, y in labels.items()}
    found = np.unique(everything)
    if len(found) < 2:
        raise UserError(f"{store.name}: all labels are {found[0]}, but at least two classes are needed.")
    return [str(name) for name in found], {p: np.searchsorted(found, y).astype(np.int64) for p, y in labels.items()}
