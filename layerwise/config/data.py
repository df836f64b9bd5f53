"""The data set of a run, and what of its train split is set apart."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from layerwise.config.fields import check, check_integers, flag, setting

DATASETS = ("digits", "fashion-mnist", "mnist", "cifar10", "cifar100", "svhn", "stl10", "imagefolder")


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
    eval_resize: int = field(
        default=0,
        metadata=setting(
            "Pixels to which the shorter side of an imagefolder's images is brought before the middle of "
            "data.image_size is cropped; 0: that size."
        ),
    )
    mean: tuple[float, ...] = field(
        default=(),
        metadata=flag("Constants to subtract, one a channel, of pixels scaled to [0, 1]; empty: of the train fold."),
    )
    std: tuple[float, ...] = field(
        default=(), metadata=flag("Constants to divide by, one a channel; given with data.mean, or empty as it is.")
    )
    label: str = field(
        default="",
        metadata=setting(
            "Name of the data in files, tables and figures; empty for that of the data set or its folder."
        ),
    )

    def __post_init__(self) -> None:
        check_integers("data", self)
        check(0 <= self.holdout <= 0.5, "data.holdout", self.holdout, "a share in [0, 0.5]")
        check(0 <= self.fold_seed < 2**32, "data.fold_seed", self.fold_seed, "an integer in [0, 2^32)")
        check(self.subset >= 0, "data.subset", self.subset, "a number of images, or 0 for all")
        check(self.image_size >= 0, "data.image_size", self.image_size, "pixels of a side, or 0 for as they are")
        check(0 <= self.test_share < 1, "data.test_share", self.test_share, "a share in [0, 1)")
        if self.dataset != "imagefolder":
            check(
                self.test_share == 0,
                "data.test_share",
                self.test_share,
                f"0 for {self.dataset}, which has a test split",
            )
            check(
                self.image_size == 0, "data.image_size", self.image_size, f"0 for {self.dataset}, whose size is fixed"
            )
        check(
            self.eval_resize == 0 or 0 < self.image_size <= self.eval_resize,
            "data.eval_resize", self.eval_resize, "at least data.image_size, which is cropped from it, or 0",
        )  # fmt: skip
        self._check_constants()
        check(self.label.isprintable(), "data.label", self.label, "one line of text")

    def _check_constants(self) -> None:
        mean, std = list(self.mean), list(self.std)
        check(all(map(math.isfinite, mean)), "data.mean", mean, "finite numbers with commas, or empty")
        check(all(0 < value < math.inf for value in std), "data.std", std, "finite numbers above 0, or empty")
        check(len(mean) == len(std), "data.std", std, f"as many numbers as data.mean has, {len(mean)}")
