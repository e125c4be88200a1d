"""Rows of q and k in the order of transformers, for libraries that pair neighbouring rows in their rotary embedding."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from subspace.adapters.place import place
from subspace.adapters.update import Factor, LowRankUpdate, Update
from subspace.errors import FormatError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.adapters.adapter import Adapter
    from subspace.adapters.base.weights import BaseWeights

__all__ = ["in_order_of_transformers"]

# convert_hf_to_gguf.py: classes below LlamaModel permute, the others do not; torchtune 0.6: models/convert_weights.py
# permutes, models/qwen2/_convert_weights.py and models/phi3/_convert_weights.py do not
_REORDERED = {
    "gguf": {"llama", "mistral", "mixtral"},
    "torchtune": {"llama", "mistral", "gemma", "gemma2"},
}
_AS_IN_TRANSFORMERS = {
    "gguf": set("qwen2 qwen2moe qwen3 qwen3moe gemma gemma2 gemma3 phi2 phi3 gpt2 starcoder2".split()),
    "torchtune": {"qwen2", "qwen3", "phi3"},
}


def in_order_of_transformers(update: Update, adapter: Adapter, base: BaseWeights | None) -> Update:
    """A q or k of a library that may have reordered its rows, with the rows of B as transformers has them.

    Raises
    ------
    FormatError : it is not known whether the rows were reordered, or how many heads they are of

    References
    ----------
    ggml-org/llama.cpp, convert_hf_to_gguf.py: ``LlamaModel.permute``; pytorch/torchtune 0.6,
    models/convert_weights.py: ``_permute``. transformers, models/llama/convert_llama_weights_to_hf.py: ``permute``, the
    way back.
    """
    assert isinstance(update, LowRankUpdate)
    kind = _kind(adapter, base)
    if kind in _AS_IN_TRANSFORMERS[adapter.format]:
        return update
    heads = _heads(update.module, base) if kind in _REORDERED[adapter.format] else None
    if heads is None or update.d_out % (2 * heads):
        library = "llama.cpp" if adapter.format == "gguf" else "torchtune"
        raise FormatError(
            f"The rows of q and k may be in another order, since {library} reorders them for some models, in "
            f"{place(adapter.path, update.module)}; give the model in the format of transformers as `base`, whose "
            "config.json says its kind and number of heads"
        )
    B = update.B_factor
    return replace(update, B_factor=Factor(B.shape, B.dtype, lambda: _restored(B.load(), heads)))


def _restored(B: NDArray[Any], heads: int) -> NDArray[Any]:
    """Rows (head, pair, half) as (head, half, pair)."""
    d_out, r = B.shape
    return B.reshape(heads, d_out // heads // 2, 2, r).swapaxes(1, 2).reshape(d_out, r)


def _kind(adapter: Adapter, base: BaseWeights | None) -> str | None:
    """Kind of the model, by the file of the adapter or by that of the base."""
    metadata = adapter.tensors.metadata if adapter.tensors is not None else {}
    named = metadata.get("general.architecture") if adapter.format == "gguf" else None
    return named or (base.model_type if base is not None else None)


def _heads(module: str, base: BaseWeights | None) -> int | None:
    """Heads of q, or of k, by the configuration of the base."""
    config = base.config if base is not None else {}
    heads = config.get("num_attention_heads")
    own = config.get("num_key_value_heads", heads) if _is_k(module) else heads
    return own if isinstance(own, int) and own > 0 else None


def _is_k(module: str) -> bool:
    return module.rpartition(".")[2] in {"attn_k", "k_proj", "wk"}
