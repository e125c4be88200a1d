"""Section 7 of the LoRA paper as a study: what is trained, what is measured, and what that says of its claims.

Importing this package imports no torch, SciPy or matplotlib.
"""

from subspace.study.finding import Finding
from subspace.study.plan import Plan, planned
from subspace.study.runs import Run

__all__ = ["Finding", "Plan", "Run", "planned"]


def __dir__() -> list[str]:
    return list(__all__)
