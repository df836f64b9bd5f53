"""A table of labels (--target): any other property of the images, joined to them by their index."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import pandas as pd

from layerwise.errors import UsageError, UserError
from layerwise.runfile import RunFile
from layerwise.runfile.manifest import sha256
from probes.csvfile import read_csv
from probes.tasks.task import CLASS, Task

log = logging.getLogger("layerwise.probes")

_COLUMNS = "index, label and, where train and test both count from 0, split (train or test)"
_EXPECTED = f"expected the columns {_COLUMNS}"
_TEXT = ("label", "split")


class Target(Task):
    """Labels from a table with the columns `index`, `label` and `split`: a CSV file, or one in memory.

    `index` is the position of an image in the published split that `split` ("train" or "test") names, as in
    samples/{split}/index of the run file; the run's train and validation images are both of the published train
    split. `split` may be left out for a data set that is published as one. Images without a label are left out.

    Attributes:
        target: name of the table without its .csv ("table" in memory, or its attrs["name"]), and a digest of labels.

    Raises:
        UserError: a table that cannot be read or joined, an image with two labels, labels that are no classes.
    """

    def __init__(self, run: RunFile, labels: Path | str | pd.DataFrame):
        super().__init__(run)
        if not isinstance(labels, Path | str | pd.DataFrame):
            raise UsageError(
                f"target is a {type(labels).__name__}; expected a data frame, or a CSV file, with {_COLUMNS}."
            )
        self.path = path = Path(labels) if isinstance(labels, Path | str) else Path(labels.attrs.get("name", "table"))
        if path.stem == CLASS:
            raise UserError(
                f"{path}: a target named {CLASS!r} would be taken for the run's own classes. Rename the file."
            )
        table = _checked(_read(path) if isinstance(labels, Path | str) else _as_read(labels), path)
        if "split" not in table:
            self._require_one_numbering()
        self._table = table
        # Two tables of one name, or one that was corrected, are two targets: none is taken for the other in the rows.
        self.target = f"{path.stem}@{sha256(table.to_csv(index=False).encode())[:6]}"
        joined = [self._joined(split) for split in run.splits]
        names = pd.unique(pd.concat([part["label"] for part in joined]))
        self._classes = tuple(sorted(names, key=_numbers_first))
        for split, part in zip(run.splits, joined, strict=True):
            self._require_labels(split, part)

    @property
    def classes(self) -> tuple[str, ...]:
        return self._classes

    def labels(self, split: str) -> np.ndarray:
        code = {name: i for i, name in enumerate(self._classes)}
        return self._joined(split)["label"].map(code).to_numpy(np.int64)

    def rows(self, split: str) -> np.ndarray:
        return self._joined(split)["row"].to_numpy(np.int64)

    def _joined(self, split: str) -> pd.DataFrame:
        """Return row (position in the run's split) and label of the images of a split that have one."""
        table = self._table
        if "split" in table:
            table = table[table["split"] == ("test" if split == "test" else "train")]
        index = self.run.indices(split)
        images = pd.DataFrame({"index": index, "row": np.arange(len(index))})
        return images.merge(table[["index", "label"]], on="index").sort_values("row")

    def _require_one_numbering(self) -> None:
        train = np.concatenate([self.run.indices(split) for split in self.run.splits if split != "test"])
        both = np.intersect1d(train, self.run.indices("test"))
        if len(both):
            raise UserError(
                f"{self.path} has no column split, but index {both[0]} is an image of train and of test "
                f"of {self.run.path.name}. Add split, with train or test in each row."
            )

    def _require_labels(self, split: str, joined: pd.DataFrame) -> None:
        total = len(self.run.indices(split))
        if joined["label"].nunique() < 2:
            found = f"only {joined['label'].iloc[0]!r}" if len(joined) else "no label"
            raise UserError(
                f"{self.path} has {found} for the {total} {split} images of {self.run.path.name}; expected two "
                f"different labels at least. Check that its index counts as samples/{split}/index of the run does."
            )
        if len(joined) < total:
            log.warning(
                "%s labels %d of the %d %s images; the others are left out.", self.path, len(joined), total, split
            )


def _read(path: Path) -> pd.DataFrame:
    try:
        return read_csv(path, dict.fromkeys(_TEXT, "str"))
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as a table of labels ({type(error).__name__}); {_EXPECTED}.") from None


def _as_read(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table in memory with the types that a file of it is read with."""
    return table.astype({name: "str" for name in _TEXT if name in table}).reset_index(drop=True)


def _checked(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    missing = [name for name in ("index", "label") if name not in table]
    if missing:
        raise UserError(f"{path} has no column {missing[0]}; {_EXPECTED}.")
    if not pd.api.types.is_integer_dtype(table["index"]):
        raise UserError(f"{path} has an index that is no whole number; {_EXPECTED}.")
    if "split" in table and (wrong := sorted(set(table["split"].fillna("")) - {"train", "test"})):
        raise UserError(f"{path} has the split {wrong[0]!r}; {_EXPECTED}. Images of a validation fold are train's.")
    key = [name for name in ("split", "index") if name in table]
    table = table.dropna(subset="label")[[*key, "label"]].sort_values(key)
    if table.duplicated(key).any():
        twice = table[table.duplicated(key)].iloc[0]
        raise UserError(f"{path} labels index {twice['index']} more than once; expected one label an image.")
    if (fraction := table["label"].str.fullmatch(r"[-+]?\d*\.\d*[1-9]\d*(e[-+]?\d+)?")).any():
        value = table.loc[fraction, "label"].iloc[0]
        raise UserError(
            f"{path} has the label {value}, a number with a fraction; expected classes, since a probe classifies. "
            "Sort the numbers into a few bins and give the bins as labels."
        )
    return table


def _numbers_first(name: str) -> tuple[int, float, str]:
    """Order labels as people do: 2 before 10."""
    try:
        number = float(name)
    except ValueError:
        number = math.nan
    return (0, number, name) if math.isfinite(number) else (1, 0.0, name)  # nan and inf are words
