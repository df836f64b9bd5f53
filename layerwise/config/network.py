"""The architecture of a run, in the paper's symbols."""

from __future__ import annotations

from dataclasses import dataclass, field

from layerwise.config.fields import check, check_integers, flag, setting
from layerwise.errors import unknown

ARCHITECTURES = ("plain", "paired", "vgg11", "custom")
# Of VGG-11: number of convolutions, those with a max-pool before them, and by how much the first one's width grows.
VGG_DEPTH, VGG_POOLS, VGG_GROWTH = 8, (2, 3, 5, 7), 8
# Fields of the network that take one of a few words.
_NETWORK_WORDS = {
    "batch_norm": ("auto", "on", "off"),
    "initialisation": ("default", "kaiming", "orthogonal", "vgg", "dirac"),
    "norm_weight": ("ones", "uniform", "fixed"),
    "activation": ("relu", "none", "gelu"),
    "conv_bias": ("auto", "on"),
}


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The architecture, in the paper's symbols.

    "plain" is the paper's. "paired" has a fixed whitening layer as block 1 and two convolutions in each other block;
    block 2 is M wide, those after it 4 M. In "vgg11", its layerwise VGG-11, max-pools take the place of P, and widths
    stop doubling at 8 M. The blocks of "custom" are the user's own: M, P and initial widths do not apply to them. Every
    auxiliary of paired and custom blocks is M~ wide.
    """

    depth: int = field(metadata=flag("J, the number of blocks."))
    width: int = field(metadata=flag("M, channels of the first block; they double at each P after block 1."))
    k: int = field(metadata=flag("Hidden layers of each auxiliary problem, at least 1."))
    aux_width: int = field(
        metadata=flag("M~, channels of the first auxiliary's convolutions; they double as M does. Unused at k = 1.")
    )
    aux_halving: bool = field(
        default=False,
        metadata=setting(
            "Average maps to half their resolution before the convolutions of an auxiliary, of plain blocks; vgg11 and "
            "paired blocks have their own way to."
        ),
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
            "relu; gelu, of paired blocks; or none: of plain blocks in mode untrained alone, whose features are then "
            "random linear functions of the image."
        ),
    )
    initialisation: str = field(
        default="default",
        metadata=setting(
            "First weights of convolutions and linear layers: default (PyTorch's, as in the authors' code), kaiming "
            "(He et al. 2015, normal, fan-out), orthogonal (Saxe et al. 2014), vgg (convolutions as kaiming, linear "
            "layers normal with deviation 0.01, all biases 0, as in the authors' VGG-11), or dirac (default, but that "
            "filter i of a convolution begins by passing channel i on)."
        ),
    )
    # PyTorch before 1.2, the authors', drew them from [0, 1). docs/networks.md has what it does.
    norm_weight: str = field(
        default="ones",
        metadata=setting(
            "Weights of BatchNorm: ones at first, uniform on [0, 1) at first, as in the authors' PyTorch, or fixed: "
            "ones, not trained."
        ),
    )
    norm_momentum: float = field(
        default=0.1,
        metadata=setting("Weight of the present batch in BatchNorm's running statistics, in (0, 1] (airbench: 0.4)."),
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
        default="plain",
        metadata=setting("plain, paired, vgg11, or custom, which --network sets with the two fields below."),
    )
    factory: str = field(default="", metadata=setting("Of custom blocks: file.py:function."))
    factory_sha256: str = field(default="", metadata=setting("Of custom blocks: the SHA-256 of that file."))

    def __post_init__(self) -> None:
        for name in ("depth", "width", "k", "aux_width", "average"):
            value = getattr(self, name)
            least = 0 if name == "width" and self.architecture == "custom" else 1
            check(
                isinstance(value, int) and value >= least, f"network.{name}", value, f"an integer of at least {least}"
            )
        self._check_architecture()
        last, filters = self.last_aux_width, self.prune_to
        check(last >= 0, "network.last_aux_width", last, "a number of channels, or 0 for what network.aux_width gives")
        check(last == 0 or self.k > 1, "network.last_aux_width", last, "0 at k = 1, whose auxiliaries are linear")
        check(
            not self.aux_halving or (self.k > 1 and self.architecture == "plain"),
            "network.aux_halving", self.aux_halving, "false where auxiliaries have no convolutions or are not plain",
        )  # fmt: skip
        check(
            0 <= filters < max(1, self.width),
            "network.prune_to",
            filters,
            f"fewer filters than M = {self.width}; 0 for all",
        )
        check_integers("network", self)
        inside = all(1 <= j <= self.depth for j in self.downsample)
        check(
            inside,
            "network.downsample",
            list(self.downsample),
            f"block numbers in 1..{self.depth} (--set network.downsample=...; empty for none)",
        )
        numbers = list(self.downsample)
        check(len(set(numbers)) == len(numbers), "network.downsample", numbers, "block numbers, each once")
        for name, choices in _NETWORK_WORDS.items():
            if getattr(self, name) not in choices:
                raise unknown(f"network.{name}", getattr(self, name), choices)
        momentum = self.norm_momentum
        check(0 < momentum <= 1, "network.norm_momentum", momentum, "a number in (0, 1]")
        check(self.seeding in (1, 2), "network.seeding", self.seeding, "1 or 2")

    def _check_architecture(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise unknown("network.architecture", self.architecture, ARCHITECTURES)
        if self.architecture == "custom":
            named = bool(self.factory and self.factory_sha256)
            check(named, "network.factory", self.factory, "path/to/file.py:FUNCTION by --network")
        else:
            check(not (self.factory or self.factory_sha256), "network.factory", self.factory, "empty but for custom")
        if self.architecture == "plain":
            check(self.activation != "gelu", "network.activation", self.activation, "relu where blocks are plain")
            return
        only: dict[str, object] = {
            "last_aux_width": 0, "prune_to": 0, "downsample": (), "conv_bias": "auto", "activation": "relu",
        }  # fmt: skip
        if self.architecture == "paired":
            only |= {"activation": "gelu", "average": 2}
            check(self.k in (2, 3, 4), "network.k", self.k, "2, 3 or 4, since the blocks are paired convolutions")
            check(self.depth > 1, "network.depth", self.depth, "at least 2: block 1 is the whitening layer")
            check(self.batch_norm != "off", "network.batch_norm", "off", "auto or on, since the network is paired")
        if self.architecture == "vgg11":
            only |= {"depth": VGG_DEPTH, "k": 3, "downsample": VGG_POOLS, "conv_bias": self.conv_bias}
        for name, value in only.items():
            found = getattr(self, name)
            check(found == value, f"network.{name}", found, f"{value}, since the network is {self.architecture}")

    @property
    def has_batch_norm(self) -> bool:
        """Whether blocks and auxiliaries carry BatchNorm."""
        return self.k > 1 if self.batch_norm == "auto" else self.batch_norm == "on"

    def has_bias(self, j: int) -> bool:
        """Whether the convolution of block j has a bias."""
        return self.conv_bias == "on" or (j == 1 and not self.has_batch_norm)

    @property
    def first_trained(self) -> int:
        """Number of the first block that is trained: a whitening layer before it is fixed."""
        return 2 if self.architecture == "paired" else 1

    @property
    def frozen_width(self) -> int:
        """Channels of the first block when it is frozen: M, or what pruning leaves of it."""
        return self.prune_to or self.width

    @property
    def variant(self) -> str:
        """How the network differs from the plain one of its k, M and M~, in words; empty where it does not."""
        if self.architecture != "plain":
            return {"vgg11": "VGG-11", "paired": "paired"}.get(self.architecture, self.factory)
        words = [f"M_f = {self.last_aux_width}"] if self.last_aux_width else []
        words += ["auxiliaries at half resolution"] if self.aux_halving else []
        return ", ".join([*words, *([f"pruned to {self.prune_to}"] if self.prune_to else [])])

    def doubled(self, width: int, j: int) -> int:
        """Return the width at block j that follows from the first block's: it doubles at each P after block 1.

        Of paired blocks, whose first is block 2, those after it are four times as wide.
        """
        if self.architecture == "paired":
            return 4 * width if j > 2 else width
        growth: int = 2 ** sum(1 for b in self.downsample if 1 < b <= j)
        return width * (min(growth, VGG_GROWTH) if self.architecture == "vgg11" else growth)

    def aux_width_at(self, j: int) -> int:
        """Return the channels of the convolutions of block j's auxiliary."""
        if self.architecture == "paired":
            return self.aux_width
        if j == self.depth and self.last_aux_width:
            return self.last_aux_width
        return self.doubled(self.aux_width, j)
