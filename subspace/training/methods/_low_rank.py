"""What LoRA and its relatives share: the settings of A and B, their start, and how they are saved."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from subspace.errors import ValueRangeError
from subspace.training import peft_fields, starts
from subspace.training.method import Layers, Method, Option

if TYPE_CHECKING:
    from torch import Tensor, nn
    from typing_extensions import Self

    from subspace.checkpoints.fused_layouts import Ranges
    from subspace.training.adapted_layer import AdaptedLayer

__all__ = ["LowRank"]

_MOST = 3e38
_STARTS = starts.every()
_PARTS = {"a": "lora_A", "b": "lora_B"}
_BEGUN = ("lora_A_start", "lora_B_start")


@dataclass(frozen=True)
class LowRank(Method):
    """A pair A and B in every target, ``scale * B A`` of which changes its weight.

    Attributes
    ----------
    r : rank, at least 1
    alpha : ``scale = alpha / r``, or ``alpha / sqrt(r)`` with `rslora`
    rslora : the rank-stabilised scale of Kalajdzievski, arXiv 2312.03732
    dropout : probability in [0, 1) that an input of A is left out, in training
    init : how A and B start; one of the files of `subspace.training.starts`
    seed : of the start; see `start_seed`
    freeze : "a" or "b" keeps that factor at its start and trains the other alone, as Zhu et al., arXiv 2402.16842, do
        with A
    lr_ratio : the learning rate of B as a multiple of that of A, above 0; LoRA+ of Hayou et al., arXiv 2402.12354
    """

    lr = 2e-3
    parts = (*_PARTS.values(), *_BEGUN)
    keeps_start = True
    stored: ClassVar[Mapping[str, str]] = {
        "lora_A.weight": "lora_A",
        "lora_B.weight": "lora_B",
        "lora_embedding_A": "lora_A",
        "lora_embedding_B": "lora_B",
    }
    options: ClassVar[tuple[Option, ...]] = (
        Option("--rank", "r", "LoRA rank r.", least=1),
        Option("--alpha", "alpha", "LoRA alpha: delta_W = alpha / r * B A."),
        Option("--rslora", "rslora", "Rank-stabilised scale: alpha / sqrt(r) in place of alpha / r.", "flag"),
        Option(
            "--dropout", "dropout", "Probability that an input of A is dropped in training.", least=0, below=1
        ),
        Option(
            "--init",
            "init",
            f"How A and B start. {'; '.join(f'{name}: {start.about}' for name, start in _STARTS.items())}.",
            "choice",
            tuple(_STARTS),
        ),
        Option(
            "--freeze",
            "freeze",
            "Keep A or B at its start and train the other alone.",
            "choice",
            tuple(_PARTS),
        ),
        Option(
            "--lr-ratio",
            "lr_ratio",
            "LoRA+: learning rate of B as a multiple of that of A.",
            least=0,
        ),
    )

    r: int = 8
    alpha: float = 16.0
    rslora: bool = False
    dropout: float = 0.0
    init: str = "kaiming"
    seed: int = 0
    # None where they are not given: a run that was begun before there was such a setting goes on
    freeze: str | None = field(default=None, kw_only=True)
    lr_ratio: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("r", "seed"):  # a NumPy integer is one too, and JSON has none
            object.__setattr__(self, name, operator.index(getattr(self, name)))
        if self.r < 1:
            raise ValueRangeError(f"Rank {self.r} is too small: a rank must be at least 1")
        super().__post_init__()
        if not 0 < abs(self.alpha) < _MOST:
            raise ValueRangeError(
                f"Invalid `alpha` {self.alpha}: it must be a finite number in float32, other than 0"
            )
        self._require_sensible()

    def _require_sensible(self) -> None:
        """Refuse settings that undo one another."""
        if self.lr_ratio == 0:
            raise ValueRangeError(
                "With `lr_ratio` 0 B is never trained; to keep it at its start, give `freeze` b"
            )
        if self.lr_ratio is not None and self.freeze:
            raise ValueRangeError(
                f"`lr_ratio` compares the rates of A and B, and `freeze` {self.freeze} trains only one of them; leave "
                "one of the two out"
            )
        if self.of_weight and self.dropout:
            raise ValueRangeError(
                f"With `init` {self.init}, dropout would drop parts of the weight itself; leave `dropout` at 0, or "
                "give another `init`"
            )

    @property
    def scale(self) -> float:
        """``alpha / r``, or ``alpha / sqrt(r)`` for rsLoRA."""
        return self.alpha / (math.sqrt(self.r) if self.rslora else self.r)

    @property
    def groups(self) -> tuple[bool, ...] | tuple[str, ...] | None:
        """Which groups of rows of a fused layer have a pair of their own; None: the layer is one."""
        return None

    @property
    def rows(self) -> tuple[Ranges, ...] | None:
        """The ranges of rows of each group in one layer; None: all rows."""
        return None

    @property
    def pairs(self) -> int:
        """Number of pairs of A and B in one layer: one per adapted group."""
        return 1 if self.groups is None else sum(map(bool, self.groups))

    @property
    def of_weight(self) -> bool:
        """Whether the start is a part of the weight, which ``delta_W`` is less."""
        return _STARTS[self.init].of_weight

    @property
    def fixed(self) -> tuple[str, ...]:
        """The factor that is not trained, and the start that is taken off the weight."""
        return (*((_PARTS[self.freeze],) if self.freeze else ()), *_BEGUN)

    @property
    def notes(self) -> tuple[str, ...]:
        """That the saved rank is twice the trained one and the start is no random one, where it is so."""
        if not self.of_weight:
            return ()
        return (
            f"the adapter is saved with rank {2 * self.r}, twice the r = {self.r} that is trained, so that it holds "
            f"the change since the start {self.init} and applies to the unchanged base",
            f"the start {self.init} is a part of the weight, so that runs of all seeds share it",
        )

    def rate(self, part: str) -> float:
        """Return `lr_ratio` for B, 1 for others."""
        return self.lr_ratio if self.lr_ratio is not None and part == _PARTS["b"] else 1.0

    @classmethod
    def from_options(cls, given: Mapping[str, Any], *, seed: int, targets: Sequence[str]) -> Self:
        """Return the method with the settings that were given and the run's seed."""
        return cls(seed=seed, **given)

    def start(self, layer: nn.Module, module: str) -> dict[str, Tensor]:
        """Return A and B at the start, a function of the seed, the module's name, r and, for some, the weight."""
        from subspace.training.methods import _lora_layers

        A, B = _lora_layers.start(layer, module, self, _STARTS[self.init])
        fixed = {"a": A, "b": B}.get(self.freeze or "")
        if fixed is not None and not fixed.any():
            name = str(self.freeze).upper()
            raise ValueRangeError(
                f"{name} is zero at the start {self.init} and is to stay so, which leaves nothing to train; give an "
                f"`init` that begins with another {name}, or another `freeze`"
            )
        begun = dict(zip(_BEGUN, (A.clone(), B.clone()), strict=True)) if self.of_weight else {}
        return {"lora_A": A, "lora_B": B, **begun}

    def tensors(self, layer: AdaptedLayer, adapter: str) -> dict[str, Tensor]:
        """Return A and B whose product is the change of the layer's own weight: of twice the rank with some starts."""
        from subspace.training.methods import _lora_layers

        held = layer.factors(adapter)
        if not self.of_weight:
            return held
        A, B, A_0, B_0 = (held.pop(part) for part in LowRank.parts)
        return {**_lora_layers.less_start(A, B, A_0, B_0), **held}

    def require_mergeable(self, layer: AdaptedLayer, merged: nn.Parameter, delta_W: Tensor) -> None:
        """Refuse a forward to which a change of the weight is not that change of the output."""
        from subspace.training.methods import _lora_layers

        if layer.own_forward:
            _lora_layers.require_same_output(layer, merged, delta_W)

    def peft_tensors(self, layer: AdaptedLayer, adapter: str) -> dict[str, Tensor]:
        """Return A and B under PEFT's names; the pairs of several groups as one."""
        from subspace.training.methods import _group_rows

        A, B = (self.tensors(layer, adapter)[part].detach() for part in _PARTS.values())
        if layer.layer_kind == "embedding":
            return {"lora_embedding_A": A, "lora_embedding_B": B}
        if self.groups and layer.layer_kind != "conv":
            B = _group_rows.joined(layer, self, B)
        return {"lora_A.weight": A, "lora_B.weight": B}

    def peft_config(self, model: nn.Module, layers: Layers, common: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entries of PEFT's ``LoraConfig``; the rank is that of all groups together, with their start."""
        n = self.pairs * (2 if self.of_weight else 1)
        return {
            "peft_type": "LORA",
            "r": self.r * n,
            # the scale is that of one group: alpha / r, or alpha / sqrt(r)
            "lora_alpha": self.alpha * (math.sqrt(n) if self.rslora else n),
            "use_rslora": self.rslora,
            "lora_dropout": self.dropout,
            # other starts mean nothing to a reader, and some would change the base of one who loads this
            "init_lora_weights": "gaussian" if self.init == "gaussian" else True,
            "bias": "none",
            **common,
            **peft_fields.patterns({name: layer.methods[layer.active or ""] for name, layer in layers}, self),
        }

    @classmethod
    def is_in(cls, config: Mapping[str, Any]) -> bool:
        """Return whether a configuration is of LoRA, as one that states no type is, and not of DoRA."""
        return config.get("peft_type") in ("LORA", None) and not config.get("use_dora")

    @classmethod
    def from_peft(cls, config: Mapping[str, Any], module: str, stored: Mapping[str, Tensor]) -> Self:
        """Return the method with the rank of the stored factors and the module's alpha."""
        peft_fields.require_plain(config)
        return cls(
            r=int(stored["lora_A"].shape[0]),
            alpha=peft_fields.alpha_of(config, module),
            rslora=bool(config.get("use_rslora")),
            dropout=peft_fields.number(config, "lora_dropout", 0.0),
            init="gaussian" if config.get("init_lora_weights") == "gaussian" else "kaiming",
        )
