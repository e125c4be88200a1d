"""What to expect of a sum of adapters, as sentences: how their updates meet, and what that foretells."""

from __future__ import annotations

from subspace.results.forecast import Forecast, ModuleForecast
from subspace.results.forecast_reliability import COMMAND, Reliability, reliabilities
from subspace.text import counted

__all__ = ["expectation"]

_ALIKE = 1.05  # norm ratio
_NEAR = 3.0  # standard deviations of isotropic directions within which two numbers are the same


# what is quoted of each number, by its name in the study
_QUOTED = (
    "outputs",
    "norms",
    "cosine",
    "energy_ratio",
    "overlap_left",
    "overlap_right",
    "sti",
    "cosine_functional",
)
_SHORT = {
    "agrees": "foretells it",
    "agrees in part": "no better than the norms",
    "holds, but so does noise": "no better than noise",
    "differs": "fails",
}


def expectation(forecast: Forecast) -> tuple[str, ...]:
    """Return a sentence on the energy of the sum, one on the overlap, and one on what such numbers have foretold."""
    total = forecast.total
    met = counted(sum(row.adapters > 1 for row in forecast.modules), "module")
    sentences = [_energy(total, met), _outputs(total), _overlap(total), _sti(total), _trust(total)]
    return tuple(each for each in sentences if each)


def _energy(total: ModuleForecast, met: str) -> str:
    if total.cosine is None or total.energy_ratio is None:
        return ""
    by_chance = "" if total.cosine_sd is None else f" (isotropic: 0 +- {total.cosine_sd:.2g})"
    return (
        f"Before merging: in {met} the weighted updates {_meeting(total)}: cosine {total.cosine:.2g}{by_chance}, "
        f"energy of the sum {total.energy_ratio:.3g} times the sum of their energies{_norms(total.norm_ratio)}."
    )


def _meeting(total: ModuleForecast) -> str:
    off = (total.energy_ratio or 0.0) - 1
    if abs(off) <= _NEAR * (total.energy_ratio_sd or 0.0):
        return "are as good as orthogonal"
    return "reinforce each other" if off > 0 else "cancel in part"


def _norms(ratio: float | None) -> str:
    if ratio is None:
        return ""
    return (
        "; their norms are alike"
        if ratio < _ALIKE
        else f"; the largest norm is {ratio:.2g} times the smallest"
    )


def _outputs(total: ModuleForecast) -> str:
    if total.cosine_functional is None:
        return ""
    sizes = (
        ""
        if total.output_ratio is None
        else f", and the largest is {total.output_ratio:.2g} times the smallest"
    )
    return f"On the measured inputs their outputs have the cosine {total.cosine_functional:.2g}{sizes}."


def _overlap(total: ModuleForecast) -> str:
    sides = []
    for name, value, control, chance in (
        ("write", total.overlap_left, total.overlap_left_control, total.overlap_left_chance),
        ("read", total.overlap_right, total.overlap_right_control, total.overlap_right_chance),
    ):
        if value is None:
            continue
        beside = (
            f"matched controls {control:.2g}" if control is not None else f"isotropic {chance or 0.0:.2g}"
        )
        sides.append(f"{name} overlap by {value:.2g} ({beside})")
    return f"The directions that they {' and those that they '.join(sides)}." if sides else ""


def _sti(total: ModuleForecast) -> str:
    if total.sti is None or not total.sti_random:
        return ""
    return (
        f"Their singular task interference (arXiv 2412.00081, sum of absolute entries) is {total.sti:.3g}, of "
        f"isotropic directions of the same strength {total.sti_random:.3g}."
    )


def _trust(total: ModuleForecast) -> str:
    """What the study of merging found of these numbers; nothing where its figures are not there."""
    try:
        known = {each.predictor: each for each in reliabilities("harm")}
    except FileNotFoundError:
        return ""
    quoted = [name for name in _QUOTED if name in known]
    if total.cosine_functional is None:
        quoted = [name for name in quoted if name != "cosine_functional"]
    words = [_quoted(known[name], measured=total.cosine_functional is not None) for name in quoted]
    return (
        f"How well such numbers foretold the rise of a task's loss by a merge, on small tasks ({COMMAND}; rank "
        f"correlation, and verdict for a task left out): {', '.join(words)}."
    )


def _quoted(found: Reliability, *, measured: bool) -> str:
    """One number and how well it did; `measured` is whether there are inputs of the modules."""
    verdict = _SHORT.get(found.verdict, found.verdict)
    if found.predictor == "norms" and found.verdict == "agrees in part":
        verdict = "not for every task"
    needs = ", which measured inputs add," if found.predictor == "outputs" and not measured else ""
    return f"{found.label}{needs} {found.spearman:+.2f} ({verdict})"
