"""Zero A: the usual start with its sides exchanged, B uniform and A zero.

References
----------
Hayou, Ghosh & Yu, The impact of initialization on LoRA finetuning dynamics, arXiv 2406.08447: their Init[B].
"""

from __future__ import annotations

from subspace.training.start import Factors, Start

__all__ = ["START"]


def _fill(at: Factors) -> None:
    bound = at.r**-0.5  # as kaiming has it for a matrix of r inputs
    at.B.uniform_(-bound, bound, generator=at.generator)


START = Start("zero-a", "zero A and uniform B", _fill)
