"""At which depth can a linear probe read whether people agree about an image? The table of docs/disagreement.md.

    PYTHONPATH=. python3 -m tests.benchmarks.disagreement r20.h5 r32.h5 --labels LABELS --out disagreement

Runs hold depths of networks on CIFAR-10 as an image folder in the official order. LABELS holds cifar10.npz (the
official labels), cifar10h-human-counts-test.npz (CIFAR-10H: about 50 votes on each test image, which no network was
trained on) and cifar10n-human-noisy-train.npz (CIFAR-10N: three people's labels of each training image). "contested"
are test images of which fewer than 95% of the votes are for one class, and "agreed" as many on which all agree; of
training images 5,000 on which the three differ, and 5,000 on which they do not. Half of the images are contested, so
chance is 50%. Three tenths of them are tested on, a tenth chooses the penalty. OUT.csv gets a row for each source,
network and depth: accuracy with Wilson's interval, certificate, and what the class of an image alone says
(`class_alone`): some classes are contested more often than others, and a network that reads the class reads that too.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

import layerwise
import probes
from layerwise.runfile import RunFile

TOP_SHARE = 0.95  # of the votes, below which an image is contested: 2,234 of the 10,000
MOST = 5_000  # images of each kind
AGREED, CONTESTED = "agreed", "contested"


def chosen(contested: np.ndarray, agreed: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of images, as many of each kind, in random order, and their labels.

    contested, agreed: of every image, bool [n], whether it is so; never both.
    """
    rng = np.random.default_rng(seed)
    size = min(MOST, int(contested.sum()), int(agreed.sum()))
    rows = np.concatenate([rng.choice(np.flatnonzero(kind), size, replace=False) for kind in (contested, agreed)])
    order = rng.permutation(2 * size)
    return rows[order], np.repeat([CONTESTED, AGREED], size)[order]


def images(labels: Path) -> dict[str, tuple[str, np.ndarray, np.ndarray]]:
    """Return by source the split of the run, rows of its images by their published index, and their labels."""
    votes = np.load(labels / "cifar10h-human-counts-test.npz")["counts"]
    share = votes.max(1) / votes.sum(1)
    people = np.load(labels / "cifar10n-human-noisy-train.npz")
    named = np.stack([people[f"random_label{i}"] for i in (1, 2, 3)])
    differ = (named != named[0]).any(0)
    return {
        "CIFAR-10H": ("test", *chosen(share < TOP_SHARE, share == 1, seed=0)),
        "CIFAR-10N": ("train", *chosen(differ, ~differ, seed=0)),
    }


def rows_of(run: RunFile, split: str, index: np.ndarray, official: np.ndarray) -> np.ndarray:
    """Return the rows of images in a run's split, by their official index; official: label of each image, in order."""
    by_class = np.argsort(official, kind="stable")  # a folder counts class by class
    found = by_class[run.indices(split)]
    assert (official[found] == run.labels(split)).all(), f"{run.path} does not have CIFAR-10 in the official order"
    return pd.Series(np.arange(len(found)), index=found).loc[index].to_numpy()


def features(run: RunFile, split: str, rows: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (module, features [n, d]) of every depth, of these rows."""
    for depth in run.depths:
        stored = run.pooled(depth, split)
        if stored is None:
            raise SystemExit(f"{run.path} holds no pooled features of depth {depth}: extract it with --store pooled")
        yield run.depth_module(depth), stored[:][rows].reshape(len(rows), -1)


def class_alone(classes: np.ndarray, label: np.ndarray, is_test: np.ndarray) -> float:
    """Return the test accuracy of the label that is most frequent in each class among the other images."""
    names = [AGREED, CONTESTED]
    counts = np.zeros((classes.max() + 1, 2))
    np.add.at(counts, (classes[~is_test], (label[~is_test] == CONTESTED).astype(int)), 1)
    return float((np.array(names)[counts.argmax(1)][classes[is_test]] == label[is_test]).mean())


def probed(
    path: Path, source: str, split: str, index: np.ndarray, label: np.ndarray, official: np.ndarray, folder: Path
) -> pd.DataFrame:
    """Fit the linear probe of a source's labels at every depth of a run; return a row for each depth."""
    n = len(index)
    splits = np.full(n, "train", dtype=object)
    splits[: 3 * n // 10], splits[3 * n // 10 : 4 * n // 10] = "test", "validation"
    with RunFile(path) as run:
        arrays = dict(features(run, split, rows_of(run, split, index, official)))
        name = run.network_name
    made = layerwise.extract_arrays(
        {**arrays, "labels": official[index], "splits": splits.astype(str)},
        out=folder / f"{path.stem}-{source}.h5", trained_on="other-data", label=name, data_name=source, quiet=True,
    )  # fmt: skip
    target = pd.DataFrame({"index": np.arange(n), "label": label})
    rows = probes.fit(made, "linear", target=target, pools=(1,), pixels=False, quiet=True)
    own = rows[(rows["metric"] == "accuracy") & (rows["split"] == "test") & (rows["refit"] == 1)]
    columns = {"depth": "depth", "module": "module", "value": "accuracy", "ci_low": "low", "ci_high": "high"}
    columns |= {"n_samples": "images", "certificate": "certificate"}
    return (
        own[[*columns]]
        .rename(columns=columns)
        .assign(source=source, network=name, class_alone=class_alone(official[index], label, splits == "test"))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("disagreement"))
    given = parser.parse_args()
    found, truth = [], np.load(given.labels / "cifar10.npz")
    with tempfile.TemporaryDirectory() as folder:
        for path in given.runs:
            for source, (split, index, label) in images(given.labels).items():
                found.append(probed(path, source, split, index, label, truth[f"{split}_label"], Path(folder)))
                print(found[-1].to_string(index=False), flush=True)
                pd.concat(found).to_csv(given.out.with_suffix(".csv"), index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
