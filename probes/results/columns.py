"""The columns of run.probes.csv: their names, types and meanings, from which writer, readers and documents follow.

docs/format.md holds the same list as a table; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from probes.tasks.task import CLASS

FIRST, LATER = "0.1.0", "after 0.1.0"
DIGEST = "digest"


@dataclass(frozen=True)
class Column:
    """One column of a table beside a run.

    type: "text", "integer" or "number". meaning: as docs/format.md says it. key: "probe" where it tells one fitted
    probe of a run from another, "number" where it is a part of the key beside these. since: the version that brought
    it, FIRST or LATER. empty: where it is empty; "" for never. before: its value in rows of a version without it.
    """

    name: str
    type: str
    meaning: str
    key: str = ""
    since: str = FIRST
    empty: str = ""
    before: str | int | None = None

    @property
    def dtype(self) -> str:
        """The type as pandas names it; integers that may be missing use pandas' Int64."""
        if self.type == "integer":
            return "Int64" if self.empty or self.since == LATER else "int64"
        return {"text": "str", "number": "float64"}[self.type]


_ELSEWHERE = "a network without a configuration"
_NOT_CONVEX = "no convex fit"

# fmt: off
SCHEMA = (
    Column("run_id", "text", "the run, as in `/provenance`", key="number"),
    Column("depth", "integer", "0 to J", key="probe"),
    Column("probe", "text",
        "`linear`, `linear-ovr`, `cnn-p`, `knn`, `ncm`; `codelength`, of linear probes at nested sizes; "
        "`auxiliary`, the classifier that the training left at this "
        "depth; `ensemble`, `ensemble-softmax`, `ensemble-uniform`, all auxiliaries up to this depth (weights 2^j on "
        "logits, 2^j on probabilities, equal on probabilities); any other name is of an `estimator`", key="probe"),
    Column("probe_width", "integer", "M of a CNN probe; 0 for the others", key="probe"),
    Column("probe_seed", "integer",
        "seed of a CNN probe; draw of the projection for matched or input features; order of the images of a "
        "codelength; else 0", key="probe"),
    Column("control", "text", "`none`, `permuted`, `teacher` (docs/protocol.md)", key="probe"),
    Column("pooling", "integer",
        "side of the average A in front of the probe; 0 where it reads whole maps (a linear probe at depth 0: the raw"
        " pixels)", key="probe"),
    Column("features", "text",
        "`native`; `matched`, a random projection to the least width over depths >= 1; `input`, one to the number of "
        "features of the pooled input", key="probe"),
    Column("split", "text",
        "`train`, `validation`, `test`; at `refit` 1, train is train + validation; any other name is of a set of "
        "images that are no part of the run (`images_folder`)", key="number"),
    Column("metric", "text",
        "`accuracy` in [0, 1]; `accuracy_top5`, the same with any of the five likeliest classes, where there are at "
        "least 10; `log_loss_bits`, mean negative log2 probability of the true class; `calibration_error`"
        " in [0, 1]; `accuracy/CLASS`, on the images of one class, where there are at most 100; `accuracy_half`, of a "
        "CNN probe after half of its epochs. On the test split: `gain`, `gain_p`, "
        "`gain_p_holm`, against the depth before; of CNN probes `linear_gap`, `linear_gap_p`, `linear_gap_p_holm`, "
        "against the linear probe of the same depth; `teacher_gap`, in rows of the teacher control. On a set that "
        "layerwise-corrupt made: `shift`, accuracy minus that on the same images as they were; `shift_p`. Of "
        "`codelength` alone, on train: `codelength_bits`, `codelength_uniform_bits`, `compression`, and "
        "`next_loss_bits@N`, mean bits of the labels that the size behind N images adds; on test: "
        "`log_loss_bits@N` and `accuracy@N`, fitted to N", key="number"),
    Column("refit", "integer", "0 fitted on the train fold, 1 fitted again on train + validation", key="number"),
    Column("protocol_version", "integer", "of docs/protocol.md", key="number"),
    Column("mode", "text", "how the network was trained", empty=_ELSEWHERE),
    Column("k", "integer", "hidden layers of an auxiliary problem", empty=_ELSEWHERE),
    Column("width", "integer", "M of the network", empty=_ELSEWHERE),
    Column("aux_width", "integer", "M~, the width of its auxiliaries", empty=_ELSEWHERE),
    Column("seed", "integer", "of the network", empty=_ELSEWHERE),
    Column("dataset", "text", "name of the data set"),
    Column("module", "text", "name of the module whose output the depth is"),
    Column("channels", "integer", "C of x_j"),
    Column("map_height", "integer", "H of x_j"),
    Column("map_width", "integer", "W of x_j"),
    Column("n_features", "integer", "numbers an image that the probe reads"),
    Column("n_classes", "integer", "number of classes"),
    Column("n_train", "integer", "images that the probe was fitted on"),
    Column("n_samples", "integer", "images of this row's split"),
    Column("chance", "number", "accuracy, on this split, of always predicting the train split's most frequent class"),
    Column("value", "number", "the number"),
    Column("ci_low", "number",
        "95% interval over the split's images: Wilson for accuracy, accuracy@N and accuracy_top5 on validation and "
        "test, paired bootstrap for gain, linear_gap, teacher_gap and shift, normal for codelength_bits and "
        "compression",
        empty="other metrics"),
    Column("ci_high", "number", "its upper end", empty="other metrics"),
    Column("lambda", "number", "penalty per sample", empty=_NOT_CONVEX),
    Column("C", "number", "scikit-learn's C = 1 / (n_train lambda)", empty=_NOT_CONVEX),
    Column("learning_rate", "number", "of a CNN probe", empty="other probes"),
    Column("selection", "text",
        "what chose the penalty, the learning rate, or k and distance: `validation`, or `seen` where the run has no "
        "fold and a fixed value was used; `control` where it is that of the real labels; `fixed` where nothing was to"
        " choose"),
    Column("converged", "integer", "1 if the certificate meets the tolerance, else 0", empty=_NOT_CONVEX),
    Column("certificate", "number",
        "proved upper bound on the objective of the fit minus the optimum, in nats a sample", empty=_NOT_CONVEX),
    Column("iterations", "integer", "Newton steps of a convex fit; epochs of a CNN probe", empty="other probes"),
    Column("precision", "text", "number type of products"),
    Column("seconds", "number", "wall time of the fit"),
    Column("software", "text", "version of this package"),
    Column("experiment", "text",
        "a name for what runs share that may be averaged or compared: a digest of data and configuration, but for "
        "mode, k, M and M~, seed, storage, and whether the frozen prefix was recomputed or kept; of a network built "
        "elsewhere, of data and `extraction`, but for seed and weights", since=LATER, empty="a file that says neither"),
    Column("target", "text",
        "what is probed for: `class`, or the name of a table of labels without its `.csv`. A table without this "
        "column has `class` everywhere", key="probe", since=LATER, before=CLASS),
    Column("test_reads", "integer",
        "how many times the test split has been read for this probe of this run, by any protocol. A table without "
        "this column has 1 everywhere", since=LATER, before=1),
    Column("network", "text",
        "what a network built elsewhere is called; where it stands, `mode`, `k` and the widths are empty",
        since=LATER, empty="a network trained here"),
    Column("neighbors", "integer", "k of knn", since=LATER, empty="other probes"),
    Column("distance", "text", "of knn: `euclidean` or `cosine`", since=LATER, empty="other probes"),
    Column("blocks", "integer", "J, the last depth of the run file", since=LATER),
    Column("batch_norm", "integer", "1 if the blocks have BatchNorm, 0 if not", since=LATER, empty=_ELSEWHERE),
    Column("initialisation", "text", "first weights: `default`, `kaiming`, `orthogonal`",
        since=LATER, empty=_ELSEWHERE),
    Column("activation", "text", "of the blocks: `relu`, or `none`", since=LATER, empty=_ELSEWHERE),
    Column("variant", "text",
        "what tells a network trained here from the plain one of its k, M and M~, in words: `M_f = 64` (width of the "
        "last auxiliary), `pruned to 64`, `VGG-11`, `net.py:blocks` (blocks of a user)",
        since=LATER, empty="the plain network"),
    Column("batch_size", "integer", "images of a batch in the training of a CNN probe", since=LATER,
        empty="other probes"),
    Column("estimator", "text",
        "the classifier of scikit-learn's grammar that a user gave, as it shows itself; of several, the chosen one, "
        "their number and the beginning of a digest of them. `probe` is then its class, or the name it was given",
        since=LATER, empty="this project's own probes"),
    Column("images_folder", "text",
        "of rows on images that are no part of the run (`probe-depth --evaluate`), whose set `split` names: their "
        "folder", since=LATER, empty="splits of the run"),
    Column("images_digest", "text", "SHA-256 of these images and their labels, as they were read", since=LATER,
        empty="splits of the run"),
    Column(DIGEST, "text",
        "`d` and the first 16 hexadecimal digits of the SHA-256 of the row: its other values in the order of this "
        "table (integers as such, numbers with 14 significant digits, missing ones empty), then the number of rows of "
        "its probe, joined by the character 0x1F, in UTF-8. A reader refuses a table in which one differs",
        since=LATER),
)
# fmt: on

COLUMNS = tuple(column.name for column in SCHEMA)
# What tells one fitted probe of a run from another: running it again replaces all rows that agree in these.
PROBE_NAME = tuple(column.name for column in SCHEMA if column.key == "probe")
PROBE_KEY = ("run_id", *PROBE_NAME, "protocol_version")
KEY = tuple(column.name for column in SCHEMA if column.key)


def dtypes(schema: Sequence[Column]) -> dict[str, str]:
    """Return the type of each column, as pandas names them."""
    return {column.name: column.dtype for column in schema}
