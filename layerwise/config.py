"""Owns the configuration of a run: frozen, validated where it is built, and complete as JSON.

A run can be repeated from its configuration alone. Where the data lie, which device computes and where
the output goes are matters of the machine; they stand in the run's provenance instead.
"""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from layerwise.errors import UsageError, unknown

MODES = ("greedy", "parallel", "end-to-end", "untrained")
STORES = ("pooled", "maps", "auto")
BATCH_NORMS = ("auto", "on", "off")
INITIALISATIONS = ("default", "kaiming", "orthogonal")
OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("steps", "cosine", "one-cycle")
PRECISIONS = ("auto", "fp32", "bf16")
MATCHES = ("epochs", "operations")
ARCHITECTURES = ("plain", "vgg11", "custom")
# Of VGG-11: number of convolutions, those with a max-pool before them, and by how much the first one's width grows.
VGG_DEPTH, VGG_POOLS, VGG_GROWTH = 8, (2, 3, 5, 7), 8
PREFIXES = ("auto", "recompute", "cache")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The data set and the share of its train split that is set apart for validation.

    holdout: share of the train split in [0, 0.5], stratified by class with a fixed seed. 0 trains on
        everything, as the paper's Table 2 does; nothing can then be chosen on unseen images.
    subset: images taken from the train split, stratified by class with a fixed seed, before the holdout; 0 is all.
        The test split stays whole.
    image_size: pixels of a side to which the images of an imagefolder are brought: the shorter side resized, the
        middle cropped; 0 leaves them as they are.
    label: the name the data go by in files, tables and figures; empty for `dataset`.
    """

    dataset: str
    holdout: float = 0.1
    subset: int = 0
    image_size: int = 0
    label: str = ""

    def __post_init__(self) -> None:
        _check(0 <= self.holdout <= 0.5, "data.holdout", self.holdout, "a share in [0, 0.5]")
        _check(self.subset >= 0, "data.subset", self.subset, "a number of images, or 0 for all")
        _check(self.image_size >= 0, "data.image_size", self.image_size, "pixels of a side, or 0 for as they are")
        if self.dataset != "imagefolder":
            _check(
                self.image_size == 0, "data.image_size", self.image_size, f"0 for {self.dataset}, whose size is fixed"
            )
        _check(self.label.isprintable(), "data.label", self.label, "one line of text")


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The architecture, in the paper's symbols.

    depth: J, the number of blocks.
    width: M, channels of the first block; they double at each downsampling after block 1.
    k: hidden layers of each auxiliary problem; its auxiliary classifier has k - 1 hidden convolutions.
    aux_width: M~, channels of the first auxiliary's convolutions; they double as the blocks' do. Unused at k = 1.
    downsample: the blocks j before which P halves the resolution and stacks four copies on channels.
    average: side of the grid to which A averages the maps before the linear layer L.
    batch_norm: "auto" is the paper's rule (none at k = 1, everywhere at k > 1), "on" or "off" overrule it.
    initialisation: "default" is PyTorch's, as in the authors' code; "kaiming" (He et al. 2015, normal, fan-out) or
        "orthogonal" (Saxe et al. 2014) draw the weights of convolutions and linear layers.
    last_aux_width: M_f, channels of the convolutions of block J's auxiliary, whatever was doubled before; 0 is the
        width that M~ gives it.
    prune_to: filters that stay of the first block once it is trained (they double where M does); the next block reads
        those alone. 0 prunes nothing.
    architecture: "plain" as above; "vgg11", the paper's layerwise VGG-11, where max-pools stand for P and widths stop
        doubling at 8 M; "custom", blocks of a user's own, which M, P and initial widths are not of: width is then the
        channels of x_1 (0 until they are known), and all auxiliaries are M~ wide.
    factory, factory_sha256: of custom blocks, "file.py:function", and the digest of that file.
    """

    depth: int
    width: int
    k: int
    aux_width: int
    downsample: tuple[int, ...] = ()
    average: int = 2
    batch_norm: str = "auto"
    initialisation: str = "default"
    last_aux_width: int = 0
    prune_to: int = 0
    architecture: str = "plain"
    factory: str = ""
    factory_sha256: str = ""

    def __post_init__(self) -> None:
        for name in ("depth", "width", "k", "aux_width", "average"):
            value = getattr(self, name)
            least = 0 if name == "width" and self.architecture == "custom" else 1
            _check(isinstance(value, int) and value >= least, f"network.{name}", value, "an integer of at least 1")
        self._check_architecture()
        last, filters = self.last_aux_width, self.prune_to
        _check(last >= 0, "network.last_aux_width", last, "a number of channels, or 0 for what network.aux_width gives")
        _check(last == 0 or self.k > 1, "network.last_aux_width", last, "0 at k = 1, whose auxiliaries are linear")
        _check(
            0 <= filters < max(1, self.width),
            "network.prune_to",
            filters,
            f"fewer filters than M = {self.width}; 0 for all",
        )
        inside = all(1 <= j <= self.depth for j in self.downsample)
        _check(
            inside,
            "network.downsample",
            list(self.downsample),
            f"block numbers in 1..{self.depth} (--set network.downsample=...; empty for none)",
        )
        if self.batch_norm not in BATCH_NORMS:
            raise unknown("network.batch_norm", self.batch_norm, BATCH_NORMS)
        if self.initialisation not in INITIALISATIONS:
            raise unknown("network.initialisation", self.initialisation, INITIALISATIONS)

    def _check_architecture(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise unknown("network.architecture", self.architecture, ARCHITECTURES)
        if self.architecture == "custom":
            named = bool(self.factory and self.factory_sha256)
            _check(named, "network.factory", self.factory, "path/to/file.py:FUNCTION by --network")
        else:
            _check(not (self.factory or self.factory_sha256), "network.factory", self.factory, "empty but for custom")
        if self.architecture == "plain":
            return
        only: dict[str, object] = {"last_aux_width": 0, "prune_to": 0, "downsample": ()}
        if self.architecture == "vgg11":
            only |= {"depth": VGG_DEPTH, "k": 3, "downsample": VGG_POOLS}
        for name, value in only.items():
            found = getattr(self, name)
            _check(found == value, f"network.{name}", found, f"{value}, since the network is {self.architecture}")

    @property
    def has_batch_norm(self) -> bool:
        """Whether blocks and auxiliaries carry BatchNorm."""
        return self.k > 1 if self.batch_norm == "auto" else self.batch_norm == "on"

    @property
    def frozen_width(self) -> int:
        """Channels of the first block when it is frozen: M, or what pruning leaves of it."""
        return self.prune_to or self.width

    @property
    def variant(self) -> str:
        """What tells the network from the plain one of its k, M and M~, in words; empty for that."""
        if self.architecture != "plain":
            return self.factory or "VGG-11"
        words = [f"M_f = {self.last_aux_width}"] if self.last_aux_width else []
        return ", ".join([*words, *([f"pruned to {self.prune_to}"] if self.prune_to else [])])

    def doubled(self, width: int, j: int) -> int:
        """Return what a width given for the first block is at block j: it doubles at each P after block 1."""
        growth: int = 2 ** sum(1 for b in self.downsample if 1 < b <= j)
        return width * (min(growth, VGG_GROWTH) if self.architecture == "vgg11" else growth)

    def aux_width_at(self, j: int) -> int:
        """Return the channels of the convolutions of block j's auxiliary."""
        if j == self.depth and self.last_aux_width:
            return self.last_aux_width
        return self.doubled(self.aux_width, j)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How each auxiliary problem is solved. The defaults are the paper's: SGD with momentum, stepwise learning rate.

    epochs: passes over the training images for each block; for the whole network end to end or in parallel.
    optimizer: "sgd" or "adamw" (momentum is then unused, and weight_decay is decoupled).
    schedule: "steps" multiplies the learning rate by lr_factor every lr_every epochs, when the optimizer is built anew
        and its momentum lost, as in the authors' code; "cosine" brings it to 0; "one-cycle" warms up before that.
    label_smoothing: share of the target spread evenly over all classes, in [0, 1).
    ema_decay: weight of the past in an exponential moving average of the weights, a step, in [0, 1); 0 averages
        nothing and keeps the last weights, as the paper does.
    crop_padding: pixels of zero padding before a random crop back to the image's size; 0 crops nothing.
    flip: mirror each image left to right with probability 1/2.
    views: number of fixed augmented views of each image, read in turn by the epochs; 0 augments anew in each.
    prefix: where the output of the frozen blocks comes from: "recompute" computes it for every batch, "cache" once for
        each image and view when a block begins; "auto" keeps it where images do not change from epoch to epoch and it
        fits, and is resolved before it is stored.
    finetune_epochs: epochs for which an auxiliary is trained on, on its frozen block, after the block was pruned
        (network.prune_to); unused without pruning. The paper's are 20.
    finetune_rate: the learning rate with which that begins; the schedule is the same, over finetune_epochs.
    """

    epochs: int
    batch_size: int = 128
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    schedule: str = "steps"
    lr_factor: float = 0.2
    lr_every: int = 15
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    ema_decay: float = 0.0
    crop_padding: int = 0
    flip: bool = False
    views: int = 0
    prefix: str = "auto"
    finetune_epochs: int = 20
    finetune_rate: float = 0.01

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "lr_every", "finetune_epochs"):
            _check(getattr(self, name) >= 1, f"training.{name}", getattr(self, name), "an integer of at least 1")
        for name in ("learning_rate", "finetune_rate"):
            rate = getattr(self, name)
            _check(0 < rate < math.inf, f"training.{name}", rate, "a finite number above 0")
        _check(0 < self.lr_factor <= 1, "training.lr_factor", self.lr_factor, "a factor in (0, 1]")
        _check(0 <= self.momentum < 1, "training.momentum", self.momentum, "a number in [0, 1)")
        decay = self.weight_decay
        _check(0 <= decay < math.inf, "training.weight_decay", decay, "a finite number of at least 0")
        _check(0 <= self.label_smoothing < 1, "training.label_smoothing", self.label_smoothing, "a share in [0, 1)")
        _check(0 <= self.ema_decay < 1, "training.ema_decay", self.ema_decay, "a number in [0, 1)")
        if self.optimizer not in OPTIMIZERS:
            raise unknown("training.optimizer", self.optimizer, OPTIMIZERS)
        if self.schedule not in SCHEDULES:
            raise unknown("training.schedule", self.schedule, SCHEDULES)
        _check(self.crop_padding >= 0, "training.crop_padding", self.crop_padding, "pixels, at least 0")
        self._check_prefix()

    def _check_prefix(self) -> None:
        if self.prefix not in PREFIXES:
            raise unknown("training.prefix", self.prefix, PREFIXES)
        _check(self.views >= 0, "training.views", self.views, "a number of fixed views, or 0 for new ones each epoch")
        _check(self.views == 0 or self.augments, "training.views", self.views, "0 where nothing is augmented")
        if self.prefix == "cache" and not self.is_fixed:
            raise UsageError(
                "training.prefix is 'cache', but crops and flips are drawn anew in each epoch. Give --views N to "
                "draw N views of each image once (docs/performance.md says what that costs in accuracy), or turn "
                "both off by --set training.crop_padding=0 --set training.flip=false, or use --prefix recompute."
            )

    @property
    def augments(self) -> bool:
        """Whether images are cropped or mirrored at random."""
        return self.crop_padding > 0 or self.flip

    @property
    def is_fixed(self) -> bool:
        """Whether the images that an epoch reads come again in later ones, so that what is computed of them can."""
        return self.views > 0 or not self.augments

    @property
    def repeats(self) -> bool:
        """Whether the epochs do read some images again, so that keeping what is computed of them spares something."""
        return self.is_fixed and self.epochs > max(1, self.views)

    @property
    def finetuning(self) -> TrainingConfig:
        """How an auxiliary is trained on after its block was pruned."""
        return dataclasses.replace(self, epochs=self.finetune_epochs, learning_rate=self.finetune_rate)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides the content of a run file, but the data themselves and the hardware.

    precision: of the products while training, "fp32" or "bf16"; "auto" is bf16 where the hardware has it in silicon,
        and is resolved before it is stored. What is dumped is always computed in float32.
    match: what an end-to-end run has in common with the greedy run of the same configuration: its "epochs", or its
        number of training "operations".
    """

    recipe: str
    data: DataConfig
    network: NetworkConfig
    training: TrainingConfig
    mode: str = "greedy"
    seed: int = 0
    store: str = "pooled"
    precision: str = "auto"
    match: str = "epochs"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise unknown("mode", self.mode, MODES)
        if self.store not in STORES:
            raise unknown("store", self.store, STORES)
        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)
        if self.match not in MATCHES:
            raise unknown("match", self.match, MATCHES)
        _check(
            self.match == "epochs" or self.mode == "end-to-end",
            "match", self.match, "'epochs' unless the mode is end-to-end (--mode end-to-end)",
        )  # fmt: skip
        _check(
            self.training.prefix != "cache" or self.mode == "greedy",
            "training.prefix", self.training.prefix, f"recompute or auto: mode {self.mode} freezes no block to keep",
        )  # fmt: skip
        _check(
            self.network.prune_to == 0 or self.mode == "greedy",
            "network.prune_to", self.network.prune_to, f"0 in mode {self.mode}: greedy training alone prunes",
        )  # fmt: skip
        _check(0 <= self.seed < 2**32, "seed", self.seed, "an integer in [0, 2^32)")

    def to_json(self) -> str:
        """Return the configuration as canonical JSON: sorted keys, the same text for equal configurations."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> RunConfig:
        """Return the configuration written by `to_json` of this or another version, without fields of a later one."""
        tree = json.loads(text)
        tree["network"]["downsample"] = tuple(tree["network"]["downsample"])
        tree["training"].setdefault("prefix", "recompute")  # what was done before there was a choice
        parts = {"data": DataConfig, "network": NetworkConfig, "training": TrainingConfig}
        for name, part in parts.items():
            tree[name] = part(**_known(part, tree[name]))
        return cls(**_known(cls, tree))


def _known(kind: type[Any], tree: dict[str, Any]) -> dict[str, Any]:
    names = {f.name for f in dataclasses.fields(kind)}
    return {name: value for name, value in tree.items() if name in names}


def _check(holds: bool, name: str, found: object, expected: str) -> None:
    if not holds:
        raise UsageError(f"{name} is {found!r}, but must be {expected}.")


def set_fields(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """Return `config` with the named fields replaced, all of them before anything is validated.

    Args:
        values: for each dotted path ("training.epochs") the field's own type, or the text a user typed for it.

    Raises:
        UsageError: an unknown path (listing the fields), or a text that is not of the field's type.
    """
    changed: dict[str, Any] = {}
    for path, value in values.items():
        if path not in field_paths(config):
            raise unknown("configuration field", path, field_paths(config))
        head, _, rest = path.partition(".")
        if rest:
            changed.setdefault(head, {})[rest] = _parse(getattr(config, head), rest, path, value)
        else:
            changed[head] = _parse(config, head, path, value)
    parts = {k: dataclasses.replace(getattr(config, k), **v) if isinstance(v, dict) else v for k, v in changed.items()}
    return dataclasses.replace(config, **parts)


def field_paths(config: RunConfig) -> list[str]:
    """Return the dotted path of every field of the configuration."""
    return list(by_path(dataclasses.asdict(config)))


def by_path(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a configuration's tree (of `asdict`, or of its JSON) by dotted path."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
    return flat


def parse_setting(text: str) -> tuple[str, str]:
    """Return path and value of a --set KEY=VALUE; raise UsageError where there is no value."""
    path, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set {text!r} has no value; write --set key=value.")
    return path.strip(), value.strip()


def _parse(owner: object, name: str, path: str, value: Any) -> Any:
    """Turn the text a user typed into the type of the field; other values pass as they are."""
    if not isinstance(value, str):
        return value
    kind = typing.get_type_hints(type(owner))[name]
    try:
        if kind is bool:
            return {"true": True, "false": False}[value.lower()]
        if kind == tuple[int, ...]:
            return tuple(int(word) for word in value.split(",") if word)
        return kind(value)
    except (ValueError, KeyError):
        words = {tuple[int, ...]: "comma-separated integers", bool: "bool (true or false)"}
        expected = words.get(kind) or kind.__name__
        raise UsageError(f"{path} is {value!r}, but must be of type {expected}.") from None
