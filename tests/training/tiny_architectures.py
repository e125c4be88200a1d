"""Tiny models with random weights of every kind of architecture that transformers can make from a configuration."""

from __future__ import annotations

_COMMON = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
_EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_BOTH = {f"{side}_{key}": n for side in ("encoder", "decoder") for key, n in
         {"layers": 2, "attention_heads": 4, "ffn_dim": 48}.items()}  # fmt: skip
_T5 = {"d_model": 32, "num_layers": 2, "num_heads": 4, "d_kv": 8, "d_ff": 48, "decoder_start_token_id": 0}

# model type -> changes of its configuration
CAUSAL = {
    "gpt2": {},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_layers": 2, "num_heads": 4},
    "gptj": {"rotary_dim": 4},
    "gpt_neox": {},
    "gpt_neox_japanese": {"intermediate_multiple_size": 2},
    "gpt_bigcode": {},
    "bloom": {},
    "falcon": {"new_decoder_architecture": False, "multi_query": True},
    "mpt": {},
    "codegen": {"rotary_dim": 4},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "xglm": {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48},
    "biogpt": {},
    "persimmon": {},
    "stablelm": _GROUPED,
    "starcoder2": _GROUPED,
    "llama": _GROUPED,
    "mistral": _GROUPED,
    "mixtral": {**_GROUPED, **_EXPERTS},
    "gemma": _GROUPED,
    "gemma2": _GROUPED,
    "phi": {},
    "phi3": _GROUPED,
    "qwen2": _GROUPED,
    "qwen2_moe": {**_GROUPED, **_EXPERTS},
    "qwen3": _GROUPED,
    "olmo": _GROUPED,
    "olmo2": _GROUPED,
    "cohere": _GROUPED,
    "glm": _GROUPED,
    "granite": _GROUPED,
    "openai-gpt": {},
    "jetmoe": {**_EXPERTS, "num_key_value_heads": 2, "kv_channels": 8},
    "dbrx": {
        "d_model": 32,
        "n_heads": 4,
        "n_layers": 2,
        "max_seq_len": 64,
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4},
        "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
    },
}
CLASSIFIERS = {
    "bert": {},
    "roberta": {},
    "electra": {"embedding_size": 16},
    "albert": {"embedding_size": 16},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
    "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8},
    "modernbert": {"global_attn_every_n_layers": 1, "cls_token_id": 1, "sep_token_id": 2},
}
PAIRED = {"t5": _T5, "mt5": _T5, "bart": {"d_model": 32, **_BOTH, "decoder_start_token_id": 2}}
EVERY = {**CAUSAL, **CLASSIFIERS, **PAIRED}


def architecture(kind: str, *, seed: int = 0, **changes):
    """Return a model of that type in evaluation mode, without dropout."""
    import torch
    import transformers

    settings = {**_COMMON, **EVERY[kind], **changes}
    config = transformers.AutoConfig.for_model(kind, **settings)
    for name in vars(config):
        if "dropout" in name or name.endswith("pdrop"):
            setattr(config, name, 0.0)
    task = "CausalLM" if kind in CAUSAL else "Seq2SeqLM" if kind in PAIRED else "SequenceClassification"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, f"AutoModelFor{task}").from_config(config, attn_implementation="eager")
    return model.eval()


def inputs(kind: str, step: int = 0, *, batch: int = 2, length: int = 8):
    """Return keywords of the model's forward, with labels."""
    import torch

    generator = torch.Generator().manual_seed(1000 + step)
    ids = torch.randint(3, 64, (batch, length), generator=generator)
    labels = torch.randint(0, 2, (batch,), generator=generator) if kind in CLASSIFIERS else ids
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
