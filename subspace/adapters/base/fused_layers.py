"""Fused layers of a base, with q, k and v (or gate and up) in one weight, for adapters that have them apart.

Only layers whose parts lie one after the other are split; where heads are interleaved (``query_key_value`` of GPT-NeoX,
BLOOM and Falcon, the layers of CodeGen) no range of rows is q.
"""

from __future__ import annotations

from collections.abc import Callable

from subspace.adapters.naming.modules import Modules
from subspace.checkpoints.fused_layouts import may_interleave
from subspace.errors import FormatError
from subspace.text import shown

__all__ = ["host", "part_rows"]

_PARTS = {
    part: (n, 3)
    for names in ("q_proj k_proj v_proj", "query key value", "q k v", "to_q to_k to_v", "q_lin k_lin v_lin")
    for n, part in enumerate(names.split())
} | {"gate_proj": (0, 2), "up_proj": (1, 2)}
_HOSTS = {
    3: ("qkv_proj", "c_attn", "Wqkv", "qkv", "to_qkv", "in_proj_weight", "query_key_value"),
    2: ("gate_up_proj",),
}
_BY_SIZES = {"qkv_proj", "Wqkv"}
_INTERLEAVED_NAMES = {"query_key_value"}


def host(module: str, modules: Modules) -> str | None:
    """The fused layer of the base that holds a module, None if there is none.

    Examples
    --------
    >>> host("model.layers.0.self_attn.k_proj", Modules(["layers.0.self_attn.qkv_proj"]))
    'layers.0.self_attn.qkv_proj'
    """
    parent, _, name = module.rpartition(".")
    if name not in _PARTS:
        return None
    for fused in _HOSTS[_PARTS[name][1]]:
        hits = modules.same(f"{parent}.{fused}" if parent else fused)
        if len(hits) == 1:
            return hits[0]
    return None


def part_rows(
    module: str,
    fused: str,
    *,
    d_out: int,
    total: int,
    model_type: str | None,
    error: Callable[[str], FormatError],
) -> tuple[int, int]:
    """Rows (start, stop) of a module in the weight of a fused layer.

    Parameters
    ----------
    module, d_out : the module and its number of outputs
    fused, total : the fused layer and its number of outputs
    model_type : of the base, None if unknown
    error : makes the error of a fact

    Raises
    ------
    FormatError : heads are interleaved, or the sizes leave more than one answer

    Examples
    --------
    Grouped queries: 4 outputs of q, 2 of k and of v.

    >>> part_rows("k_proj", "qkv_proj", d_out=2, total=8, model_type=None, error=FormatError)
    (4, 6)
    """
    place, count = _PARTS[module.rpartition(".")[2]]
    kind = fused.rpartition(".")[2]
    if kind in _INTERLEAVED_NAMES or may_interleave(model_type, kind):
        raise error(f"the rows of q, k and v are interleaved by heads in {shown(fused)}")
    if total == count * d_out:
        return place * d_out, (place + 1) * d_out
    first = d_out if place == 0 else total - 2 * d_out
    rest = (total - first) / 2
    if kind not in _BY_SIZES or not 0 < rest <= first or rest != int(rest) or (place and rest != d_out):
        raise error(
            f"{shown(fused)} has {total} outputs, which does not say where the {d_out} of the module are"
        )
    start = 0 if place == 0 else first + (place - 1) * d_out
    return start, start + d_out
