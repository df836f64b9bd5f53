"""Everything that decides the content of a run file, and its form as JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from layerwise.config.data import DataConfig
from layerwise.config.fields import at_default, check, flag, setting
from layerwise.config.network import NetworkConfig
from layerwise.config.training import TrainingConfig
from layerwise.errors import unknown

MODES = ("greedy", "parallel", "end-to-end", "untrained")
TRAINED_MODES = tuple(mode for mode in MODES if mode != "untrained")
STORES = ("pooled", "maps", "auto")
DTYPES = ("auto", "float16", "float32")
PRECISIONS = ("auto", "fp32", "bf16")
MATCHES = ("epochs", "operations")
# Fields that came later, written where they are not at their default: a run that could be made before keeps its digest.
LATER = {"data": ("eval_resize", "mean", "std"), "training": ("crop", "crop_scale", "crop_ratio")}
MATCHED = ("end-to-end", "parallel")  # modes whose epochs can be such that they spend what greedy training does


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides the content of a run file, except the data themselves and the hardware."""

    recipe: str = field(metadata=setting("Name of the recipe that the configuration began as."))
    data: DataConfig
    network: NetworkConfig
    training: TrainingConfig
    mode: str = field(default="greedy", metadata=flag(f"How to train: {', '.join(MODES)}."))
    seed: int = field(default=0, metadata=flag("Seed of weights, order and augmentation."))
    store: str = field(
        default="pooled",
        metadata=flag("pooled (A x_j, 2x2), maps (x_j whole beside it), or auto (maps where they fit)."),
    )
    dtype: str = field(
        default="auto",
        metadata=flag("Number type of stored activations: float16, float32, or auto (float16 where it loses nothing)."),
    )
    # "auto" is decided before the configuration is stored; what is dumped is always computed in float32.
    precision: str = field(
        default="auto",
        metadata=flag("Of products in training: auto (bf16 where the hardware has it), fp32, bf16."),
    )
    match: str = field(
        default="epochs",
        metadata=flag("End to end and parallel: spend the greedy run's epochs, or the operations it spends in all."),
    )
    mirrored: bool = field(
        default=False,
        metadata=setting(
            "Score every auxiliary once more, apart: by the mean of its logits of each image and of its mirror image "
            "(test-time augmentation). Nothing else reads these scores."
        ),
    )
    # Greedy training may fail under the settings that suit end-to-end training, and the reverse.
    tuned: str = field(
        default="",
        metadata=setting(
            "Fields that a study set or chose for each mode and k apart, comma-separated; runs that differ in these "
            "alone are compared and averaged."
        ),
    )

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise unknown("mode", self.mode, MODES)
        if self.store not in STORES:
            raise unknown("store", self.store, STORES)
        if self.dtype not in DTYPES:
            raise unknown("dtype", self.dtype, DTYPES)
        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)
        if self.match not in MATCHES:
            raise unknown("match", self.match, MATCHES)
        check(
            self.match == "epochs" or self.mode in MATCHED,
            "match", self.match, f"'epochs' unless the mode is {' or '.join(MATCHED)} (--mode {MATCHED[0]})",
        )  # fmt: skip
        check(self.tuned.isprintable(), "tuned", self.tuned, "names of fields with commas")
        check(
            self.training.prefix != "cache" or self.mode == "greedy",
            "training.prefix", self.training.prefix, f"recompute or auto: mode {self.mode} freezes no block to keep",
        )  # fmt: skip
        check(
            self.network.prune_to == 0 or self.mode == "greedy",
            "network.prune_to", self.network.prune_to, f"0 in mode {self.mode}: greedy training alone prunes",
        )  # fmt: skip
        check(
            self.network.activation != "none" or self.mode == "untrained",
            "network.activation", self.network.activation, f"relu in mode {self.mode}: only untrained blocks lack it",
        )  # fmt: skip
        check(
            not self.training.is_resized or (self.data.dataset == "imagefolder" and self.data.image_size > 0),
            "training.crop", self.training.crop, "pad but for images of a folder that are brought to one size: give "
            "data.dataset=imagefolder and data.image_size",
        )  # fmt: skip
        epochs = self.training.block_epochs
        check(
            not epochs or len(epochs) == self.network.depth,
            "training.block_epochs", list(epochs), f"a number for each of the {self.network.depth} blocks, or empty",
        )  # fmt: skip
        check(
            not epochs or not self.network.prune_to,
            "training.block_epochs", list(epochs), "empty where blocks are pruned",
        )  # fmt: skip
        check(0 <= self.seed < 2**32, "seed", self.seed, "an integer in [0, 2^32)")

    def epochs_of(self, j: int) -> int:
        """Return the epochs for which the auxiliary problem of depth j is solved."""
        return (self.training.of_block(j) if self.mode == "greedy" else self.training).epochs

    @property
    def heads(self) -> range:
        """Numbers j of the auxiliaries that the mode trains, scores and keeps."""
        if self.mode == "untrained":
            return range(0)
        depth = self.network.depth
        return range(depth if self.mode == "end-to-end" else self.network.first_trained, depth + 1)

    def to_json(self) -> str:
        """Return the configuration as canonical JSON: sorted keys, the same text for equal configurations."""
        tree = dataclasses.asdict(self)
        for part, names in LATER.items():
            for name in names:
                if at_default(getattr(self, part), name):
                    del tree[part][name]
        return json.dumps(tree, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> RunConfig:
        """Return the configuration written by `to_json` of this or another version, without fields of a later one."""
        tree = json.loads(text)
        for name in ("data", "network", "training"):
            tree[name] = {k: tuple(v) if isinstance(v, list) else v for k, v in tree[name].items()}
        tree["training"].setdefault("prefix", "recompute")  # what was done before there was a choice
        tree["network"].setdefault("seeding", 1)
        parts = {"data": DataConfig, "network": NetworkConfig, "training": TrainingConfig}
        for name, part in parts.items():
            tree[name] = part(**_known(part, tree[name]))
        return cls(**_known(cls, tree))


def _known(kind: type[Any], tree: dict[str, Any]) -> dict[str, Any]:
    names = {f.name for f in dataclasses.fields(kind)}
    return {name: value for name, value in tree.items() if name in names}
