"""LoRA: a low-rank update of every target."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from subspace.errors import ValueRangeError
from subspace.text import listed, shown
from subspace.training.method import Layers, Method, Option

if TYPE_CHECKING:
    from torch import Tensor, nn
    from typing_extensions import Self

    from subspace.checkpoints.fused_layouts import Ranges
    from subspace.training.adapted_layer import AdaptedLayer

__all__ = ["METHOD", "LoRA"]

_MOST = 3e38
_STARTS = ("kaiming", "gaussian")
_GROUPS = ("q", "k", "v")


@dataclass(frozen=True)
class LoRA(Method):
    """A low-rank update ``delta_W = scale * B A`` of every target, of which only A and B are trained.

    Attributes
    ----------
    r : rank, at least 1
    alpha : ``scale = alpha / r``, or ``alpha / sqrt(r)`` with `rslora`
    rslora : the rank-stabilised scale of Kalajdzievski, arXiv 2312.03732
    dropout : probability in [0, 1) that an input of A is left out, in training
    init : of A; "kaiming" (uniform, as loralib and PEFT start it) or "gaussian" (as the paper says; deviation 1 / r, as
        PEFT has it). B starts at zero; of an embedding A starts at zero and B as N(0, 1), as loralib and PEFT do.
    seed : of the start; see `start_seed`
    groups : which parts of a fused layer are adapted, each by a pair of its own: names such as ("q", "v"), whose rows
        the type of the model says; or, where they are equal blocks in that order, as loralib's ``enable_lora``:
        (True, False, True) for q and v of a fused q, k, v. None: the layer is one.
    rows : the rows of each adapted group in one layer, which `for_layer` finds; no setting

    References
    ----------
    Hu et al., arXiv 2106.09685v2, section 4.1.
    """

    name = "lora"
    about = "low-rank updates of the targets"
    lr = 2e-3
    parts = ("lora_A", "lora_B")
    formats = ("peft", "loralib")
    keeps_start = True
    options = (
        Option("--rank", "r", "LoRA rank r.", least=1),
        Option("--alpha", "alpha", "LoRA alpha: delta_W = alpha / r * B A."),
        Option("--rslora", "rslora", "Rank-stabilised scale: alpha / sqrt(r) in place of alpha / r.", "flag"),
        Option(
            "--dropout", "dropout", "Probability that an input of A is dropped in training.", least=0, below=1
        ),
        Option("--init", "init", "Distribution that A starts from; B starts at zero.", "choice", _STARTS),
        Option(
            "--groups",
            "groups",
            "Parts of a fused q, k, v layer that are adapted, each with its own A and B, by name, such as q,v; as "
            "loralib writes it, 1,0,1, only where the parts are equal blocks.",
            "groups",
        ),
    )

    r: int = 8
    alpha: float = 16.0
    rslora: bool = False
    dropout: float = 0.0
    init: str = "kaiming"
    seed: int = 0
    groups: tuple[bool, ...] | tuple[str, ...] | None = None
    rows: tuple[Ranges, ...] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("r", "seed"):  # a NumPy integer is one too, and JSON has none
            object.__setattr__(self, name, operator.index(getattr(self, name)))
        if self.r < 1:
            raise ValueRangeError(f"Rank {self.r} is too small: a rank must be at least 1")
        if not 0 < abs(self.alpha) < _MOST:
            raise ValueRangeError(
                f"Invalid `alpha` {self.alpha}: it must be a finite number in float32, other than 0"
            )
        if not 0 <= self.dropout < 1:
            raise ValueRangeError(f"Invalid `dropout` {self.dropout}: it must be in [0, 1)")
        if self.init not in _STARTS:
            raise ValueRangeError(
                f"Unknown start of A: '{shown(self.init)}'; give `init` as one of {', '.join(_STARTS)}"
            )
        if self.groups is not None:
            object.__setattr__(self, "groups", _checked_groups(self.groups))

    @property
    def scale(self) -> float:
        """``alpha / r``, or ``alpha / sqrt(r)`` for rsLoRA."""
        return self.alpha / (math.sqrt(self.r) if self.rslora else self.r)

    @classmethod
    def from_options(cls, given: Mapping[str, Any], *, seed: int, targets: Sequence[str]) -> LoRA:
        """Return LoRA with the settings that were given and the run's seed."""
        return cls(seed=seed, **given)

    @property
    def pairs(self) -> int:
        """Number of pairs of A and B in one layer: one per adapted group."""
        return 1 if self.groups is None else sum(map(bool, self.groups))

    def document(self) -> dict[str, Any]:
        """Return the settings as plain values by name, and the method's name as ``kind``."""
        return {name: value for name, value in super().document().items() if name != "rows"}

    def for_layer(self, model: nn.Module, module: str) -> Self:
        """Return the method with the rows of its groups in one layer; by blocks where loralib could express them."""
        if self.groups is None:
            return self
        from subspace.training.fused_rows import rows_of

        blocks, rows = rows_of(model, module, self.groups)
        return replace(self, groups=blocks or self.groups, rows=rows)

    def start(self, layer: nn.Module, module: str) -> dict[str, Tensor]:
        """Return A and B at the start, a function of the seed, the module's name and r alone."""
        from subspace.training.methods import _lora_layers

        A, B = _lora_layers.start(layer, module, self)
        return {"lora_A": A, "lora_B": B}

    def output(self, layer: AdaptedLayer, adapter: str, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the output with the update, with dropout in training."""
        from subspace.training.methods import _lora_layers

        return _lora_layers.output(layer, self, *layer.factors(adapter).values(), x, *args, **kwargs)

    def delta_weight(self, layer: AdaptedLayer, adapter: str) -> Tensor:
        """Return ``scale * B A`` in the layout of the weight."""
        from subspace.training.methods import _lora_layers

        return _lora_layers.composed(layer, self, *layer.factors(adapter).values())

    def require_mergeable(self, layer: AdaptedLayer, merged: nn.Parameter, delta_W: Tensor) -> None:
        """Refuse a forward to which a change of the weight is not that change of the output."""
        from subspace.training.methods import _lora_layers

        if layer.own_forward:
            _lora_layers.require_same_output(layer, merged, delta_W)

    def peft_tensors(self, layer: AdaptedLayer, adapter: str) -> dict[str, Tensor]:
        """Return A and B under PEFT's names; the pairs of several groups as one."""
        from subspace.training.methods import _lora_layers

        A, B = (value.detach() for value in layer.factors(adapter).values())
        if layer.layer_kind == "embedding":
            return {"lora_embedding_A": A, "lora_embedding_B": B}
        if self.groups and layer.layer_kind != "conv":
            B = _lora_layers.joined(layer, self, B)
        return {"lora_A.weight": A, "lora_B.weight": B}

    def peft_config(self, model: nn.Module, layers: Layers, common: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entries of PEFT's ``LoraConfig``; the rank is that of all groups together."""
        n = self.pairs
        return {
            "peft_type": "LORA",
            "r": self.r * n,
            # the scale is that of one group: alpha / r, or alpha / sqrt(r)
            "lora_alpha": self.alpha * (math.sqrt(n) if self.rslora else n),
            "use_rslora": self.rslora,
            "lora_dropout": self.dropout,
            "init_lora_weights": "gaussian" if self.init == "gaussian" else True,
            "bias": "none",
            **common,
        }


def _checked_groups(groups: Sequence[bool] | Sequence[str] | str) -> tuple[bool, ...] | tuple[str, ...]:
    """Groups by name in the order of q, k, v, or which of equal blocks are on."""
    found = tuple(groups.split(",") if isinstance(groups, str) else groups)
    names = [group for group in found if isinstance(group, str)]
    if not any(found):
        raise ValueRangeError("No group of the fused layer is adapted; turn on at least one in `groups`")
    if not names:
        return tuple(map(bool, found))
    if unknown := [group for group in found if group not in _GROUPS]:
        raise ValueRangeError(
            f"Unknown group '{shown(unknown[0])}' of a fused layer; give `groups` as some of {listed(_GROUPS)}, or as "
            "1,0,1 for its equal blocks"
        )
    return tuple(name for name in _GROUPS if name in names)


METHOD = LoRA
