"""The attention heads of a module: blocks of its rows (queries, keys, values) or columns (the output projection)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from subspace.checkpoints.fused_layouts import may_interleave

if TYPE_CHECKING:
    from subspace.adapters.update import Update

__all__ = ["HeadCounts", "Heads", "head_counts", "heads_of"]

_QUERY = frozenset("q_proj query q to_q q_lin wq".split())
_KEY_VALUE = frozenset("k_proj v_proj key value k v to_k to_v k_lin v_lin wk wv".split())
_OUT = re.compile(
    r"(?:.*\.)?(?:(?:self_attn|attn|attention|self_attention|encoder_attn)\.(?:o_proj|out_proj|c_proj|dense|wo|out_lin)"
    r"|attention\.output\.dense|to_out\.0|o_proj|(?:SelfAttention|EncDecAttention)\.o)",
    re.DOTALL,
)
_FUSED = frozenset("c_attn qkv_proj Wqkv qkv to_qkv in_proj".split())


class HeadCounts(NamedTuple):
    """Numbers of attention heads.

    Attributes
    ----------
    heads : of queries
    groups : of keys and values, fewer where queries share them; None where that is not known
    size : dimension of a head, None where it follows from the shapes
    """

    heads: int
    groups: int | None = None
    size: int | None = None


@dataclass(frozen=True)
class Heads:
    """The heads of one module.

    Attributes
    ----------
    names : "0", "1", ..., in a fused layer "q0", "k0", "v0"
    blocks : (start, stop) of each, which together are all rows, or all columns
    columns : whether they are blocks of columns
    """

    names: tuple[str, ...]
    blocks: tuple[tuple[int, int], ...]
    columns: bool = False

    @property
    def size(self) -> int:
        """Dimension of a head."""
        return self.blocks[0][1] - self.blocks[0][0]


def head_counts(config: Mapping[str, Any], given: Sequence[int] | None = None) -> HeadCounts | None:
    """Numbers of heads, by a model's configuration, or as they were given: of queries, then of keys; None without.

    Examples
    --------
    >>> head_counts({"num_attention_heads": 8, "num_key_value_heads": 2, "hidden_size": 64})
    HeadCounts(heads=8, groups=2, size=8)
    """
    if given:
        return HeadCounts(given[0], given[1] if len(given) > 1 else None)
    text = config.get("text_config")
    own = text if isinstance(text, Mapping) else config
    heads = _first(own, "num_attention_heads", "n_head", "num_heads", "n_heads")
    if heads is None:
        return None
    width = _first(own, "hidden_size", "n_embd", "d_model", "dim")
    size = _first(own, "head_dim", "d_kv") or (width // heads if width and width % heads == 0 else None)
    return HeadCounts(heads, _first(own, "num_key_value_heads", "num_kv_heads", "n_head_kv") or heads, size)


def _first(config: Mapping[str, Any], *names: str) -> int | None:
    found = [config.get(name) for name in names]
    return next((n for n in found if isinstance(n, int) and not isinstance(n, bool) and n > 0), None)


def heads_of(
    update: Update, counts: HeadCounts, *, model_type: str | None = None, size: int | None = None
) -> Heads | None:
    """The heads of a module by its name and shape; None where it is no projection of attention, or they do not fit.

    Parameters
    ----------
    size : dimension of a head by another module of the model, where `counts` does not have it
    """
    name, _, group = update.module.partition("[")
    last, group = name.rpartition(".")[2], group.rstrip("]")
    size = counts.size or size
    if _OUT.fullmatch(name):
        return _even(counts.heads, update.d_in, size, columns=True)
    if last in _QUERY or group in _QUERY:
        return _even(counts.heads, update.d_out, size)
    if last in _KEY_VALUE or group in _KEY_VALUE:
        groups = counts.groups or (update.d_out // size if size and update.d_out % size == 0 else None)
        return _even(groups or counts.heads, update.d_out, size)
    if last in _FUSED and not group and not may_interleave(model_type, last):
        return _fused(counts, update.d_out)
    return None


def _even(count: int, d: int, size: int | None, *, columns: bool = False) -> Heads | None:
    if d % count or (size is not None and d != count * size):
        return None
    each = d // count
    blocks = tuple((n * each, (n + 1) * each) for n in range(count))
    return Heads(tuple(map(str, range(count))), blocks, columns)


def _fused(counts: HeadCounts, d: int) -> Heads | None:
    """Of a layer with the rows of all queries first, then of all keys, then of all values."""
    groups = counts.groups or counts.heads
    total = counts.heads + 2 * groups
    if d % total or (counts.size is not None and d != total * counts.size):
        return None
    each = d // total
    names = [
        f"{part}{n}"
        for part, count in zip("qkv", (counts.heads, groups, groups), strict=True)
        for n in range(count)
    ]
    return Heads(tuple(names), tuple((n * each, (n + 1) * each) for n in range(total)))
