"""Published accuracies that a table puts beside ours, each with its network, its data and its source."""

from __future__ import annotations

from dataclasses import dataclass

PAPER = "Belilovsky, Eickenberg, Oyallon 2019, arXiv 1812.11446"
CODE = "logs of the authors' code, eugenium/layerCNN"
DGL = "Belilovsky, Eickenberg, Oyallon 2020, arXiv 1901.08164"
# As quoted by others or from memory: to be checked before it is cited.
SECOND_HAND = "second hand"


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published test accuracy in percent.

    k: of a greedy network; 0 for others. blocks, width, aux_width: J, M and M~, 0 where they are not what names it.
    top1: of the last auxiliary classifier, or of the network; ensemble: of all auxiliaries. top5, top5_ensemble: of
    ImageNet. sure: whether it was read in the source itself.
    """

    dataset: str
    network: str
    top1: float
    k: int = 0
    blocks: int = 0
    width: int = 0
    aux_width: int = 0
    ensemble: float | None = None
    top5: float | None = None
    top5_ensemble: float | None = None
    source: str = PAPER
    sure: bool = True


def _greedy(
    dataset: str, k: int, top1: float, ensemble: float, blocks: int, width: int, aux: int, **more: float
) -> Published:
    return Published(
        dataset=dataset, network=f"greedy, k = {k}", k=k, top1=top1, ensemble=ensemble, blocks=blocks, width=width,
        aux_width=aux, **more,  # type: ignore[arg-type]
    )  # fmt: skip


NUMBERS: tuple[Published, ...] = (
    _greedy("cifar10", 1, 88.3, 88.4, 5, 256, 0),
    _greedy("cifar10", 2, 90.4, 90.7, 4, 128, 128),
    _greedy("cifar10", 3, 91.7, 92.8, 4, 128, 128),
    Published(dataset="cifar10", network="BoostResNet", top1=82.1),
    Published(dataset="cifar10", network="ProvableNN", top1=73.4),
    Published(dataset="cifar10", network="Mosca et al.", top1=81.6),
    Published(dataset="cifar10", network="AlexNet, end to end", top1=89.0),
    Published(dataset="cifar10", network="VGG, end to end", top1=92.5),
    Published(dataset="cifar10", network="WRN-28-10, end to end", top1=96.0),
    Published(dataset="cifar10", network="compressed layer by layer, 128 to 64, k = 3, J = 3", top1=87.6),
    Published(dataset="cifar10", network="the compressed network end to end, 120 epochs", top1=87.5),
    _greedy("imagenet", 1, 58.1, 59.3, 8, 256, 0, top5=79.7, top5_ensemble=80.8),
    _greedy("imagenet", 2, 65.7, 67.1, 8, 128, 256, top5=86.3, top5_ensemble=87.0),
    _greedy("imagenet", 3, 69.7, 71.6, 8, 128, 256, top5=88.7, top5_ensemble=89.8),
    Published(dataset="imagenet", network="greedy, k = 3, last auxiliary 1024", top1=69.2, top5=88.6),
    Published(dataset="imagenet", network="greedy, k = 3, last auxiliary 512", top1=68.7, top5=88.5),
    Published(dataset="imagenet", network="that network end to end, last auxiliary 512", top1=71.5, top5=90.1),
    Published(
        dataset="imagenet", network="VGG-11 layerwise, k = 3", top1=67.6, ensemble=70.1, top5=88.0, top5_ensemble=89.2,
        source=f"{PAPER} ({SECOND_HAND})", sure=False,
    ),
    Published(
        dataset="imagenet", network="VGG-11 end to end, the authors'", top1=67.9, top5=88.0,
        source=f"{PAPER} ({SECOND_HAND})", sure=False,
    ),
    Published(dataset="imagenet", network="AlexNet, end to end", top1=56.5, top5=79.1),
    Published(dataset="imagenet", network="VGG-11, end to end", top1=69.0, top5=88.6),
    Published(dataset="imagenet", network="VGG-13, end to end", top1=69.9, top5=89.3),
    Published(dataset="imagenet", network="VGG-19, end to end", top1=72.9, top5=90.9),
    Published(dataset="imagenet", network="ResNet-152, end to end", top1=78.3, top5=94.1),
    Published(
        dataset="imagenet", network="VGG-13, DGL, K = 4", top1=67.8, top5=88.0, source=f"{DGL} ({SECOND_HAND})",
        sure=False,
    ),
    Published(
        dataset="imagenet", network="ResNet-152, DGL, K = 2", top1=74.5, top5=92.0, source=f"{DGL} ({SECOND_HAND})",
        sure=False,
    ),
    *(
        Published(dataset="cifar10", network=f"{how}, 64/128/128/256, depth {depth}", top1=top1, source=CODE)
        for how, values in (
            ("sequential", (78.55, 85.77, 88.28, 89.13)),
            ("parallel", (78.35, 85.25, 87.90, 89.86)),
        )
        for depth, top1 in enumerate(values, start=1)
    ),
)  # fmt: skip

# Images of the train split on which the numbers were trained.
TRAINED_ON = {"cifar10": 50_000, "imagenet": 1_281_167}


def greedy(dataset: str, k: int) -> Published | None:
    """Return the number of the greedy network of that k on a data set, or on a copy of it (cifar10-...)."""
    for number in NUMBERS:
        if number.k == k and (dataset == number.dataset or dataset.startswith(f"{number.dataset}-")):
            return number
    return None
