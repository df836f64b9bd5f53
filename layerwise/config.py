"""The configuration of a run: frozen, validated where it is built, complete as JSON.

A run can be repeated from its configuration alone. Where the data lie, which device computes and where the output goes
are matters of the machine; they are recorded in the run's provenance.

Each field carries its help. The options of commands are built from it (layerwise.commands.options), and the table of
docs/settings.md is written from it, so that help and flags cannot drift from the fields.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any

from layerwise.errors import UsageError, unknown

DATASETS = ("digits", "fashion-mnist", "mnist", "cifar10", "cifar100", "svhn", "stl10", "imagefolder")
MODES = ("greedy", "parallel", "end-to-end", "untrained")
TRAINED_MODES = tuple(mode for mode in MODES if mode != "untrained")
STORES = ("pooled", "maps", "auto")
DTYPES = ("auto", "float16", "float32")
OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("steps", "cosine", "one-cycle")
PRECISIONS = ("auto", "fp32", "bf16")
MATCHES = ("epochs", "operations")
MATCHED = ("end-to-end", "parallel")  # modes whose epochs can be such that they spend what greedy training does
ARCHITECTURES = ("plain", "vgg11", "custom")
# Of VGG-11: number of convolutions, those with a max-pool before them, and by how much the first one's width grows.
VGG_DEPTH, VGG_POOLS, VGG_GROWTH = 8, (2, 3, 5, 7), 8
PREFIXES = ("auto", "recompute", "cache")
# Fields of the network that take one of a few words.
_NETWORK_WORDS = {
    "batch_norm": ("auto", "on", "off"),
    "initialisation": ("default", "kaiming", "orthogonal", "vgg"),
    "norm_weight": ("ones", "uniform"),
    "activation": ("relu", "none"),
    "conv_bias": ("auto", "on"),
}


def setting(help: str) -> dict[str, object]:
    """Return the metadata of a field that --set alone replaces."""
    return {"help": help, "flag": False}


def flag(help: str) -> dict[str, object]:
    """Return the metadata of a field that has an option of its name in the commands that take it."""
    return {"help": help, "flag": True}


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The data set and the share of its train split that is set apart for validation. The test split stays whole."""

    dataset: str = field(
        metadata=flag(
            f"{', '.join(DATASETS[:-1])}, or imagefolder: any folder of images in train/CLASS and test/CLASS, or in "
            "CLASS alone (--test-share)."
        )
    )
    # At 0, as in the paper's Table 2, nothing can be chosen on images that training has not seen.
    holdout: float = field(
        default=0.1,
        metadata=flag("Share of the train split set apart for validation, in [0, 0.5], stratified; 0 for none."),
    )
    fold_seed: int = field(
        default=0,
        metadata=flag("Which validation fold: another seed sets other images apart; 0 is the one of all other runs."),
    )
    # Taken before the fold is set apart, with a fixed seed, so that a subset is the same images in every run.
    subset: int = field(
        default=0, metadata=flag("Use so many images of the train split, stratified by class; 0 for all.")
    )
    test_share: float = field(
        default=0.0,
        metadata=flag("Of an imagefolder of class folders alone: share of each class that is the test split, fixed."),
    )
    image_size: int = field(
        default=0,
        metadata=flag(
            "Pixels of a side of an imagefolder's images: shorter side resized, middle cropped; 0: unchanged."
        ),
    )
    label: str = field(
        default="",
        metadata=setting(
            "Name of the data in files, tables and figures; empty for that of the data set or its folder."
        ),
    )

    def __post_init__(self) -> None:
        _check_integers("data", self)
        _check(0 <= self.holdout <= 0.5, "data.holdout", self.holdout, "a share in [0, 0.5]")
        _check(0 <= self.fold_seed < 2**32, "data.fold_seed", self.fold_seed, "an integer in [0, 2^32)")
        _check(self.subset >= 0, "data.subset", self.subset, "a number of images, or 0 for all")
        _check(self.image_size >= 0, "data.image_size", self.image_size, "pixels of a side, or 0 for as they are")
        _check(0 <= self.test_share < 1, "data.test_share", self.test_share, "a share in [0, 1)")
        if self.dataset != "imagefolder":
            _check(
                self.test_share == 0,
                "data.test_share",
                self.test_share,
                f"0 for {self.dataset}, which has a test split",
            )
            _check(
                self.image_size == 0, "data.image_size", self.image_size, f"0 for {self.dataset}, whose size is fixed"
            )
        _check(self.label.isprintable(), "data.label", self.label, "one line of text")


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The architecture, in the paper's symbols.

    "plain" is the paper's. In "vgg11", its layerwise VGG-11, max-pools take the place of P, and widths stop doubling at
    8 M. The blocks of "custom" are the user's own: M, P and initial widths do not apply to them, and every auxiliary is
    M~ wide.
    """

    depth: int = field(metadata=flag("J, the number of blocks."))
    width: int = field(metadata=flag("M, channels of the first block; they double at each P after block 1."))
    k: int = field(metadata=flag("Hidden layers of each auxiliary problem, at least 1."))
    aux_width: int = field(
        metadata=flag("M~, channels of the first auxiliary's convolutions; they double as M does. Unused at k = 1.")
    )
    downsample: tuple[int, ...] = field(
        default=(), metadata=setting("Blocks before which P halves the resolution and stacks four copies on channels.")
    )
    average: int = field(
        default=2, metadata=setting("Side of the grid to which A averages the maps before the linear layer L.")
    )
    batch_norm: str = field(
        default="auto", metadata=setting("auto (the paper's rule: none at k = 1, everywhere at k > 1), on or off.")
    )
    activation: str = field(
        default="relu",
        metadata=setting(
            "relu, or none: of plain blocks in mode untrained alone, whose features are then random linear functions "
            "of the image."
        ),
    )
    initialisation: str = field(
        default="default",
        metadata=setting(
            "First weights of convolutions and linear layers: default (PyTorch's, as in the authors' code), kaiming "
            "(He et al. 2015, normal, fan-out), orthogonal (Saxe et al. 2014), or vgg (convolutions as kaiming, linear "
            "layers normal with deviation 0.01, all biases 0, as in the authors' VGG-11)."
        ),
    )
    # PyTorch before 1.2, the authors', drew them from [0, 1). docs/networks.md has what it does.
    norm_weight: str = field(
        default="ones",
        metadata=setting("First weights of BatchNorm: ones, or uniform on [0, 1), as in the authors' PyTorch."),
    )
    conv_bias: str = field(
        default="auto",
        metadata=setting(
            "Biases of the blocks' convolutions: auto (of block 1 alone, and none where BatchNorm follows), or on."
        ),
    )
    seeding: int = field(
        default=2,
        metadata=setting(
            "How first weights follow from the seed: 2, of each M their own; 1, the same stream for every M, as in "
            "runs of earlier versions."
        ),
    )
    last_aux_width: int = field(
        default=0,
        metadata=setting("M_f, channels of the last auxiliary's convolutions, never doubled; 0 for what M~ gives."),
    )
    prune_to: int = field(
        default=0, metadata=flag("Filters that stay of each trained block (they double as M does); 0: all.")
    )
    architecture: str = field(
        default="plain", metadata=setting("plain, vgg11, or custom, which --network sets with the two fields below.")
    )
    factory: str = field(default="", metadata=setting("Of custom blocks: file.py:function."))
    factory_sha256: str = field(default="", metadata=setting("Of custom blocks: the SHA-256 of that file."))

    def __post_init__(self) -> None:
        for name in ("depth", "width", "k", "aux_width", "average"):
            value = getattr(self, name)
            least = 0 if name == "width" and self.architecture == "custom" else 1
            _check(
                isinstance(value, int) and value >= least, f"network.{name}", value, f"an integer of at least {least}"
            )
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
        _check_integers("network", self)
        inside = all(1 <= j <= self.depth for j in self.downsample)
        _check(
            inside,
            "network.downsample",
            list(self.downsample),
            f"block numbers in 1..{self.depth} (--set network.downsample=...; empty for none)",
        )
        numbers = list(self.downsample)
        _check(len(set(numbers)) == len(numbers), "network.downsample", numbers, "block numbers, each once")
        for name, choices in _NETWORK_WORDS.items():
            if getattr(self, name) not in choices:
                raise unknown(f"network.{name}", getattr(self, name), choices)
        _check(self.seeding in (1, 2), "network.seeding", self.seeding, "1 or 2")

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
        only: dict[str, object] = {
            "last_aux_width": 0, "prune_to": 0, "downsample": (), "conv_bias": "auto", "activation": "relu",
        }  # fmt: skip
        if self.architecture == "vgg11":
            only |= {"depth": VGG_DEPTH, "k": 3, "downsample": VGG_POOLS, "conv_bias": self.conv_bias}
        for name, value in only.items():
            found = getattr(self, name)
            _check(found == value, f"network.{name}", found, f"{value}, since the network is {self.architecture}")

    @property
    def has_batch_norm(self) -> bool:
        """Whether blocks and auxiliaries carry BatchNorm."""
        return self.k > 1 if self.batch_norm == "auto" else self.batch_norm == "on"

    def has_bias(self, j: int) -> bool:
        """Whether the convolution of block j has a bias."""
        return self.conv_bias == "on" or (j == 1 and not self.has_batch_norm)

    @property
    def frozen_width(self) -> int:
        """Channels of the first block when it is frozen: M, or what pruning leaves of it."""
        return self.prune_to or self.width

    @property
    def variant(self) -> str:
        """How the network differs from the plain one of its k, M and M~, in words; empty where it does not."""
        if self.architecture != "plain":
            return self.factory or "VGG-11"
        words = [f"M_f = {self.last_aux_width}"] if self.last_aux_width else []
        return ", ".join([*words, *([f"pruned to {self.prune_to}"] if self.prune_to else [])])

    def doubled(self, width: int, j: int) -> int:
        """Return the width at block j that follows from the first block's: it doubles at each P after block 1."""
        growth: int = 2 ** sum(1 for b in self.downsample if 1 < b <= j)
        return width * (min(growth, VGG_GROWTH) if self.architecture == "vgg11" else growth)

    def aux_width_at(self, j: int) -> int:
        """Return the channels of the convolutions of block j's auxiliary."""
        if j == self.depth and self.last_aux_width:
            return self.last_aux_width
        return self.doubled(self.aux_width, j)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How each auxiliary problem is solved. The defaults are the paper's: SGD with momentum, stepwise learning rate."""

    epochs: int = field(
        metadata=flag("Epochs for each block; for all of the network in modes parallel and end-to-end.")
    )
    batch_size: int = field(default=128, metadata=setting("Images in a batch."))
    optimizer: str = field(
        default="sgd", metadata=setting("sgd or adamw (momentum is then unused, weight_decay decoupled).")
    )
    learning_rate: float = field(default=0.1, metadata=setting("Learning rate, the highest of the schedule."))
    # The authors' code builds its optimizer anew at each drop, and so loses its momentum; "steps" does the same.
    schedule: str = field(
        default="steps",
        metadata=setting("steps (times lr_factor every lr_every epochs), cosine (to 0), or one-cycle (warm-up first)."),
    )
    lr_factor: float = field(default=0.2, metadata=setting("Factor of each drop of the learning rate, in (0, 1]."))
    lr_every: int = field(default=15, metadata=setting("Epochs between two drops of the learning rate."))
    lr_first: int = field(default=0, metadata=setting("Epochs before the first drop; 0: lr_every."))
    momentum: float = field(default=0.9, metadata=setting("Momentum of sgd, in [0, 1)."))
    weight_decay: float = field(default=5e-4, metadata=setting("Weight decay of all parameters."))
    label_smoothing: float = field(
        default=0.0, metadata=setting("Share of the target spread evenly over all classes, in [0, 1).")
    )
    ema_decay: float = field(
        default=0.0,
        metadata=setting(
            "Weight of the past, a step, in a moving average of the weights, which is what is kept; 0 keeps the last "
            "weights, as the paper does."
        ),
    )
    crop_padding: int = field(
        default=0, metadata=setting("Pixels of zero padding before a random crop to the image's size; 0: no crop.")
    )
    flip: bool = field(default=False, metadata=setting("Mirror each image left to right with probability 1/2."))
    views: int = field(
        default=0, metadata=flag("Augment so many fixed views of each image, in turn; 0: anew in each epoch.")
    )
    # "auto" is decided before the configuration is stored (layerwise.training.stage_batches).
    prefix: str = field(
        default="auto",
        metadata=flag(
            "Output of the frozen blocks: recompute for every batch, cache (kept, of images that stay the same), or "
            "auto (cache where it is the same and fits)."
        ),
    )
    finetune_epochs: int = field(
        default=20,
        metadata=setting(
            "Epochs for which an auxiliary is trained further once its block was pruned. The paper's are 20."
        ),
    )
    matched_epochs: int = field(
        default=0,
        metadata=setting(
            "Written by --match operations: epochs of the greedy run whose operations these epochs spend; 0: none."
        ),
    )
    matched_lr_every: int = field(
        default=0, metadata=setting("Written by --match operations: lr_every of that greedy run; 0: none.")
    )
    # The paper gives no rate at which fine-tuning begins. 0.01 is a choice: a tenth of the default rate.
    finetune_rate: float = field(
        default=0.01, metadata=setting("Initial learning rate of fine-tuning. The schedule is the same.")
    )

    def __post_init__(self) -> None:
        _check_integers("training", self)
        for name in ("epochs", "batch_size", "lr_every", "finetune_epochs"):
            _check(getattr(self, name) >= 1, f"training.{name}", getattr(self, name), "an integer of at least 1")
        _check(
            self.lr_first >= 0, "training.lr_first", self.lr_first, "epochs before the first drop, or 0 for lr_every"
        )
        for name in ("learning_rate", "finetune_rate"):
            rate = getattr(self, name)
            _check(0 < rate < math.inf, f"training.{name}", rate, "a finite number above 0")
        _check(0 < self.lr_factor <= 1, "training.lr_factor", self.lr_factor, "a factor in (0, 1]")
        _check(0 <= self.momentum < 1, "training.momentum", self.momentum, "a number in [0, 1)")
        decay = self.weight_decay
        _check(0 <= decay < math.inf, "training.weight_decay", decay, "a finite number of at least 0")
        for name in ("matched_epochs", "matched_lr_every"):
            _check(getattr(self, name) >= 0, f"training.{name}", getattr(self, name), "an integer of at least 0")
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
        """Whether later epochs read the same images, so that results computed from them can be reused."""
        return self.views > 0 or not self.augments

    @property
    def repeats(self) -> bool:
        """Whether some image is read again in a later epoch, so that keeping results saves work."""
        return self.is_fixed and self.epochs > max(1, self.views)

    @property
    def finetuning(self) -> TrainingConfig:
        """The settings under which an auxiliary is trained further once its block was pruned."""
        return dataclasses.replace(self, epochs=self.finetune_epochs, learning_rate=self.finetune_rate)

    def drops(self, epoch: int) -> int:
        """Return how often the stepwise learning rate has dropped when an epoch, counted from 0, begins."""
        return max(0, (epoch - (self.lr_first or self.lr_every)) // self.lr_every + 1)


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
        _check(
            self.match == "epochs" or self.mode in MATCHED,
            "match", self.match, f"'epochs' unless the mode is {' or '.join(MATCHED)} (--mode {MATCHED[0]})",
        )  # fmt: skip
        _check(self.tuned.isprintable(), "tuned", self.tuned, "names of fields with commas")
        _check(
            self.training.prefix != "cache" or self.mode == "greedy",
            "training.prefix", self.training.prefix, f"recompute or auto: mode {self.mode} freezes no block to keep",
        )  # fmt: skip
        _check(
            self.network.prune_to == 0 or self.mode == "greedy",
            "network.prune_to", self.network.prune_to, f"0 in mode {self.mode}: greedy training alone prunes",
        )  # fmt: skip
        _check(
            self.network.activation == "relu" or self.mode == "untrained",
            "network.activation", self.network.activation, f"relu in mode {self.mode}: only untrained blocks lack it",
        )  # fmt: skip
        _check(0 <= self.seed < 2**32, "seed", self.seed, "an integer in [0, 2^32)")

    @property
    def heads(self) -> range:
        """Numbers j of the auxiliaries that the mode trains, scores and keeps."""
        if self.mode == "untrained":
            return range(0)
        depth = self.network.depth
        return range(depth if self.mode == "end-to-end" else 1, depth + 1)

    def to_json(self) -> str:
        """Return the configuration as canonical JSON: sorted keys, the same text for equal configurations."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> RunConfig:
        """Return the configuration written by `to_json` of this or another version, without fields of a later one."""
        tree = json.loads(text)
        tree["network"]["downsample"] = tuple(tree["network"]["downsample"])
        tree["training"].setdefault("prefix", "recompute")  # what was done before there was a choice
        tree["network"].setdefault("seeding", 1)
        parts = {"data": DataConfig, "network": NetworkConfig, "training": TrainingConfig}
        for name, part in parts.items():
            tree[name] = part(**_known(part, tree[name]))
        return cls(**_known(cls, tree))


def _known(kind: type[Any], tree: dict[str, Any]) -> dict[str, Any]:
    names = {f.name for f in dataclasses.fields(kind)}
    return {name: value for name, value in tree.items() if name in names}


def _check_integers(section: str, config: DataConfig | NetworkConfig | TrainingConfig) -> None:
    """Raise UsageError where a field that counts something is no whole number, as 1.5 by the Python API."""
    for field_ in dataclasses.fields(config):
        value = getattr(config, field_.name)
        if field_.type == "int":
            _check(type(value) is int, f"{section}.{field_.name}", value, "an integer")


def _check(holds: bool, name: str, found: object, expected: str) -> None:
    if not holds:
        raise UsageError(f"{name} is {found!r}, but must be {expected}.")
