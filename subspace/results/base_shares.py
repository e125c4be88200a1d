"""What a pass over the base weights finds for `explain`; here, since a file of earlier results holds it."""

from __future__ import annotations

from dataclasses import dataclass

from subspace.flags import Flag

__all__ = ["BaseShares"]


@dataclass(frozen=True)
class BaseShares:
    """Shares of the leading directions of one module in W's leading ones, of which there are m; flags where none."""

    module: str
    shares: tuple[float, ...] = ()
    control: float | None = None
    m: int = 0
    flags: tuple[Flag, ...] = ()
