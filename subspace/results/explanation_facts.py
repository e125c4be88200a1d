"""What `explain` found, in sentences, and what it cannot say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING

from subspace.flags import Flag
from subspace.text import counted, listed, shown

if TYPE_CHECKING:
    from subspace.results.explanation import DirectionExplanation, Explanation

__all__ = ["facts", "limits", "without_numbers"]

_WITH = {
    "constant_share": ("constant_isotropic", "output_share"),
    "mean_share": ("mean_isotropic",),
    "input_share": ("input_isotropic",),
    "W_share": ("W_isotropic",),
    "gradient_share": ("gradient_isotropic",),
    "head": ("head_share", "head_isotropic"),
    "token_p": ("token", "token_p_modules"),
    "token_p_modules": (),
}  # columns, with those that are nothing without them
_LEVEL = 0.05  # of the shares of heads, of which each module is a test of its own


def facts(found: Explanation) -> Iterator[str]:
    """The sentences; the first is the headline."""
    rows = [row for row in found.modules if row.k == 1]
    if not rows:
        yield "No module has a direction."
        return
    yield _first(rows)
    shares = [part for part in (_share(rows, *each) for each in _SHARES) if part]
    if shares:
        yield f"The leading direction lies to {'; '.join(shares)}{' (medians)' if len(rows) > 1 else ''}."
    yield from _heads(found)
    yield from _tokens(found)


_SHARES = (
    ("input", "the {m} leading directions of the inputs"),
    ("W", "the {m} leading right singular vectors of W"),
    ("gradient", "the {m} leading directions of the first gradient"),
)


def without_numbers(rows: Sequence[DirectionExplanation]) -> set[str]:
    """The columns that no row has, as what they need was not given."""
    empty = {name for name in _WITH if all(getattr(row, name) is None for row in rows)}
    return empty | {other for name in empty for other in _WITH[name]}


def _first(rows: Sequence[DirectionExplanation]) -> str:
    who = "The leading direction" + (" of the median module" if len(rows) > 1 else "")
    known = [row for row in rows if row.mean_share is not None and row.constant_share is not None]
    if not known:
        energy = median(row.energy_share or 0.0 for row in rows)
        return f"{who} holds {_percent(energy)} of ||delta_W||^2."
    mean, chance, constant, isotropic = (
        _middle(known, name)
        for name in ("mean_share", "mean_isotropic", "constant_share", "constant_isotropic")
    )
    control = _middle(known, "mean_control")
    kind = _control(known)
    return (
        f"{who} lies to {_percent(mean)} in the mean of its inputs (isotropic chance {_percent(chance)}, {kind} "
        f"{_percent(control)}); a constant shift is {_percent(constant)} of what it adds (isotropic chance "
        f"{_percent(isotropic)})."
    )


def _share(rows: Sequence[DirectionExplanation], name: str, where: str) -> str:
    known = [row for row in rows if getattr(row, f"{name}_share") is not None]
    if not known:
        return ""
    share, chance, control = (_middle(known, f"{name}_{part}") for part in ("share", "isotropic", "control"))
    sizes = sorted({getattr(row, f"{name}_leading") for row in known})
    m = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    return (
        f"{_percent(share)} in {where.format(m=m)} (isotropic chance {_percent(chance)}, {_control(known)} "
        f"{_percent(control)})"
    )


def _control(rows: Sequence[DirectionExplanation]) -> str:
    kinds = {row.control for row in rows}
    return (
        "trailing directions"
        if kinds == {"trailing"}
        else "random directions"
        if len(kinds) == 1
        else "controls"
    )


def _middle(rows: Iterable[DirectionExplanation], name: str) -> float:
    values = [getattr(row, name) for row in rows if getattr(row, name) is not None]
    return median(values) if values else 0.0


def _percent(share: float) -> str:
    """A share in percent, with two digits."""
    percent = 100 * share
    return f"{percent:.0f} %" if percent >= 9.95 else f"{percent:.2g} %"


def _heads(found: Explanation) -> Iterator[str]:
    if not found.heads:
        return
    above = [each for each in found.heads if each.largest_p <= _LEVEL]
    most = max(found.heads, key=lambda each: max(each.share) / each.largest_isotropic)
    share = max(most.share)
    name = most.names[most.share.index(share)]
    yield (
        f"In {len(above)} of {counted(len(found.heads), 'module')} of attention one head holds more of ||delta_W||^2 "
        f"than in isotropic updates ({_LEVEL * len(found.heads):.2g} expected at p <= {_LEVEL:g}); farthest above "
        f"them is head {name} of {shown(most.module)} with {_percent(share)} (isotropic "
        f"{_percent(most.largest_isotropic)})."
    )


def _tokens(found: Explanation) -> Iterator[str]:
    tested = [row for row in found.modules if row.token_p is not None]
    if not tested:
        return
    out = [row for row in tested if row.tokens]
    expected = f"{found.level * len(tested):.2g} expected at p <= {found.level:g}"
    where = counted(len(tested), "direction")
    if not out:
        yield f"No token stands out in any of {where} ({expected}; p is at least {1 / (found.draws + 1):.2g})."
        return
    best = min(out, key=lambda row: (row.token_p_modules or 0.0, -abs(row.token_score or 0.0)))
    names = listed(each.token for each in best.tokens)
    yield (
        f"A token stands out in {len(out)} of {where} ({expected}; p is at least {1 / (found.draws + 1):.2g})"
        f"{_beyond_others(out, found.level)}; the most in direction {best.k} of {shown(best.module)}, which "
        f"{_verb(best)} {names}."
    )


def _beyond_others(rows: Sequence[DirectionExplanation], level: float) -> str:
    """In how many of the directions a token stands out from the directions of other layers too."""
    known = [row.token_p_modules for row in rows if row.token_p_modules is not None]
    return (
        f", in {sum(p <= level for p in known)} of these from other layers' directions too" if known else ""
    )


def _verb(row: DirectionExplanation) -> str:
    return "reads" if row.read_as == "input" else "writes"


def limits(found: Explanation, *, tied: bool = False) -> tuple[str, ...]:
    """What the numbers cannot say, a sentence each.

    Parameters
    ----------
    tied : whether tokens are compared with one matrix that is both embedding and unembedding
    """
    rows = [row for row in found.modules if row.k]
    out = []
    if found.inputs is None:
        out.append(
            "Weights alone do not say what a module is given: how much of a direction is its mean input, and what it "
            "adds to the output, takes `inputs`."
        )
    else:
        out.append(
            f"The inputs are those of the base model on {shown(found.inputs['data'])}, and may differ from what the "
            "adapter saw in training and meets behind other adapted layers."
        )
    if any(row.token_p is not None for row in rows):
        out.append(
            "Tokens are compared with the embedding alone: behind the first layer a module is given more than that, "
            "and positions count nowhere."
        )
    if tied:
        out.append(
            "Embedding and unembedding are one matrix here, so that which tokens are read and which are written is "
            "told apart by the side of the module alone."
        )
    refused = list(dict.fromkeys(row.without_tokens for row in rows if row.without_tokens))
    if refused:
        count = len({row.module for row in rows if row.without_tokens})
        out.append(f"Of {counted(count, 'module')} no token is named: {'; '.join(refused)}.")
    if not found.heads and _has_attention(rows):
        out.append(
            "Nothing is said of attention heads: their number takes `heads`, or the config.json of the `base`."
        )
    if any(Flag.DORA in row.flags for row in rows):
        out.append("Of DoRA the directions are those of B A alone, without its magnitudes.")
    return tuple(out)


def _has_attention(rows: Iterable[DirectionExplanation]) -> bool:
    return any("att" in row.module for row in rows)
