"""The layout of run.h5: the path of every group and dataset, each spelled here and nowhere else.

docs/format.md says what stands at each path. Depths, blocks and auxiliaries have two digits, so that tools that list
names alphabetically list them in order.
"""

from __future__ import annotations

FORMAT = "layerwise-run"
FORMAT_VERSION = 1

# A x_j averages over so many regions a side.
POOL_SIDE = 2

SPLITS = ("train", "validation", "test")

ROOT = "/"
MANIFEST = "/manifest"
PROVENANCE = "/provenance"
EPOCH_SECONDS = "/provenance/epoch_seconds"
HISTORY = "/history"
SAMPLES = "/samples"
DEPTHS = "/depths"


def labels(split: str) -> str:
    """Path of the labels of a split."""
    return f"{SAMPLES}/{split}/label"


def indices(split: str) -> str:
    """Path of the positions of a split's samples in the published split they come from."""
    return f"{SAMPLES}/{split}/index"


def paths(split: str) -> str:
    """Path of the paths of the files that a split's images come from, below the folder of the data."""
    return f"{SAMPLES}/{split}/path"


def file_digests(split: str) -> str:
    """Path of the SHA-256 of each of these files."""
    return f"{SAMPLES}/{split}/sha256"


def images(split: str) -> str:
    """Path of the uint8 images of a split."""
    return f"/images/{split}"


def depth(j: int) -> str:
    """Path of the group of depth j."""
    return f"{DEPTHS}/{j:02d}"


def activations(j: int, split: str, kind: str) -> str:
    """Path of what is kept of depth j for a split; kind: "pooled" (A x_j), "maps" (x_j) or "class_token"."""
    return f"{depth(j)}/{split}/{kind}"


def module(kind: str, j: int) -> str:
    """Path of the group of block j (kind "blocks") or of its auxiliary ("auxiliaries")."""
    return f"/{kind}/{j:02d}"


def weights(kind: str, j: int, name: str) -> str:
    """Path of a parameter or buffer of block j or its auxiliary, by its name in PyTorch."""
    return f"{module(kind, j)}/{name}"


def outputs(j: int, split: str) -> str:
    """Path of the logits of auxiliary j on a split."""
    return f"/outputs/{j:02d}/{split}"


def pruning(j: int) -> str:
    """Path of the group that tells how block j was pruned."""
    return f"/compression/{j:02d}"


def kept_filters(j: int) -> str:
    """Path of the numbers of the filters that pruning kept in block j."""
    return f"{pruning(j)}/kept"


def saliencies(j: int) -> str:
    """Path of the saliency of every filter that block j had."""
    return f"{pruning(j)}/saliency"


# By pattern of path, what may stand there: number of axes (None: any), and kinds of numpy types. Where a split is
# named, there are as many rows as it has.
DATASET_RULES = (
    (r"/samples/(?P<split>\w+)/(label|index)", 1, "i"),
    (r"/samples/(?P<split>\w+)/path", 1, "S"),
    (r"/samples/(?P<split>\w+)/sha256", 2, "u"),
    (r"/images/(?P<split>\w+)", 4, "u"),
    (r"/depths/(?P<depth>\d+)/(?P<split>\w+)/pooled", 4, "f"),
    (r"/depths/(?P<depth>\d+)/(?P<split>\w+)/maps", 4, "f"),
    (r"/depths/(?P<depth>\d+)/(?P<split>\w+)/class_token", 2, "f"),
    (r"/outputs/\d+/(?P<split>\w+)", 2, "f"),
    (r"/(blocks|auxiliaries)/\d+/.+", None, "iuf"),
    (r"/compression/\d+/kept", 1, "i"),
    (r"/compression/\d+/saliency", 1, "f"),
    (r"/history", 1, "V"),
    (r"/provenance/.+", 1, "f"),
)
# Attributes that readers use, by the path of their group: each is a text, a JSON object or list, a whole number from 0
# on, or three from 1 on.
ATTRIBUTE_RULES = (
    (r"/", {"dataset": "json", "config": "json", "extraction": "json"}),
    (r"/samples", {"image_shape": "shape", "image_resize": "count"}),
    (
        r"/provenance",
        {
            "run_id": "text",
            "created": "text",
            "software": "json",
            "seconds": "json",
            "data_dir": "path",
            "decoders": "list",
            "image_files": "count",
        },
    ),
    (r"/depths/\d+", {"module": "text", "shape": "shape", "form": "text"}),
)
# Groups of which every attribute is one number.
NUMBERS = r"/(auxiliaries|compression)/\d+"
# What is a group wherever it stands, and no dataset.
GROUPS = (
    r"/(depths|blocks|auxiliaries|samples|images|outputs|compression|provenance)"
    r"|/(depths|blocks|auxiliaries|outputs|compression)/\d+|/samples/\w+|/depths/\d+/\w+"
)
