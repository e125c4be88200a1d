"""LoRA: a low-rank update of every target."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from subspace.errors import ValueRangeError
from subspace.text import shown
from subspace.training import peft_fields
from subspace.training.method import Layers, Method, Option

if TYPE_CHECKING:
    from torch import Tensor, nn

    from subspace.training.adapted_layer import AdaptedLayer

__all__ = ["METHOD", "LoRA"]

_MOST = 3e38
_STARTS = ("kaiming", "gaussian")


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
    groups : which of the equal groups of rows of a fused layer are adapted, each by a pair of its own (loralib's
        ``enable_lora``): (True, False, True) for q and v of a fused q, k, v. None: the layer is one.

    References
    ----------
    Hu et al., arXiv 2106.09685v2, section 4.1.
    """

    name = "lora"
    about = "low-rank updates of the targets"
    lr = 2e-3
    parts = ("lora_A", "lora_B")
    formats = ("peft", "loralib")
    stored: ClassVar[Mapping[str, str]] = {
        "lora_A.weight": "lora_A",
        "lora_B.weight": "lora_B",
        "lora_embedding_A": "lora_A",
        "lora_embedding_B": "lora_B",
    }
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
            "Groups of rows of a fused layer that are adapted, each with its own A and B; 1,0,1 is q and v of a "
            "fused q, k, v.",
            "groups",
        ),
    )

    r: int = 8
    alpha: float = 16.0
    rslora: bool = False
    dropout: float = 0.0
    init: str = "kaiming"
    seed: int = 0
    groups: tuple[bool, ...] | None = None

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
        if self.groups is not None and not any(self.groups):
            raise ValueRangeError("No group of the fused layer is adapted; turn on at least one in `groups`")

    @property
    def scale(self) -> float:
        """``alpha / r``, or ``alpha / sqrt(r)`` for rsLoRA."""
        return self.alpha / (math.sqrt(self.r) if self.rslora else self.r)

    @classmethod
    def from_options(cls, given: Mapping[str, Any], *, seed: int, targets: Sequence[str]) -> LoRA:
        """Return LoRA with the settings that were given and the run's seed."""
        return cls(seed=seed, **given)

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
        n = sum(self.groups) if self.groups else 1
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
            **peft_fields.patterns({name: layer.methods[layer.active or ""] for name, layer in layers}, self),
        }

    @classmethod
    def is_in(cls, config: Mapping[str, Any]) -> bool:
        """Return whether a configuration is of LoRA, as one that states no type is."""
        return config.get("peft_type") in ("LORA", None)

    @classmethod
    def from_peft(cls, config: Mapping[str, Any], module: str, stored: Mapping[str, Tensor]) -> LoRA:
        """Return LoRA with the rank of the stored factors and the alpha that the configuration has for the module."""
        peft_fields.require_plain(config)
        return cls(
            r=int(stored["lora_A"].shape[0]),
            alpha=peft_fields.alpha_of(config, module),
            rslora=bool(config.get("use_rslora")),
            dropout=peft_fields.number(config, "lora_dropout", 0.0),
            init="gaussian" if config.get("init_lora_weights") == "gaussian" else "kaiming",
        )


METHOD = LoRA
