"""Tiny models in transformers' layout, with random weights and a tokenizer of their own, made in a moment."""

from __future__ import annotations

import json
from pathlib import Path

TEXTS = [
    "In the beginning God created the heaven and the earth.",
    "And the earth was without form, and void; and darkness was upon the face of the deep.",
    "The quick brown fox jumps over the lazy dog, and the dog does not mind at all.",
]
CAUSAL, MASKED, PAIRED = ("gpt2", "llama"), ("bert", "electra", "roberta"), ("t5", "bart")
KINDS = (*CAUSAL, *MASKED, *PAIRED)
VOCABULARY = 300


def tiny(kind: str, folder, *, seed: int = 0, tokenizer: bool = True, **changes) -> Path:
    """Write a model of width 32 and two layers, pre-trained on nothing, and return its directory.

    gpt2 and llama are causal, bert, electra and roberta are saved as models of masked tokens, t5 and bart have an
    encoder and a decoder.
    """
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    folder = Path(folder)
    config, name = _config(kind, changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        getattr(transformers, name)(config).save_pretrained(folder)
    if tokenizer:
        made_tokenizer(kind, folder)
    return folder


def _config(kind, changes):
    import transformers

    decoder = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2}
    common = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    encoder = {**common, "vocab_size": VOCABULARY, "max_position_embeddings": 64}
    sides = {"layers": 2, "attention_heads": 4, "ffn_dim": 64}
    both = {f"{side}_{key}": n for side in ("encoder", "decoder") for key, n in sides.items()}
    special = {"pad_token_id": 3, "bos_token_id": 1, "eos_token_id": 2}
    t5 = {"d_model": 32, "num_layers": 2, "num_heads": 4, "d_kv": 8, "d_ff": 64, "vocab_size": VOCABULARY}
    bart = {
        "d_model": 32,
        "max_position_embeddings": 64,
        "decoder_start_token_id": 2,
        "forced_eos_token_id": None,
    }
    settings, config, name = {
        "gpt2": (
            {**decoder, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
            "GPT2Config",
            "GPT2LMHeadModel",
        ),
        "llama": ({**encoder, **decoder, "tie_word_embeddings": False}, "LlamaConfig", "LlamaForCausalLM"),
        "bert": (encoder, "BertConfig", "BertForMaskedLM"),
        "electra": ({**encoder, "embedding_size": 16}, "ElectraConfig", "ElectraForPreTraining"),
        "roberta": ({**encoder, **special}, "RobertaConfig", "RobertaForMaskedLM"),
        "t5": ({**t5, **special, "decoder_start_token_id": 3}, "T5Config", "T5ForConditionalGeneration"),
        "bart": ({**decoder, **both, **special, **bart}, "BartConfig", "BartForConditionalGeneration"),
    }[kind]
    return getattr(transformers, config)(**{**settings, **changes}), name


def made_tokenizer(kind: str, folder) -> None:
    """Write a byte-level BPE tokenizer: 0 <unk>, 1 <s>, 2 </s>, 3 <pad>; GPT-2 and LLaMA have no padding."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    fast = Tokenizer(models.BPE(unk_token="<unk>"))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    fast.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if kind != "gpt2":
        single = {"llama": "<s> $A", "t5": "$A </s>"}.get(kind, "<s> $A </s>")
        fast.post_processor = processors.TemplateProcessing(
            single=single, special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    folder = Path(folder)
    fast.save(str(folder / "tokenizer.json"))
    stated = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
    }
    if kind not in CAUSAL:
        stated["pad_token"] = "<pad>"
    (folder / "tokenizer_config.json").write_text(json.dumps(stated))


def edit_config(folder, **changes) -> None:
    """Change entries of a directory's config.json; None takes one out."""
    path = Path(folder) / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
