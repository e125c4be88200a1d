"""Which rows of a fused attention layer are q, which are k and which are v, by the type of the model and its sizes.

Models that fuse q, k and v into one layer lay its rows out in several ways: as three blocks, as blocks of unequal size
where queries are grouped, or interleaved, so that the rows of q are not one range.

References
----------
transformers 5, ``models/*/modeling_*.py``: how the forward of each attention splits the output of its fused layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Parts", "Ranges", "equal_blocks", "fused_parts", "may_interleave"]

Ranges = tuple[tuple[int, int], ...]
Parts = Mapping[str, Ranges]

_QKV = ("q", "k", "v")
_SHARDS = 4  # CodeGen was trained on that many devices (modeling_codegen.py, mp_num)


def fused_parts(model_type: str, layer: str, shape: tuple[int, int], config: Any) -> Parts | None:
    """Return the ranges of rows (start, stop) of each part of a fused layer; None where that is not known.

    Parameters
    ----------
    model_type : such as "gpt2" or "falcon"
    layer : last part of the layer's name
    shape : (d_out, d_in) of its weight
    config : of the model; its numbers of heads are attributes under transformers' names

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> fused_parts("bloom", "query_key_value", (12, 4), SimpleNamespace(num_attention_heads=2))["q"]
    ((0, 2), (6, 8))
    >>> fused_parts("llama", "q_proj", (12, 12), None) is None
    True
    """
    layout = _LAYOUTS.get((model_type, layer)) or (
        _BLOCKS if layer == "qkv" and model_type in _IMAGES else None
    )
    return layout.parts(shape, config) if layout else None


def may_interleave(model_type: str | None, layer: str) -> bool:
    """Return whether the rows of q, k and v may lie between one another in a layer of a type of model."""
    layout = _LAYOUTS.get(((model_type or "").replace("-", "_"), layer))
    return layout is not None and layout.interleaves


def equal_blocks(d_out: int, names: tuple[str, ...]) -> Parts | None:
    """Return the parts of a layer of equal blocks one after the other; None where they do not divide its rows."""
    return _blocks(d_out, dict.fromkeys(names, 1))


def _blocks(d_out: int, weights: Mapping[str, int]) -> Parts | None:
    """Blocks one after the other, whose sizes are in the ratio of some weights."""
    unit, rest = divmod(d_out, sum(weights.values()))
    if rest or not unit:
        return None
    parts, start = {}, 0
    for name, weight in weights.items():
        parts[name] = ((start, start + weight * unit),)
        start += weight * unit
    return parts


def _repeated(d_out: int, times: int, weights: Mapping[str, int]) -> Parts | None:
    """The same blocks several times one after the other."""
    size, rest = divmod(d_out, times)
    once = None if rest else _blocks(size, weights)
    if once is None:
        return None
    return {
        name: tuple((n * size + start, n * size + stop) for n in range(times) for start, stop in once[name])
        for name in _QKV
    }


def _heads(config: Any) -> int:
    return int(config.num_attention_heads)


def _key_heads(config: Any) -> int:
    """Number of heads of keys, which some models have fewer of than of queries."""
    nested = getattr(getattr(config, "attn_config", None), "kv_n_heads", None)
    found = nested or getattr(config, "num_key_value_heads", None) or getattr(config, "num_kv_heads", None)
    return int(found or _heads(config))


def _grouped(shape: tuple[int, int], config: Any) -> Parts | None:
    keys = _key_heads(config)
    return _blocks(shape[0], {"q": _heads(config), "k": keys, "v": keys})


def _by_head(shape: tuple[int, int], config: Any) -> Parts | None:
    return _repeated(shape[0], _heads(config), dict.fromkeys(_QKV, 1))


def _one_key_head(shape: tuple[int, int], config: Any) -> Parts | None:
    return _blocks(shape[0], {"q": _heads(config), "k": 1, "v": 1})


def _falcon(shape: tuple[int, int], config: Any) -> Parts | None:
    if config.new_decoder_architecture:
        keys = _key_heads(config)
        return _repeated(shape[0], keys, {"q": _heads(config) // keys, "k": 1, "v": 1})
    return _one_key_head(shape, config) if config.multi_query else _by_head(shape, config)


def _gpt_bigcode(shape: tuple[int, int], config: Any) -> Parts | None:
    if shape[0] == 2 * shape[1]:  # of cross-attention, whose queries are another layer
        return None
    return _one_key_head(shape, config) if config.multi_query else _by_head(shape, config)


def _codegen(shape: tuple[int, int], config: Any) -> Parts | None:
    return _repeated(shape[0], _SHARDS, {"q": 1, "v": 1, "k": 1})


def _gpt2(shape: tuple[int, int], config: Any) -> Parts | None:
    d_out, d_in = shape
    # of cross-attention the queries are another layer
    names = {3: _QKV, 2: ("k", "v")}.get(d_out // d_in)
    return equal_blocks(d_out, names) if names and d_out % d_in == 0 else None


@dataclass(frozen=True)
class _Layout:
    parts: Callable[[tuple[int, int], Any], Parts | None]
    interleaves: bool = False


_BLOCKS = _Layout(lambda shape, _: equal_blocks(shape[0], _QKV))
_PAIR = _Layout(lambda shape, _: equal_blocks(shape[0], ("k", "v")))
_UNEQUAL, _WITHIN_HEADS = _Layout(_grouped), _Layout(_by_head, interleaves=True)

_LAYOUTS: dict[tuple[str, str], _Layout] = {
    **{(kind, "c_attn"): _Layout(_gpt2) for kind in ("gpt2", "imagegpt", "decision_transformer", "openai")},
    ("bark", "att_proj"): _BLOCKS,
    ("mpt", "Wqkv"): _BLOCKS,
    ("modernbert", "Wqkv"): _BLOCKS,
    ("phi3", "qkv_proj"): _UNEQUAL,
    ("phi4_multimodal", "qkv_proj"): _UNEQUAL,
    ("dbrx", "Wqkv"): _UNEQUAL,
    ("jetmoe", "kv_proj"): _PAIR,
    **{
        (kind, "query_key_value"): _WITHIN_HEADS
        for kind in ("gpt_neox", "gpt_neox_japanese", "bloom", "persimmon")
    },
    ("deberta", "in_proj"): _WITHIN_HEADS,
    ("minimax", "qkv_proj"): _WITHIN_HEADS,
    ("falcon", "query_key_value"): _Layout(_falcon, interleaves=True),
    ("gpt_bigcode", "c_attn"): _Layout(_gpt_bigcode, interleaves=True),
    ("codegen", "qkv_proj"): _Layout(_codegen, interleaves=True),
}
# models of images whose ``qkv`` is reshaped to (..., 3, heads, size of a head)
_IMAGES = frozenset(
    "blip blip_2 glm4v glm4v_moe hiera instructblip mgp_str qwen2_5_vl qwen2_vl qwen3_5 qwen3_vl qwen3_vl_moe sam "
    "sam2 sam_hq seggpt timesformer vitdet".split()
)
