"""Arrays made elsewhere as the depths of a run: which array is which depth, whose rows are whose."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from layerwise import ranks
from layerwise.commandline import progress
from layerwise.datasets.folds import stratified_split, stratified_test
from layerwise.errors import UsageError, UserError, nearest, option
from layerwise.extraction.axes import LAST, axis_by_sides
from layerwise.extraction.forms import Convention, Form, check_reading, describe_readings, form_of_array, grids_of
from layerwise.extraction.groups import groups_of, split_of
from layerwise.extraction.inputs import within
from layerwise.extraction.labels import encode, read_labels, tell_missing
from layerwise.extraction.layer_selection import matches
from layerwise.extraction.origins import Origin, fingerprint_of, holdout_of, require_fold
from layerwise.extraction.stores import ArrayStore, as_float32, in_step, whole
from layerwise.extraction.write import Extraction
from layerwise.runfile.depths import DepthStream
from layerwise.runfile.layout import SPLITS
from layerwise.runfile.writer import RunWriter, dataset_attribute

log = logging.getLogger("layerwise.extract")

RESERVED = ("labels", "splits", "index", "classes")
INPUT = "input"  # an array of this name is depth 0
BATCH, BATCH_BYTES = 256, 64 * 10**6


@dataclass(frozen=True)
class Segment:
    """Arrays of one length: `prefix` stands before their names; owned: ascending rows of each split among them."""

    prefix: str
    owned: Mapping[str, np.ndarray]


class ArrayExtraction(Extraction):
    """The arrays of a store as depths: layers in their order, from 1 (0 is an array named "input").

    Args:
        layers: "auto" for all arrays in the order of the store, else names and patterns with commas, in whose order
            they become depths.
        origin, holdout: as for networks; a stratified share of train becomes the validation fold where none is
            given and the network has seen none of the samples. name: of the data.

    Raises UserError for arrays that are no run: lengths that differ, labels or splits that are missing or no such.
    """

    def __init__(
        self,
        store: ArrayStore,
        origin: Origin,
        *,
        layers: str,
        tokens: str,
        holdout: float,
        name: str,
        layout: str = "auto",
    ):
        check_reading(tokens, layout)
        self.store, self.origin = store, origin
        trained_on = origin.trained_on
        groups = groups_of(store)
        prefixes = list(groups) or [""]
        self.layers = self._choose(prefixes, layers)
        if layers == "auto":
            self._require_same_layers(prefixes)
        self._check_lengths(prefixes)
        self.classes, coded = encode(store, {prefix: read_labels(store, f"{prefix}labels") for prefix in prefixes})
        self._require_splits(groups, trained_on)
        share = holdout_of(trained_on, holdout)
        self.segments = [self._segment(prefix, coded[prefix], groups, share) for prefix in prefixes]
        owned = {split: (s, rows) for s in self.segments for split, rows in s.owned.items() if len(rows)}
        if not {"train", "test"} <= set(owned):
            raise UserError(
                f"{store.name} has the splits {', '.join(sorted(owned))}, but train and test are needed "
                "(validation may be there)."
            )
        order = [split for split in SPLITS if split in owned]
        self.labels = {split: coded[owned[split][0].prefix][owned[split][1]] for split in order}
        self.index = {split: self._read_index(*owned[split]) for split in order}
        prints = {split: fingerprint_of(label, self.index[split]) for split, label in self.labels.items()}
        self.dataset = dataset_attribute(name, self.classes, (), (), prints)  # how inputs were normalised is not known
        self.forms = self._forms(prefixes, tokens, layout)
        log.info("read as %s", "; ".join(describe_readings(zip(self.layers, self.forms.values(), strict=True))))
        self.depths = {
            j: form.depth(name, self._shape(name))
            for (j, form), name in zip(self.forms.items(), self.layers, strict=True)
        }
        tell_missing(self.labels, self.classes)

    def run(self, writer: RunWriter, stream: DepthStream, images: bool) -> None:
        if ranks.rank():  # arrays are only read, in order: there is nothing to compute in several processes
            return
        with progress() as bar:
            task = bar.add_task("reading arrays", total=sum(self.counts.values()))
            for segment in self.segments:
                start = 0
                names = [segment.prefix + name for name in self.layers]
                for blocks in in_step(self.store, names, self._batch):
                    n = len(blocks[0])
                    routes = {split: within(rows, start, n) for split, rows in segment.owned.items()}
                    used = np.sort(np.concatenate(list(routes.values())))
                    stream.start_batch({split: np.searchsorted(used, rows) for split, rows in routes.items()}, n)
                    kept = slice(None) if len(used) == n else used  # all but samples without a class
                    for (j, form), name, block in zip(self.forms.items(), self.layers, blocks, strict=True):
                        where = f"{self.store.name}: array {segment.prefix}{name}"
                        output = torch.from_numpy(as_float32(block, where, start)[kept])
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
        if unreadable := [name for name in names if not name.isprintable()]:
            raise UserError(
                f"{self.store.name} has an array named {unreadable[0]!a}, but names must be one line of text. "
                "Rename it."
            )
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

    def _require_same_layers(self, prefixes: Sequence[str]) -> None:
        """Raise UserError where a group holds a layer that another lacks."""
        for name in self.store.names():
            prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
            if prefix is None or (layer := name.removeprefix(prefix)) in RESERVED:
                continue
            if missing := [other for other in prefixes if other + layer not in self.store.names()]:
                raise UserError(
                    f"{self.store.name} has {name}, but no {missing[0]}{layer}. Give it to both, or choose by --layers."
                )

    def _check_lengths(self, prefixes: list[str]) -> None:
        held = set(self.store.names())
        for prefix in prefixes:
            labels = f"{prefix}labels"
            if labels not in held:
                names = list(self.store.names())
                others = f" and {len(names) - 5} more" if len(names) > 5 else ""
                it_has = f" It has {', '.join(names[:5])}{others}." if names else ""
                raise UserError(
                    f"{self.store.name} has no array {labels!r}. Give the class of each sample there, in the order of "
                    f"the rows.{it_has}"
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

    def _segment(self, prefix: str, label: np.ndarray, groups: Mapping[str, str], share: float) -> Segment:
        labelled = np.flatnonzero(label >= 0)
        if prefix:
            owned = {groups[prefix]: labelled}
        elif "splits" in self.store.names():
            owned = {split: rows[label[rows] >= 0] for split, rows in self._read_splits().items()}
        else:  # as digits, which are published as one set
            train, test = stratified_test(label[labelled])
            owned = {"train": labelled[train], "test": labelled[test]}
        if share and "train" in owned and "validation" not in (*owned, *groups.values()):
            kept, held = stratified_split(label[owned["train"]], share, self.classes)
            owned |= {"train": owned["train"][kept], "validation": owned["train"][held]}
        return Segment(prefix, owned)

    def _require_splits(self, groups: Mapping[str, str], trained_on: str) -> None:
        """Raise UserError where only the user can know which samples the network has seen, and does not say it."""
        given = set(groups.values()) or (set(self._read_splits()) if "splits" in self.store.names() else set())
        if trained_on.startswith("train-") and not given:
            raise UserError(
                f"{self.store.name} does not say which samples are for testing, but "
                f"{option('trained_on', trained_on)} says that the network has seen others. Give an array 'splits', or "
                "groups train/ and test/."
            )
        require_fold(trained_on, "validation" in given, self.store.name)

    def _read_splits(self) -> dict[str, np.ndarray]:
        given = whole(self.store, "splits").astype(str)
        if unknown := sorted({word for word in given if split_of(word) is None}):
            raise UserError(
                f"{self.store.name}: splits has {str(unknown[0])!r}, but each must be train, validation or test."
            )
        names = np.array([split_of(word) for word in given])
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

    def _grids(self) -> tuple[tuple[int, int], ...]:
        """Return the grids that patches may form on the images, where these are among the arrays."""
        image = self._shape(INPUT) if INPUT in self.layers else ()
        if len(image) != 3 or not all(image):
            return ()
        return grids_of(*(image[:2] if axis_by_sides(image, ()) == LAST else image[1:]))

    def _forms(self, prefixes: list[str], tokens: str, layout: str) -> dict[int, Form]:
        forms, grids = {}, self._grids()
        for j, name in enumerate(self.layers, start=int(self.layers[0] != INPUT)):
            shapes = {self.store.shape(prefix + name)[1:] for prefix in prefixes}
            kind = self.store.dtype(prefixes[0] + name).kind
            if len(shapes) > 1:
                raise UserError(f"{self.store.name}: {name} has rows of another shape in another split: {shapes}.")
            if kind not in "fiu":
                raise UserError(f"{self.store.name}: {name} is of type {kind!r}, but real numbers are needed.")
            (shape,) = shapes
            try:
                own = Convention(layout=layout, grids=grids, tokens=tokens if name != INPUT else "patch")
                forms[j] = form_of_array(shape, own)
            except UserError as error:
                raise UserError(f"{self.store.name}: array {name} {error}.") from None
        return forms
