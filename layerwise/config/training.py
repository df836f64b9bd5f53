"""How each auxiliary problem of a run is solved."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field

from layerwise.config.fields import check, check_integers, flag, setting
from layerwise.errors import UsageError, unknown

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("steps", "cosine", "one-cycle", "linear")
PADDINGS = ("zeros", "reflect")
CROPS = ("pad", "random-resized")
PULL_EVERY = 5  # steps between two pulls of the weights to their average
PREFIXES = ("auto", "recompute", "cache")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How each auxiliary problem is solved. The defaults are the paper's: SGD with momentum, stepwise learning rate."""

    epochs: int = field(
        metadata=flag("Epochs for each block; for all of the network in modes parallel and end-to-end.")
    )
    block_epochs: tuple[int, ...] = field(
        default=(), metadata=setting("Epochs of each block in greedy training; empty: training.epochs for all.")
    )
    batch_size: int = field(default=128, metadata=setting("Images in a batch."))
    optimizer: str = field(
        default="sgd", metadata=setting("sgd or adamw (momentum is then unused, weight_decay decoupled).")
    )
    learning_rate: float = field(default=0.1, metadata=setting("Learning rate, the highest of the schedule."))
    # The authors' code builds its optimizer anew at each drop, and so loses its momentum; "steps" does the same.
    schedule: str = field(
        default="steps",
        metadata=setting(
            "steps (times lr_factor every lr_every epochs), cosine (to 0), one-cycle (warm-up first), or linear (up "
            "from a fifth over the first 23%, then down to 0)."
        ),
    )
    lr_factor: float = field(default=0.2, metadata=setting("Factor of each drop of the learning rate, in (0, 1]."))
    lr_every: int = field(default=15, metadata=setting("Epochs between two drops of the learning rate."))
    lr_first: int = field(default=0, metadata=setting("Epochs before the first drop; 0: lr_every."))
    momentum: float = field(default=0.9, metadata=setting("Momentum of sgd, in [0, 1)."))
    nesterov: bool = field(default=False, metadata=setting("Nesterov's momentum of sgd (Sutskever et al. 2013)."))
    # Of sgd, decay and rate multiply: a bias with a larger rate has the smaller decay, so that a step shrinks it alike.
    norm_bias_rate: float = field(
        default=1.0, metadata=setting("Factor of the learning rate of BatchNorm's biases, as in airbench (64 there).")
    )
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
    lookahead: float = field(
        default=0.0,
        metadata=setting(
            f"Every {PULL_EVERY} steps weights are pulled to their average, whose weight of the past, a step, grows to "
            "this one with the cube of the share of training that is done; the average is kept (Zhang et al. 2019, as "
            "in airbench, 0.95 there). 0: none."
        ),
    )
    crop: str = field(
        default="pad",
        metadata=setting(
            "pad: training.crop_padding and a random crop; random-resized: a random part of the original, brought to "
            "data.image_size (Szegedy et al. 2015), of an imagefolder alone, whose images then stay in their files."
        ),
    )
    crop_scale: tuple[float, ...] = field(
        default=(0.08, 1.0),
        metadata=setting("Of crop random-resized: least and largest share of the image's area."),
    )
    crop_ratio: tuple[float, ...] = field(
        default=(3 / 4, 4 / 3),
        metadata=setting("Of crop random-resized: least and largest width of the part over its height."),
    )
    crop_padding: int = field(
        default=0, metadata=setting("Pixels of padding before a random crop to the image's size; 0: no crop.")
    )
    crop_fill: str = field(default="zeros", metadata=setting("What the padding is: zeros, or reflect (the image)."))
    flip: bool = field(default=False, metadata=setting("Mirror each image left to right with probability 1/2."))
    alternating_flip: bool = field(
        default=False,
        metadata=setting("Mirror at random in the first epoch alone, then in turn (Jordan 2024). Needs training.flip."),
    )
    cutout: int = field(
        default=0,
        metadata=setting("Side in pixels of a black square at a random place of each image (DeVries, Taylor 2017)."),
    )
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
        check_integers("training", self)
        for name in ("epochs", "batch_size", "lr_every", "finetune_epochs"):
            check(getattr(self, name) >= 1, f"training.{name}", getattr(self, name), "an integer of at least 1")
        check(self.lr_first >= 0, "training.lr_first", self.lr_first, "epochs before the first drop, or 0 for lr_every")
        for name in ("learning_rate", "finetune_rate"):
            rate = getattr(self, name)
            check(0 < rate < math.inf, f"training.{name}", rate, "a finite number above 0")
        check(0 < self.lr_factor <= 1, "training.lr_factor", self.lr_factor, "a factor in (0, 1]")
        check(0 <= self.momentum < 1, "training.momentum", self.momentum, "a number in [0, 1)")
        decay = self.weight_decay
        check(0 <= decay < math.inf, "training.weight_decay", decay, "a finite number of at least 0")
        for name in ("matched_epochs", "matched_lr_every"):
            check(getattr(self, name) >= 0, f"training.{name}", getattr(self, name), "an integer of at least 0")
        check(0 <= self.label_smoothing < 1, "training.label_smoothing", self.label_smoothing, "a share in [0, 1)")
        check(0 <= self.ema_decay < 1, "training.ema_decay", self.ema_decay, "a number in [0, 1)")
        if self.optimizer not in OPTIMIZERS:
            raise unknown("training.optimizer", self.optimizer, OPTIMIZERS)
        if self.schedule not in SCHEDULES:
            raise unknown("training.schedule", self.schedule, SCHEDULES)
        self._check_averages()
        self._check_augmentation()
        self._check_prefix()

    def _check_averages(self) -> None:
        check(0 <= self.lookahead < 1, "training.lookahead", self.lookahead, "a number in [0, 1)")
        check(
            not (self.lookahead and self.ema_decay),
            "training.lookahead", self.lookahead, "0 where training.ema_decay is not: weights have one average",
        )  # fmt: skip
        rate = self.norm_bias_rate
        check(0 < rate < math.inf, "training.norm_bias_rate", rate, "a finite number above 0")
        check(
            not self.nesterov or (self.optimizer == "sgd" and self.momentum > 0),
            "training.nesterov", self.nesterov, "false without sgd and training.momentum above 0",
        )  # fmt: skip
        check(
            all(epochs >= 1 for epochs in self.block_epochs),
            "training.block_epochs", list(self.block_epochs), "integers of at least 1 with commas; empty for none",
        )  # fmt: skip

    def _check_augmentation(self) -> None:
        for name in ("crop_padding", "cutout"):
            check(getattr(self, name) >= 0, f"training.{name}", getattr(self, name), "pixels, at least 0")
        if self.crop_fill not in PADDINGS:
            raise unknown("training.crop_fill", self.crop_fill, PADDINGS)
        if self.crop not in CROPS:
            raise unknown("training.crop", self.crop, CROPS)
        check(
            self.crop == "pad" or self.crop_padding == 0,
            "training.crop_padding", self.crop_padding, f"0 where training.crop is {self.crop}",
        )  # fmt: skip
        for name, most in (("crop_scale", 1), ("crop_ratio", math.inf)):
            found = getattr(self, name)
            check(
                len(found) == 2 and 0 < found[0] <= found[1] <= most and math.isfinite(found[1]),
                f"training.{name}", list(found), f"two numbers in (0, {'1]' if most == 1 else 'inf)'}, the least first",
            )  # fmt: skip
        check(
            self.flip or not self.alternating_flip,
            "training.alternating_flip", self.alternating_flip, "false where training.flip is",
        )  # fmt: skip

    def _check_prefix(self) -> None:
        if self.prefix not in PREFIXES:
            raise unknown("training.prefix", self.prefix, PREFIXES)
        check(self.views >= 0, "training.views", self.views, "a number of fixed views, or 0 for new ones each epoch")
        check(self.views == 0 or self.augments, "training.views", self.views, "0 where nothing is augmented")
        if self.prefix == "cache" and not self.is_fixed:
            raise UsageError(
                "training.prefix is 'cache', but crops and flips are drawn anew in each epoch. Give --views N to "
                "draw N views of each image once (docs/performance.md says what that costs in accuracy), or turn "
                "both off by --set training.crop_padding=0 --set training.flip=false, or use --prefix recompute."
            )

    @property
    def augments(self) -> bool:
        """Whether images are cropped, mirrored or covered at random."""
        return self.is_resized or self.crop_padding > 0 or self.flip or self.cutout > 0

    @property
    def is_resized(self) -> bool:
        """Whether each image is a random part of its original, brought to one size."""
        return self.crop == "random-resized"

    @property
    def averages(self) -> bool:
        """Whether an average of the weights is kept in their place."""
        return self.ema_decay > 0 or self.lookahead > 0

    def of_block(self, j: int) -> TrainingConfig:
        """Return the settings by which block j is trained greedily."""
        return (
            dataclasses.replace(self, epochs=self.block_epochs[j - 1], block_epochs=()) if self.block_epochs else self
        )

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
