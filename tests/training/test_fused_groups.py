"""Groups of a fused layer by name: the rows that the model's own attention reads as q, k and v, and no others."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from tiny_architectures import architecture, inputs  # noqa: E402
from torch import nn  # noqa: E402
from torch.overrides import TorchFunctionMode  # noqa: E402

from subspace import load_adapter  # noqa: E402
from subspace.errors import FormatError, ShapeError, ValueRangeError  # noqa: E402
from subspace.training import Job, LoRA, Recipe, inject, merge, train, unmerge  # noqa: E402
from subspace.training.export import loralib_files, peft_files  # noqa: E402
from subspace.training.fused_rows import rows_of  # noqa: E402

# model type, changes of its configuration, last part of the fused layer's name, whether its rows are q, k, v in blocks
FUSED = [
    ("gpt2", {}, "c_attn", True),
    ("openai-gpt", {}, "c_attn", True),
    ("mpt", {}, "Wqkv", True),
    ("modernbert", {}, "Wqkv", True),
    ("gpt_neox", {}, "query_key_value", False),
    ("gpt_neox_japanese", {}, "query_key_value", False),
    ("bloom", {}, "query_key_value", False),
    ("persimmon", {}, "query_key_value", False),
    ("falcon", {}, "query_key_value", False),
    ("falcon", {"multi_query": False}, "query_key_value", False),
    ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}, "query_key_value", False),
    ("gpt_bigcode", {}, "c_attn", False),
    ("gpt_bigcode", {"multi_query": False}, "c_attn", False),
    ("codegen", {}, "qkv_proj", False),
    ("phi3", {}, "qkv_proj", False),
    ("dbrx", {}, "Wqkv", False),
    ("deberta", {}, "in_proj", False),
]
IDS = ["-".join([kind, *(f"{k}={v}" for k, v in changes.items())]) for kind, changes, *_ in FUSED]
P = 3  # the position at which a part of the fused layer is changed


class _Scores(TorchFunctionMode):
    """Records what the attention of the first layer gives to its softmax: (..., query, key)."""

    def __init__(self):
        super().__init__()
        self.scores = None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") == "softmax" and self.scores is None:
            self.scores = args[0].detach().clone()
        return func(*args, **(kwargs or {}))


def _fused(model, last):
    return next(name for name, _ in model.named_modules() if name.rpartition(".")[2] == last)


def _changed(rows):
    """A hook that changes the output of a layer in some rows at one position."""

    def changed(layer, args, out):
        out = out.clone()
        for start, stop in rows:
            out[..., P, start:stop] += torch.linspace(0.5, 1.5, stop - start)
        return out

    return changed


def _scores(model, kind, module, rows):
    """The scores of the first layer, and what it gives, with the output of the fused layer changed in some rows."""
    hook = model.get_submodule(module).register_forward_hook(_changed(rows))
    spy = _Scores()
    with torch.no_grad(), spy:
        out = model(**inputs(kind), output_hidden_states=True)
    hook.remove()
    first = (out.hidden_states or out.encoder_hidden_states)[1]
    return spy.scores, first


@pytest.mark.parametrize(("kind", "changes", "last", "blocks"), FUSED, ids=IDS)
def test_the_rows_of_a_group_are_those_that_the_attention_reads_so(kind, changes, last, blocks):
    """A query changes its own row of the scores, a key its own column, a value no score; outputs elsewhere follow."""
    model = architecture(kind, **changes)
    module = _fused(model, last)
    parts = {name: rows_of(model, module, (name,))[1][0] for name in "qkv"}
    d_out = model.get_submodule(module).weight.shape[1 if last == "c_attn" and "gpt_b" not in kind else 0]
    assert sorted(n for rows in parts.values() for r in rows for n in range(*r)) == list(range(d_out))
    sizes = {name: sum(stop - start for start, stop in rows) for name, rows in parts.items()}
    assert sizes["k"] == sizes["v"]
    plain, first = _scores(model, kind, module, ())
    others = torch.arange(8) != P
    found = {}
    for name, rows in parts.items():
        scores, hidden = _scores(model, kind, module, rows)
        differ = (scores != plain).flatten(0, -3).any(0)
        found[name] = differ, (hidden != first).any(-1).any(0)
    q, k, v = (found[name][0] for name in "qkv")
    assert q[P].sum() > P and not q[others].any()
    assert k[P + 1 :, P].all() and not k[:, others].any()
    assert not v.any()
    assert not found["q"][1][others].any() and found["k"][1][P + 1 :].any() and found["v"][1][P + 1 :].any()
    assert (rows_of(model, module, ("q", "v"))[0] is not None) == blocks


@pytest.mark.parametrize("kind", ["Blip", "Blip2", "InstructBlip"])
def test_a_fused_layer_of_an_image_model_is_three_blocks(kind):
    import transformers

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32}
    config = getattr(transformers, f"{kind}VisionConfig")(**sizes, image_size=12, patch_size=4)
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}VisionModel")(config).eval()
    module = _fused(model, "qkv")
    parts = {name: rows_of(model, module, (name,))[1][0] for name in "qkv"}
    assert parts == {"q": ((0, 32),), "k": ((32, 64),), "v": ((64, 96),)}
    pixels, found = torch.randn(1, 3, 12, 12), {}
    for name, rows in {"": (), **parts}.items():
        hook = model.get_submodule(module).register_forward_hook(_changed(rows))
        spy = _Scores()
        with torch.no_grad(), spy:
            model(pixel_values=pixels)
        hook.remove()
        found[name] = spy.scores
    differ = {name: (found[name] != found[""]).flatten(0, -3).any(0) for name in parts}
    others = torch.arange(len(differ["q"])) != P
    assert differ["q"][P].all() and not differ["q"][others].any()
    assert differ["k"][:, P].all() and not differ["k"][:, others].any()
    assert not differ["v"].any()


def _shake(model):
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


def _logits(model, kind):
    with torch.no_grad():
        return model(**inputs(kind)).logits


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize(("kind", "changes", "last", "blocks"), FUSED, ids=IDS)
def test_only_the_rows_of_the_groups_are_adapted(kind, changes, last, blocks, dropout):
    model = architecture(kind, **changes)
    before = _logits(model, kind)
    method = LoRA(r=1, alpha=2, groups=("v", "q"), dropout=dropout)
    assert method.groups == ("q", "v")
    chosen = inject(model, method, [last])
    torch.testing.assert_close(_logits(model, kind), before, rtol=1e-5, atol=1e-6)
    _shake(model)
    rows = rows_of(model, chosen[0], ("q", "v"))[1]
    layer = model.get_submodule(chosen[0])
    d_in = layer.lora_A.shape[1]
    adapted = torch.zeros(layer.weight.numel() // d_in, dtype=torch.bool)
    for start, stop in (place for ranges in rows for place in ranges):
        adapted[start:stop] = True
    delta_W = layer.delta_weight("default")
    delta_W = delta_W.t() if layer.layer_kind == "conv1d" else delta_W
    assert torch.equal(delta_W.abs().amax(1) > 0, adapted)
    x = torch.randn(3, d_in)
    difference = layer(x) - layer.plain(x)
    torch.testing.assert_close(difference, x @ delta_W.t(), rtol=1e-4, atol=1e-5)
    assert not difference[:, ~adapted].any()
    unmerged = _logits(model, kind)
    assert not torch.allclose(unmerged, before, atol=1e-4)
    merge(model)
    torch.testing.assert_close(_logits(model, kind), unmerged, rtol=1e-4, atol=1e-5)
    unmerge(model)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to")
@pytest.mark.parametrize(("kind", "changes", "last", "blocks"), FUSED, ids=IDS)
def test_peft_loads_them_and_computes_the_same(kind, changes, last, blocks, tmp_path):
    from peft import PeftModel

    base = architecture(kind, **changes)
    model = copy.deepcopy(base)
    inject(model, LoRA(r=2, alpha=3, groups=("q", "v")), [last])
    _shake(model)
    for name, content in peft_files(model, base="", task="lm").items():
        (tmp_path / name).write_bytes(content)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "task_type": None}))
    assert config["r"] == 4
    found = _logits(model, kind)
    torch.testing.assert_close(
        _logits(PeftModel.from_pretrained(base, tmp_path), kind), found, rtol=1e-4, atol=1e-5
    )
    read, live = load_adapter(tmp_path), load_adapter(model)
    for name, update in read.items():
        parts = [part for part in live.values() if part.module.partition("[")[0] == name]
        dense = sum(_whole(part, update.d_out) for part in parts)
        np.testing.assert_allclose(dense, update.scale.value * update.B @ update.A, rtol=1e-5, atol=1e-6)


def _whole(update, d_out):
    """The update of a group in the rows of its layer."""
    delta_W = update.scale.value * update.B @ update.A
    if update.rows is None:
        return delta_W
    whole = np.zeros((d_out, delta_W.shape[1]))
    whole[slice(*update.rows)] = delta_W
    return whole


def test_names_and_numbers_are_one_where_the_parts_are_blocks():
    files = []
    for groups in (("q", "v"), (True, False, True), "q,v"):
        model = architecture("gpt2")
        inject(model, LoRA(r=2, groups=groups), ["c_attn"])
        assert model.transformer.h[0].attn.c_attn.enable_lora == [True, False, True]
        _shake(model)
        files.append((peft_files(model, base="", task="lm"), loralib_files(model)))
    assert files[0][0] == files[1][0] == files[2][0]
    assert files[0][1] == files[1][1]


@pytest.mark.parametrize(
    ("kind", "changes", "last", "groups", "error", "match"),
    [
        *(
            (kind, changes, last, (True, False, True), ValueRangeError,
             r"are not 3 equal blocks one after the other: they are those of q, k, v, .*give `groups` by name")
            for kind, changes, last, blocks in FUSED if not blocks
        ),
        ("gpt2", {}, "c_attn", (True, False), ValueRangeError, "are not 2 equal blocks"),
        ("gpt2", {}, "c_fc", (True, False), ValueRangeError, "c_fc of GPT2MLP is not known to be a fused layer"),
        ("gpt2", {"n_embd": 48, "add_cross_attention": True}, "crossattention.c_attn", ("q",), ValueRangeError,
         "has no group q: it has k, v"),
        ("llama", {"hidden_size": 48, "head_dim": 12}, "q_proj", (True, False, True), ValueRangeError,
         "q_proj of LlamaAttention is not known to be a fused layer"),
        ("llama", {}, "q_proj", ("q",), ValueRangeError, "leave `groups` out, or choose other `targets`"),
        ("jetmoe", {}, "kv_proj", ("q",), ValueRangeError, "has no group q: it has k, v"),
    ],
)  # fmt: skip
def test_groups_that_a_layer_has_not_are_refused(kind, changes, last, groups, error, match):
    model = architecture(kind, **changes)
    with pytest.raises(error, match=match):
        inject(model, LoRA(r=1, groups=groups), [last])
    assert not any("lora" in name for name, _ in model.named_parameters())


def test_models_of_other_code_have_equal_blocks_by_number_alone():
    model = nn.ModuleDict({"q_proj": nn.Linear(6, 6), "qkv": nn.Linear(6, 12)})
    for target, groups, error, match in (
        ("q_proj", (True, False, True), ValueRangeError, "q_proj is not a fused layer"),
        ("qkv", ("q", "v"), ValueRangeError, r"not known which rows of qkv \(Linear\) .* `groups` as 1,0,1"),
        ("qkv", (True,) * 5, ShapeError, "12 rows of a layer do not divide into 5 equal groups"),
    ):
        with pytest.raises(error, match=match):
            inject(model, LoRA(r=1, groups=groups), [target])
    inject(model, LoRA(r=1, groups=(True, False, True)), ["qkv"])
    for groups, match in (
        (("q", "x"), "Unknown group 'x' of a fused layer; give `groups` as some of q, k, v"),
        ((), "No group of the fused layer is adapted"),
        (("q", True), "Unknown group 'True'"),
    ):
        with pytest.raises(ValueRangeError, match=match):
            LoRA(groups=groups)


@pytest.mark.parametrize("kind", ["bloom", "phi3"])
def test_loralibs_format_refuses_what_it_cannot_hold(kind):
    model = architecture(kind)
    inject(model, LoRA(r=1, groups=("q",)), ["query_key_value" if kind == "bloom" else "qkv_proj"])
    with pytest.raises(
        ValueRangeError, match=r"loralib's format holds groups as equal blocks.*`format` peft"
    ):
        loralib_files(model)


@pytest.mark.parametrize(
    ("model_type", "fused"),
    [
        ("minimax", "qkv_proj"),
        ("codegen", "qkv_proj"),
        ("gpt_bigcode", "c_attn"),
        ("bloom", "query_key_value"),
    ],
)
def test_the_reader_of_bases_has_the_same_table(model_type, fused):
    from subspace.adapters.base.fused_layers import part_rows

    whole = {"d_out": 4, "total": 12, "error": FormatError}
    with pytest.raises(FormatError, match=f"interleaved by heads in attn.{fused}"):
        part_rows("attn.q_proj", f"attn.{fused}", model_type=model_type, **whole)
    assert part_rows("attn.k_proj", "attn.qkv_proj", model_type="phi3", **whole) == (4, 8)


def test_a_run_trains_groups_by_name_and_goes_on(tmp_path):
    from safetensors.torch import load_file

    model = architecture("bloom", vocab_size=300)
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "text.txt").write_text("In the beginning was the word. " * 60)
    job = Job(
        model=str(tmp_path / "model"),
        data=str(tmp_path / "text.txt"),
        method=LoRA(r=2, groups="q,v"),
        tokenizer="bytes",
        recipe=Recipe(steps=4, batch=2, length=16, dtype="float32"),
        save_every=2,
        threads=1,
        accounts=False,
    )
    assert Job.from_document(json.loads(json.dumps(job.document()))) == job
    stops = iter([False, True])
    with pytest.raises(KeyboardInterrupt):
        train(job, tmp_path / "out", stopping=lambda: next(stops))
    assert train(job, tmp_path / "out").resumed == 2
    train(job, tmp_path / "whole")
    found, whole = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("out", "whole"))
    assert all(torch.equal(found[key], whole[key]) for key in whole)
    rows = rows_of(model, "transformer.h.0.self_attention.query_key_value", ("k",))[1][0]
    for key, value in found.items():
        if "lora_B" in key:
            untouched = torch.cat([value[start:stop] for start, stop in rows])
            assert not untouched.any() and (value.abs().sum(1) > 0).sum() == 64
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert record["settings"]["method"]["groups"] == ["q", "v"] and "rows" not in record["settings"]["method"]
