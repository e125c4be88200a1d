"""A pair of tensors that holds the updates of all experts of a layer, as PEFT's ``target_parameters`` stores them.

``ParamWrapper`` (peft/tuners/lora/layer.py, 0.21) keeps ``A`` as (experts * r, d_in), the rows of an expert together,
and ``B`` as (d_out, r * experts), the columns of an expert ``experts`` apart.
"""

from __future__ import annotations

from dataclasses import replace

from subspace.adapters.update import LowRankUpdate
from subspace.flags import Flag

__all__ = ["by_expert"]


def by_expert(update: LowRankUpdate, experts: int) -> list[LowRankUpdate]:
    """The update of each expert, named ``module[0]``, ``module[1]``, ..."""
    r = update.r // experts
    return [
        replace(
            update,
            module=f"{update.module}[{n}]",
            A_factor=update.A_factor.rows(n * r, (n + 1) * r),
            B_factor=update.B_factor.every(experts, n),
            flags=(*update.flags, Flag.EXPERT),
        )
        for n in range(experts)
    ]
