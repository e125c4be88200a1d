"""Seeds of random numbers as functions of what they are for, so that nothing depends on the order of draws."""

from __future__ import annotations

import hashlib

__all__ = ["start_seed"]


def start_seed(seed: int, module: str, r: int) -> int:
    """Return the seed of one module's start, in [0, 2**63): another for every (seed, module, r).

    Parameters
    ----------
    seed : of the run
    module : name of the module
    r : rank

    Notes
    -----
    Were it the same for every rank, r = 8 would start from the first rows of r = 64, and two adapters would agree for
    that reason alone.

    Examples
    --------
    >>> start_seed(0, "q_proj", 8) == start_seed(0, "q_proj", 64)
    False
    """
    digest = hashlib.sha256(f"{seed}\0{module}\0{r}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
