"""W + delta_W, both as read from disk, is the weight that PEFT merges: orientation, scale and names at once."""

from __future__ import annotations

import json

import numpy as np
import peft
import pytest
import torch
import transformers

from subspace.adapters import load_adapter, load_base

pytestmark = pytest.mark.filterwarnings(r"ignore:::(peft|transformers)\..*")

SMALL = {
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "hidden_size": 8,
    "intermediate_size": 20,
    "vocab_size": 13,
}


def gpt2():
    config = transformers.GPT2Config(
        n_embd=8, n_layer=2, n_head=2, vocab_size=13, n_positions=9, num_labels=6
    )
    return transformers.GPT2ForSequenceClassification(config)


def bert():
    return transformers.BertForSequenceClassification(transformers.BertConfig(**SMALL, num_labels=3))


def llama():
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL, num_key_value_heads=1))


CASES = {
    "gpt2 attention": (gpt2, ["c_attn"], {"fan_in_fan_out": True, "task_type": "SEQ_CLS"}),
    "gpt2 square": (gpt2, ["c_proj", "c_fc"], {"fan_in_fan_out": True, "task_type": "SEQ_CLS"}),
    "gpt2 table": (gpt2, ["wte", "c_attn"], {"fan_in_fan_out": True}),
    "bert": (bert, ["query", "value", "word_embeddings"], {"task_type": "SEQ_CLS", "use_rslora": True}),
    "llama": (llama, "all-linear", {"rank_pattern": {"k_proj": 2}, "alpha_pattern": {"layers.1.*": 3}}),
}


@pytest.mark.parametrize("told", [None, True, False], ids=["as saved", "said true", "said false"])
@pytest.mark.parametrize("case", CASES)
def test_base_plus_update_is_the_merged_weight(case, told, tmp_path):
    build, targets, options = CASES[case]
    torch.manual_seed(0)
    model = build()
    model.save_pretrained(tmp_path / "base")
    adapted = peft.get_peft_model(
        model, peft.LoraConfig(target_modules=targets, r=4, lora_alpha=6, **options)
    )
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_()
    adapted.save_pretrained(tmp_path / "adapter")
    if (
        told is not None
    ):  # what the configuration says of the layout is often wrong: shapes and the model decide
        path = tmp_path / "adapter" / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "fan_in_fan_out": told}))
    adapter, base = load_adapter(tmp_path / "adapter"), load_base(tmp_path / "base")
    assert adapter.unknown == ()
    merged = dict(adapted.merge_and_unload().named_modules())
    assert adapter
    for name, update in adapter.items():
        weight = base.weight(update)
        got = weight.factor().load() + update.delta_W()
        expected = merged[name].weight.detach().numpy()
        expected = expected.T if weight.transposed else expected
        np.testing.assert_allclose(got, expected, atol=1e-4, err_msg=f"{name}: {weight.orientation}")
        turned = isinstance(merged[name], transformers.pytorch_utils.Conv1D | torch.nn.Embedding)
        assert weight.transposed is turned
