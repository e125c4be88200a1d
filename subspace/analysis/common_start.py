"""Whether two runs began from one random start, and what else makes two adapters alike that no one learned twice.

The evidence is that row k of both A's agrees for the same k, which learning gives no reason for; see
`subspace.geometry.row_alignment`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from subspace.adapters.update import LowRankUpdate
from subspace.analysis.duplicates import SAME_UPDATE
from subspace.flags import Flag
from subspace.geometry.row_alignment import Alignment, combined, start_verdict, whitened_alignment

if TYPE_CHECKING:
    from subspace.adapters import Update
    from subspace.geometry.agreement import Agreement
    from subspace.results.comparison_summary import Relation, Start, WholeUpdate

__all__ = ["alignment_of", "file_start", "is_suspicious", "relation_of", "start_flags"]

_NEAR_ONE = 0.9  # phi of A above which a start in common is worth a flag even where rows cannot show it
_AS_NEAR = 0.01  # B this close to A: the two adapters are one, whatever their start
_SAME_RUN = 0.9  # cosine of neighbouring checkpoints; two runs of one task from one start stay below


def alignment_of(pair: tuple[Update, Update], found: Mapping[tuple[str, str], Agreement]) -> Alignment | None:
    """Alignment of the rows of both A's; None where these were not trained as such."""
    a = found.get(("a", "kept"))
    trained = all(isinstance(u, LowRankUpdate) and Flag.COMPOSED not in u.flags for u in pair)
    if a is None or not trained or a.first.P is None or a.second.P is None or not a.phi.size:
        return None
    return whitened_alignment(a.first.P @ a.G @ a.second.P.T)


def file_start(alignments: Sequence[Alignment | None]) -> tuple[Start, float | None]:
    """Whether the two runs of all modules began from one start, and the evidence in standard deviations."""
    whole = combined([each for each in alignments if each is not None])
    return start_verdict(whole), whole.z


def is_suspicious(found: Mapping[tuple[str, str], Agreement]) -> bool:
    """Whether A agrees almost entirely and B does not, as a start or an input direction in common makes it."""
    a, b = found.get(("a", "kept")), found.get(("b", "kept"))
    if a is None or b is None or not a.phi.size or not b.phi.size:
        return False
    phi_a, phi_b = float(a.phi[-1, -1]), float(b.phi[-1, -1])
    narrow = max(a.phi.shape) / a.first.d <= _NEAR_ONE / 2
    return narrow and phi_a >= _NEAR_ONE and phi_b < phi_a - _AS_NEAR


def start_flags(alignment: Alignment | None, whole: Start, suspicious: bool) -> tuple[Flag, ...]:
    """The flag on the start of side a of one module, if any.

    Parameters
    ----------
    alignment : of the module
    whole : what is known of all modules together
    suspicious : see `is_suspicious`
    """
    if alignment is None:
        return ()
    verdict = start_verdict(alignment)
    if verdict == "common" or (whole == "common" and alignment.z > alignment.largest / 2):
        return (Flag.SHARED_START,)
    unknown = whole == "cannot_tell" and verdict == "cannot_tell"
    return (Flag.START_OR_INPUT,) if unknown and suspicious else ()


def relation_of(start: Start, whole: WholeUpdate | None) -> Relation | None:
    """What makes two adapters one, or two of one run; None where the numbers show nothing of that kind."""
    if whole is not None and whole.cosine >= SAME_UPDATE:
        return "same_adapter"
    if start != "common":
        return None
    return "same_run" if whole is not None and whole.cosine >= _SAME_RUN else "common_start"
