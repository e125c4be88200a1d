"""What a start of LoRA is: how the A and B of one layer begin.

Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["Factors", "Start"]


@dataclass(frozen=True, eq=False)
class Factors:
    """A and B of one layer, still zero, and what a start may make them of.

    Attributes
    ----------
    kind : of the layer, as `kind_of` has it
    A, B : zero, in float32 on the CPU, in the shapes that the layer's kind and groups give them
    r, scale : of the method
    generator : of random numbers, on the CPU; its seed depends on the method's seed, the module and r
    rows : number of rows of each group of the layer
    weights : returns the weight of each group, (rows, columns) in float32 at least
    """

    kind: str
    A: Tensor
    B: Tensor
    r: int
    scale: float
    generator: Generator
    rows: Sequence[int]
    weights: Callable[[], list[Tensor]]

    @property
    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """A (r, columns) and B (rows, r) of each group as matrices: views, to be filled in place."""
        A, B = self.A.flatten(1).split(self.r), self.B.flatten(1).split(list(self.rows))
        return list(zip(A, B, strict=True))


@dataclass(frozen=True)
class Start:
    """How A and B begin.

    Attributes
    ----------
    name : on the command line and in records
    about : how they begin, as a phrase for the help
    fill : puts the start into the A and B of a `Factors`
    of_weight : whether ``B A`` is not zero at the start and is taken off the weight: ``delta_W`` is what A and B make
        less what they made at the start
    """

    name: str
    about: str
    fill: Callable[[Factors], None]
    of_weight: bool = False
