"""How a model is adapted: LoRA, and two comparators in the same loop, IA3 and full fine-tuning."""

from __future__ import annotations

import hashlib
import math
import operator
from dataclasses import dataclass

from subspace.errors import ValueRangeError
from subspace.text import shown

__all__ = ["IA3", "Full", "LoRA", "Method", "start_seed"]

_MOST = 3e38
_STARTS = ("kaiming", "gaussian")


@dataclass(frozen=True)
class LoRA:
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
            raise ValueRangeError(f"a rank must be at least 1: got {self.r}")
        if not abs(self.alpha) < _MOST:
            raise ValueRangeError(f"alpha must be a finite number in float32: got {self.alpha}")
        if not 0 <= self.dropout < 1:
            raise ValueRangeError(f"a dropout must be in [0, 1): got {self.dropout}")
        if self.init not in _STARTS:
            raise ValueRangeError(
                f"a start must be one of {', '.join(_STARTS)}: got {shown(self.init)}; choose one"
            )
        if self.groups is not None and not any(self.groups):
            raise ValueRangeError("at least one group of a fused layer must be adapted: got none")

    @property
    def scale(self) -> float:
        """``alpha / r``, or ``alpha / sqrt(r)`` for rsLoRA."""
        return self.alpha / (math.sqrt(self.r) if self.rslora else self.r)


@dataclass(frozen=True)
class IA3:
    """Learned factors, one for every output of a target, or for every input of a feedforward one; they start at 1.

    Attributes
    ----------
    feedforward : patterns of the targets whose inputs are rescaled

    References
    ----------
    Liu et al., arXiv 2205.05638, section 3.3; peft/tuners/ia3/layer.py.
    """

    feedforward: tuple[str, ...] = ()


@dataclass(frozen=True)
class Full:
    """Full fine-tuning: the weights themselves are trained.

    Attributes
    ----------
    everything : train every parameter of the model; else the weights of the targets alone
    """

    everything: bool = True


Method = LoRA | IA3 | Full


def start_seed(seed: int, module: str, r: int) -> int:
    """Seed of one module's start, in [0, 2**63): another for every (seed, module, r).

    Were it the same for every rank, r = 8 would start from the first rows of r = 64, and two adapters would agree for
    that reason alone.

    Examples
    --------
    >>> start_seed(0, "q_proj", 8) == start_seed(0, "q_proj", 64)
    False
    """
    digest = hashlib.sha256(f"{seed}\0{module}\0{r}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
