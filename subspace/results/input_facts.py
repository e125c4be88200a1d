"""What a comparison with inputs found, for people: how much of phi those explain, and how alike the outputs are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING

from subspace.text import counted

if TYPE_CHECKING:
    from subspace.results.comparison import Comparison
    from subspace.results.module_comparison import ModuleComparison

__all__ = ["explained", "output_fact"]

_LEVEL = 0.05  # of the sign flips, of which each module is a test of its own


def explained(rows: Sequence[ModuleComparison], level: float) -> Iterator[str]:
    """Facts on one side of a comparison: how much of phi the inputs alone give, and what is left beyond them."""
    known = [row for row in rows if row.phi_full_inputs is not None]
    if not known:
        return
    phi, inputs, isotropic = (
        median(values)
        for values in (
            [row.phi_full for row in known],
            [row.phi_full_inputs or 0.0 for row in known],
            [row.chance_full for row in known],
        )
    )
    yield (
        f"of phi(r, r') {phi:.2g} the inputs alone give {inputs:.2g} (isotropic: {isotropic:.2g}"
        f"{', medians' if len(known) > 1 else ''})"
    )
    counts = Counter(row.shared_dim_inputs for row in known if row.shared_dim_inputs is not None)
    if counts:
        some = [(n, counts[n]) for n in sorted(counts, reverse=True) if n]
        shares = [f"{counted(n, 'direction')} in {counted(times, 'module')}" for n, times in some]
        total = sum(counts.values())
        left = f"no direction in {counted(counts[0], 'module')}"
        parts = [*shares, *([left] if counts[0] else [])]
        what = ", ".join(parts) if some else f"no direction in any of {counted(total, 'module')}"
        yield f"beyond the inputs {what} shared (whitened, level {level:.3g}, Holm over modules)"
    flipped = [row for row in known if row.signs_p is not None]
    low = sum(row.signs_p is not None and row.signs_p <= _LEVEL for row in flipped)
    yield f"random signs are not as near in {low} of {counted(len(flipped), 'module')} (p <= {_LEVEL:g})"


def output_fact(comparison: Comparison) -> str:
    """How alike the outputs of the two updates are on the inputs; empty without inputs."""
    known = {
        row.module: row.cosine_functional
        for row in comparison.modules
        if row.init == "kept" and row.cosine_functional is not None
    }
    if not known or comparison.inputs is None:
        return ""
    whole = comparison.whole.cosine_functional if comparison.whole is not None else None
    middle = median(known.values())
    parts = [] if whole is None else [_short(whole)]
    parts += [f"{_short(middle)} in the median module"] if len(known) > 1 or whole is None else []
    changes = _shares(comparison)
    return f"On the inputs the outputs of the two updates have the cosine {', '.join(parts)}{changes}."


def _shares(comparison: Comparison) -> str:
    """How large the changes of the output are beside W's own output, where the base is known."""
    rows = {row.module: row for row in comparison.modules if row.init == "kept"}.values()
    first = [row.output_share_first for row in rows if row.output_share_first is not None]
    second = [row.output_share_second for row in rows if row.output_share_second is not None]
    if not first or not second:
        return ""
    shares = " and ".join(f"{100 * median(each):.2g} %" for each in (first, second))
    return f"; the changes are {shares} of the output of W (medians)"


def _short(value: float) -> str:
    return f"{value:.2f}".replace("-0.00", "0.00")
