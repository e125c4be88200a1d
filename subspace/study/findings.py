"""The claims of the paper's section 7 and what a study found; every number is computed, and so is every verdict."""

from __future__ import annotations

from subspace.study.budget_findings import best_budget, small_ranks
from subspace.study.claims_on_pairs import Contained, HigherInQ, SeedsAgree
from subspace.study.claims_on_weights import Amplifies, Correlated, NotEmphasised, NotTheTop
from subspace.study.finding import Finding
from subspace.study.measurements import Measures

__all__ = ["findings"]

_CLAIMS = (Contained(), HigherInQ(), SeedsAgree(), Correlated(), NotEmphasised(), Amplifies(), NotTheTop())


def findings(measures: Measures) -> tuple[Finding, ...]:
    """Return the findings in the paper's order; those on tables 5 and 6 only for a full study."""
    full = (small_ranks(measures), best_budget(measures)) if measures.plan.full else ()
    return (*(claim.found(measures) for claim in _CLAIMS), *full)
