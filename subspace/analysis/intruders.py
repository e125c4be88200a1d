"""Which leading directions of W + delta_W does W not have? Intruder dimensions, arXiv 2410.21228.

A left singular vector of the merged weight, one of the k leading, is an intruder where its |cos| with every left
singular vector of W is below epsilon. Full fine-tuning hardly makes any; LoRA does once its update is large enough to
reach the leading directions. So the scale matters: a small update has no intruders whatever it has learned.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from subspace.adapters.place import place
from subspace.analysis.against_base import Against, Scope, against_base
from subspace.analysis.intruded_module import Asked, asked_for, row_without_numbers, rows_of
from subspace.analysis.resolve import Loading
from subspace.errors import InconclusiveError
from subspace.flags import Flag
from subspace.results.intrusion import Intruders, ModuleIntruders

__all__ = ["intruders"]


def intruders(
    base: Any,
    delta: Any,
    *,
    k: int = 10,
    epsilon: float = 0.5,
    side: str = "left",
    exact: bool | None = None,
    up_to: float = 64.0,
    scale: float | None = None,
    adapter_name: str | None = None,
    enable_lora: Sequence[bool] | None = None,
    layout: str | None = None,
    rename: Mapping[str, str] | None = None,
    modules: Sequence[str] = (),
    layers: Sequence[int] = (),
    jobs: int = 1,
    device: str = "cpu",
    resume: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Intruders:
    """Intruder dimensions of W + delta_W, with the scale at which the first one appears.

    Parameters
    ----------
    base : base weights, as `load_base` takes them
    delta : the adapter, as `load_adapter` takes it
    k : how many leading singular directions of W + delta_W are looked at
    epsilon : a direction is an intruder where its largest cosine with a singular vector of W is below; in (0, 1]
    side : "left" (outputs, as the authors), "right" (inputs) or "both"
    exact : whether W's singular value decomposition is computed; by default where its smaller side is at most 1024
    up_to : largest multiple of the adapter's scale at which the first intruder is looked for; 0 not to look
    scale, adapter_name, enable_lora, layout, rename : how the adapter is read, as `load_adapter` takes them
    modules, layers, jobs, device, resume : which modules are measured and how, as `Scope` takes them
    progress : called with (modules done, modules in all)

    Raises
    ------
    InconclusiveError : the base has no module of the adapter, or no module has numbers, such as without a scale
    ShapeError : a base weight does not have the shape of its update
    SubspaceError : a file cannot be read

    Notes
    -----
    Without W's decomposition the cosine with *any* of its singular vectors is bounded from above by the Christoffel
    function of a Lanczos recurrence, and from below by what is known: `max_cos` and `max_cos_least`. The maximum of
    that function is found on a grid: a bound in practice, not a proof.

    References
    ----------
    Shuttleworth et al., arXiv 2410.21228, definition 3.1 and algorithm 1. Benaych-Georges & Nadakuditi 2012, J.
    Multivariate Anal. 111:120, and arXiv 2607.23711 for the scale of the first intruder.

    Examples
    --------
    >>> import numpy as np
    >>> W, b = np.diag([4.0, 3.0, 2.0, 1.0]), np.full((4, 1), 0.5)
    >>> found = intruders(W, {"A": b.T, "B": 100 * b}, k=1, epsilon=0.6, scale=1.0, up_to=0)
    >>> found.modules[0].intruders, round(found.modules[0].max_cos[0], 2)
    (1, 0.51)
    """
    asked = asked_for(k=k, epsilon=epsilon, side=side, exact=exact, up_to=up_to)
    found = against_base(
        base,
        delta,
        partial(rows_of, asked=asked),
        without_numbers=partial(row_without_numbers, asked=asked, flag=Flag.NOT_FINITE),
        loading=Loading(None, scale, adapter_name, enable_lora, rename, layout),
        scope=Scope(modules, layers, jobs, device, resume),
        progress=progress,
    )
    return concluded(found, asked)


def concluded(found: Against[ModuleIntruders], asked: Asked) -> Intruders:
    """The result; an answer that does not exist is an error."""
    if not any(row.intruders is not None for row in found.rows):
        why = found.damage.notes() or _why_none(found)
        raise InconclusiveError(f"No module has a count of intruders: {'; '.join(why)}")
    return Intruders(
        base=found.base.path,
        delta=found.adapter.path,
        epsilon=asked.epsilon,
        k=asked.k,
        up_to=asked.up_to,
        modules=found.rows,
        missing=found.missing,
        notes=found.notes(),
    )


def _why_none(found: Against[ModuleIntruders]) -> tuple[str, ...]:
    if any(Flag.SCALE_UNKNOWN in row.flags for row in found.rows):
        return (
            f"the scale of delta_W is unknown, in {place(found.adapter.path)}; give `scale` (alpha / r, or alpha / "
            "sqrt(r) for rsLoRA)",
        )
    if any(Flag.OVERFLOW in row.flags for row in found.rows):
        return (
            f"delta_W is too large for its square, in {place(found.adapter.path)}; give a smaller `scale`",
        )
    return (
        f"the base weights are zero, in {place(found.base.path)}; give the model that the adapter was trained on",
    )
