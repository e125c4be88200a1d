"""What the numbers of a result stand next to: isotropic random spans, and controls."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ISOTROPIC", "Control"]

ISOTROPIC = "isotropic"


class Control(NamedTuple):
    """Mean over pairs of modules that differ from the compared one in their job only.

    Attributes
    ----------
    kind : "same_input", pairs of modules that read the same input; "layers", of the same kind in other layers
    pairs : how many pairs
    phi_11, phi_full : mean similarity of leading directions and of whole spans
    shared_dim : mean number of directions beyond isotropic random spans, each pair at the level over the number of
        modules; None where nothing could be tested
    """

    kind: str
    pairs: int
    phi_11: float
    phi_full: float
    shared_dim: float | None
