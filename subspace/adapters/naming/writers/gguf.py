"""llama.cpp's names: ``blk.0.attn_q``, for the language models that it converts, with experts and latent attention."""

from __future__ import annotations

import re
from functools import partial

from subspace.adapters.naming.writers._names import ModelNames, WriterNames, by_model

__all__ = ["NAMES", "UNPERMUTED"]

_LAYER = re.compile(r"blk\.(?P<n>[0-9]+)\.(?P<part>[a-z_0-9]+)(?:\[(?P<e>[0-9]+)\])?")
# part -> names elsewhere: LLaMA-like, GPT-2, GPT-NeoX, BLOOM and Falcon, BERT, DistilBERT, Phi, MPT, GPT-J, OPT-like
_PARTS = {
    "attn_q": (
        "layers.{n}.self_attn.q_proj", "encoder.layer.{n}.attention.self.query", "layer.{n}.attention.q_lin",
        "h.{n}.attn.q_proj", "h.{n}.attn.attention.q_proj",
    ),
    "attn_k": (
        "layers.{n}.self_attn.k_proj", "encoder.layer.{n}.attention.self.key", "layer.{n}.attention.k_lin",
        "h.{n}.attn.k_proj", "h.{n}.attn.attention.k_proj",
    ),
    "attn_v": (
        "layers.{n}.self_attn.v_proj", "encoder.layer.{n}.attention.self.value", "layer.{n}.attention.v_lin",
        "h.{n}.attn.v_proj", "h.{n}.attn.attention.v_proj",
    ),
    "attn_qkv": (
        "h.{n}.attn.c_attn", "layers.{n}.self_attn.qkv_proj", "layers.{n}.attention.query_key_value",
        "h.{n}.self_attention.query_key_value", "layers.{n}.self_attention.query_key_value", "blocks.{n}.attn.Wqkv",
        "layers.{n}.attn.Wqkv",
    ),
    "attn_output": (
        "layers.{n}.self_attn.o_proj", "h.{n}.attn.c_proj", "layers.{n}.attention.dense", "h.{n}.self_attention.dense",
        "layers.{n}.self_attention.dense", "layers.{n}.self_attn.dense", "layers.{n}.self_attn.out_proj",
        "encoder.layer.{n}.attention.output.dense", "transformer.layer.{n}.attention.out_lin", "h.{n}.attn.out_proj",
        "h.{n}.attn.attention.out_proj", "blocks.{n}.attn.out_proj", "layers.{n}.attn.Wo",
    ),
    "ffn_gate": ("layers.{n}.mlp.gate_proj", "layers.{n}.feed_forward.gate_proj"),
    "ffn_up": (
        "layers.{n}.mlp.up_proj", "h.{n}.mlp.c_fc", "layers.{n}.mlp.gate_up_proj", "layers.{n}.mlp.dense_h_to_4h",
        "h.{n}.mlp.dense_h_to_4h", "layers.{n}.mlp.fc1", "layers.{n}.mlp.c_fc", "h.{n}.mlp.fc_in",
        "encoder.layer.{n}.intermediate.dense", "transformer.layer.{n}.ffn.lin1", "blocks.{n}.ffn.up_proj",
        "layers.{n}.feed_forward.up_proj", "layers.{n}.mlp.Wi",
    ),
    "ffn_down": (
        "layers.{n}.mlp.down_proj", "h.{n}.mlp.c_proj", "layers.{n}.mlp.dense_4h_to_h", "h.{n}.mlp.dense_4h_to_h",
        "layers.{n}.mlp.fc2", "layers.{n}.mlp.c_proj", "h.{n}.mlp.fc_out", "encoder.layer.{n}.output.dense",
        "transformer.layer.{n}.ffn.lin2", "blocks.{n}.ffn.down_proj", "layers.{n}.feed_forward.down_proj",
        "layers.{n}.mlp.Wo",
    ),
    # latent attention of DeepSeek
    "attn_q_a": ("layers.{n}.self_attn.q_a_proj",),
    "attn_q_b": ("layers.{n}.self_attn.q_b_proj",),
    "attn_kv_a_mqa": ("layers.{n}.self_attn.kv_a_proj_with_mqa",),
    "attn_kv_b": ("layers.{n}.self_attn.kv_b_proj",),
    # the router, and the expert that every token goes to
    "ffn_gate_inp": ("layers.{n}.mlp.gate", "layers.{n}.block_sparse_moe.gate", "layers.{n}.mlp.router"),
    "ffn_gate_shexp": ("layers.{n}.mlp.shared_expert.gate_proj", "layers.{n}.mlp.shared_experts.gate_proj"),
    "ffn_up_shexp": ("layers.{n}.mlp.shared_expert.up_proj", "layers.{n}.mlp.shared_experts.up_proj"),
    "ffn_down_shexp": ("layers.{n}.mlp.shared_expert.down_proj", "layers.{n}.mlp.shared_experts.down_proj"),
}  # fmt: skip
# of one expert, which llama.cpp stacks and other libraries number
_EXPERTS = {
    "ffn_gate_exps": ("layers.{n}.mlp.experts.{e}.gate_proj", "layers.{n}.block_sparse_moe.experts.{e}.w1"),
    "ffn_up_exps": ("layers.{n}.mlp.experts.{e}.up_proj", "layers.{n}.block_sparse_moe.experts.{e}.w3"),
    "ffn_down_exps": ("layers.{n}.mlp.experts.{e}.down_proj", "layers.{n}.block_sparse_moe.experts.{e}.w2"),
}
# T5: the stack, then the part
_STACKS = re.compile(r"(?P<stack>enc|dec)\.blk\.(?P<n>[0-9]+)\.(?P<part>[a-z_]+)")
_T5 = {
    **{f"attn_{part}": (f"layer.0.SelfAttention.{part}",) for part in "qkvo"},
    **{f"cross_attn_{part}": (f"layer.1.EncDecAttention.{part}",) for part in "qkvo"},
    "ffn_gate": ("layer.{ff}.DenseReluDense.wi_0",),
    "ffn_up": ("layer.{ff}.DenseReluDense.wi_1", "layer.{ff}.DenseReluDense.wi"),
    "ffn_down": ("layer.{ff}.DenseReluDense.wo",),
}
_WHOLE = {
    "token_embd": ("embed_tokens", "wte", "word_embeddings", "embed_in"),
    "position_embd": ("wpe", "position_embeddings"),
    "token_types": ("token_type_embeddings",),
    "output": ("lm_head", "embed_out"),
}
_PERMUTED = re.compile(r".*\.self_attn\.[qk]_proj")
# architectures whose rotary embeddings pair rows of the two halves, as Hugging Face does, or that have none
UNPERMUTED = frozenset(
    "bert gemma gemma2 gemma3 gpt2 nomic-bert olmo2 olmoe phi2 phi3 phimoe qwen2 qwen2moe qwen3 qwen3moe stablelm "
    "starcoder2".split()
)
# full names in models of transformers
_LLAMA = {
    "attn_q": "layers.{n}.self_attn.q_proj",
    "attn_k": "layers.{n}.self_attn.k_proj",
    "attn_v": "layers.{n}.self_attn.v_proj",
    "attn_output": "layers.{n}.self_attn.o_proj",
    "ffn_gate": "layers.{n}.mlp.gate_proj",
    "ffn_up": "layers.{n}.mlp.up_proj",
    "ffn_down": "layers.{n}.mlp.down_proj",
}
_GPT2 = {
    "attn_qkv": "h.{n}.attn.c_attn",
    "attn_output": "h.{n}.attn.c_proj",
    "ffn_up": "h.{n}.mlp.c_fc",
    "ffn_down": "h.{n}.mlp.c_proj",
}
_PHI3 = {
    "attn_qkv": "layers.{n}.self_attn.qkv_proj",
    "attn_output": "layers.{n}.self_attn.o_proj",
    "ffn_up": "layers.{n}.mlp.gate_up_proj",
    "ffn_down": "layers.{n}.mlp.down_proj",
}
_MODEL = {"token_embd": "model.embed_tokens", "output": "lm_head"}
_MODELS = {
    "LLaMA": ModelNames("model.", _LLAMA, _MODEL),
    "GPT-2": ModelNames("transformer.", _GPT2, {"token_embd": "transformer.wte", "output": "lm_head"}),
    "Phi-3": ModelNames("model.", _PHI3, _MODEL),
}


def _translate(name: str) -> tuple[str, ...]:
    """Names of a module elsewhere.

    Examples
    --------
    >>> _translate("blk.3.ffn_gate_exps[2]")
    ('layers.3.mlp.experts.2.gate_proj', 'layers.3.block_sparse_moe.experts.2.w1')
    """
    match = _LAYER.fullmatch(name)
    if match is None:
        return _WHOLE.get(name) or _t5(name)
    parts = _PARTS if match["e"] is None else _EXPERTS
    return tuple(there.format(n=match["n"], e=match["e"]) for there in parts.get(match["part"], ()))


def _t5(name: str) -> tuple[str, ...]:
    match = _STACKS.fullmatch(name)
    if match is None:
        return ()
    stack, ff = ("encoder", 1) if match["stack"] == "enc" else ("decoder", 2)
    return tuple(f"{stack}.block.{match['n']}.{there.format(ff=ff)}" for there in _T5.get(match["part"], ()))


def _reordered(module: str, there: str) -> bool:
    """Whether llama.cpp may have reordered the rows: q and k of LLaMA and models like it, q, k and v of one matrix.

    A matrix of q, k and v per head, as GPT-NeoX, BLOOM and Falcon have it, becomes one of q, of k and of v.
    """
    return _PERMUTED.fullmatch(there) is not None or there.endswith(".query_key_value")


NAMES = WriterNames(
    name="llama.cpp",
    about="GGUF (ggml-org/llama.cpp, gguf-py/gguf/tensor_mapping.py, gguf 0.19; convert_hf_to_gguf.py: "
    "LlamaModel.permute, GPTNeoXModel, BloomModel, FalconModel; src/llama-model.cpp: llama_model_rope_type)",
    translate=_translate,
    reordered=_reordered,
    full_names=partial(by_model, layer=_LAYER, models=_MODELS),
)
