"""Bases of every kind, made in the test: task, tokens, limit, heads, and what is said of one that cannot be used."""

from __future__ import annotations

import json
import random
import shutil
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tiny_models import CAUSAL, KINDS, MASKED, PAIRED, TEXTS, edit_config, tiny  # noqa: E402
from torch import nn  # noqa: E402

from subspace.checkpoints.weights_files import model_files, model_weights  # noqa: E402
from subspace.errors import (  # noqa: E402
    FileError,
    FormatError,
    ShapeError,
    SubspaceError,
    UnsafeFileError,
    ValueRangeError,
)
from subspace.training.models import default_targets, load_base  # noqa: E402
from subspace.training.tasks import Classes, Halves, NextToken  # noqa: E402

LABELS = ("north", "south", "east")
AUTO = {"lm": "AutoModelForCausalLM", "seq2seq": "AutoModelForSeq2SeqLM"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Directory of each kind, made once; a test that changes one copies it."""
    root = tmp_path_factory.mktemp("bases")
    return {kind: tiny(kind, root / kind) for kind in KINDS}


@pytest.fixture
def copy(made, tmp_path):
    def copied(kind):
        return shutil.copytree(made[kind], tmp_path / kind)

    return copied


def _refused(error, match, given, **options):
    with pytest.raises(error, match=match) as caught:
        load_base(str(given), **options)
    assert "\n" not in str(caught.value)


def _gradients(model, loss):
    assert torch.isfinite(loss)
    loss.backward()
    found = [p.grad for p in model.parameters() if p.grad is not None]
    assert found and all(torch.isfinite(grad).all() for grad in found)
    assert any(grad.abs().max() > 0 for grad in found)


@pytest.mark.parametrize("kind", CAUSAL + PAIRED)
def test_a_language_model_is_the_one_that_transformers_loads(made, kind):
    base = load_base(str(made[kind]))
    task = "lm" if kind in CAUSAL else "seq2seq"
    oracle = getattr(transformers, AUTO[task]).from_pretrained(made[kind])
    ids = torch.arange(4, 20)[None]
    more = {} if task == "lm" else {"decoder_input_ids": ids}
    assert torch.equal(base.model(ids, **more).logits, oracle(ids, **more).logits)
    assert (base.task, base.model_type, base.name) == (task, kind, str(made[kind]))
    assert (base.heads, base.notes, base.model.training) == ((), (), False)


@pytest.mark.parametrize("kind", CAUSAL + PAIRED)
def test_a_language_model_can_be_trained_on_what_encode_gives(made, kind):
    base = load_base(str(made[kind]))
    text = "\n".join(TEXTS * 3)
    ids = base.encode(text)
    tokenizer = transformers.AutoTokenizer.from_pretrained(made[kind])
    assert tokenizer.decode(ids) == text  # nothing added, nothing cut
    assert len(ids) > 64
    kind_of_task = NextToken if base.task == "lm" else Halves
    task = kind_of_task.of(ids, len(text), batch=2, length=8, seed=0, held=0)
    _gradients(base.model, task.loss(base.model, 0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_classifier_has_a_new_head_and_can_be_trained(made, kind):
    base = load_base(str(made[kind]), labels=LABELS, length=12)
    assert base.task == "classify"
    rows = [base.encode(text) for text in [*TEXTS, "x", ""]]
    assert all(1 <= len(row) <= 12 for row in rows)
    task = Classes.of(rows, [0, 1, 2, 0, 1], batch=5, seed=0, pad=base.pad, held=0)
    logits = task._logits(base.model, range(5))[0]
    assert logits.shape == (5, 3)
    _gradients(base.model, task.loss(base.model, 0))
    expected = {
        **dict.fromkeys(CAUSAL, ("score",)),
        **dict.fromkeys(PAIRED, ("classification_head",)),
        **dict.fromkeys(MASKED, ("classifier",)),
        "bert": ("bert.pooler", "classifier"),  # saved without a pooler, as a model of masked tokens
    }
    assert base.heads == expected[kind]
    assert ", ".join(expected[kind]) in base.notes[0]
    assert [base.model.config.id2label[n] for n in range(3)] == list(LABELS)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_no_class(made, kind):
    base = load_base(str(made[kind]), labels=LABELS)
    rows = [base.encode(text) for text in ("void", TEXTS[1])]
    task = Classes.of(rows, [0, 1], batch=2, seed=0, pad=base.pad, held=0)
    together = task._logits(base.model, [0, 1])[0][0]
    alone = task._logits(base.model, [0])[0][0]
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)
    assert not torch.equal(task._logits(base.model, [0, 1])[0][1], together)


@pytest.mark.parametrize("kind", MASKED)
def test_a_model_of_masked_tokens_needs_labels(made, kind):
    _refused(ValueRangeError, f"{kind}.* predicts masked tokens.*give data with labels", made[kind])


def test_a_bert_that_is_a_decoder_is_a_causal_model(copy):
    folder = copy("bert")
    edit_config(folder, is_decoder=True)
    assert load_base(str(folder)).task == "lm"


def test_special_tokens_are_added_for_classes_alone(made):
    plain = load_base(str(made["llama"])).encode("the earth")
    special = load_base(str(made["llama"]), labels=LABELS).encode("the earth")
    assert special == [1, *plain]
    cut = load_base(str(made["bert"]), labels=LABELS, length=5).encode(TEXTS[0])
    assert len(cut) == 5 and (cut[0], cut[-1]) == (1, 2)


@pytest.mark.parametrize("kind", PAIRED)
def test_a_classifier_of_an_encoder_and_a_decoder_reads_one_end(made, kind):
    base = load_base(str(made[kind]), labels=LABELS, length=8)
    for text in ("", "x", "a</s>b", TEXTS[0]):
        ids = base.encode(text)
        assert ids[-1] == 2 and ids.count(2) == 1 and len(ids) <= 8


def test_limits(made, copy):
    limits = {kind: load_base(str(made[kind]), labels=LABELS).limit for kind in KINDS}
    assert limits == {**dict.fromkeys(KINDS, 64), "roberta": 60, "t5": None}
    base = load_base(str(made["roberta"]), labels=LABELS, length=500)
    ids = base.encode(" ".join(TEXTS * 5))
    assert len(ids) == 60
    assert torch.isfinite(base.model(torch.tensor([ids])).logits).all()
    with pytest.raises((IndexError, RuntimeError)):  # one more is one too many
        base.model(torch.tensor([[*ids, 5]]))
    assert "texts are cut at 60 tokens" in base.notes[1]
    assert load_base("embedded").limit == 256


def test_the_limit_of_a_tokenizer_stands_where_the_model_names_none():
    from subspace.training.models.tokens import limit_of

    model = SimpleNamespace(config=transformers.PretrainedConfig())
    assert limit_of(model, SimpleNamespace(model_max_length=77)) == 77
    assert limit_of(model, SimpleNamespace(model_max_length=10**30)) is None
    assert limit_of(model, None) is None


@pytest.mark.parametrize("tokenizer", ["auto", "bytes"])
def test_half_a_character_is_a_question_mark(made, tokenizer):
    base = load_base(str(made["gpt2"]), tokenizer=tokenizer)
    assert base.encode("a\ud800b") == base.encode("a?b")


def test_pads(made):
    pads = {kind: load_base(str(made[kind]), labels=LABELS).pad for kind in KINDS}
    assert pads == {**dict.fromkeys(KINDS, 3), "gpt2": 2, "llama": 2}
    base = load_base(str(made["gpt2"]), labels=LABELS, tokenizer="bytes")
    assert (base.pad, base.model.config.pad_token_id) == (0, 0)


def test_heads_are_a_function_of_the_seed_alone(made):
    def head(seed, *, shaken=0):
        torch.manual_seed(shaken)
        base = load_base(str(made["bert"]), labels=LABELS, seed=seed)
        return {n: p.detach().clone() for n, p in base.model.named_parameters() if n.startswith(base.heads)}

    first, again, other = head(3), head(3, shaken=9), head(4)
    assert set(first) == {f"{m}.{p}" for m in ("bert.pooler.dense", "classifier") for p in ("weight", "bias")}
    assert all(torch.equal(first[name], again[name]) for name in first)
    for name, value in first.items():
        if name.endswith("bias"):
            assert not value.any()
        else:
            assert not torch.equal(value, other[name])
            assert value.std() == pytest.approx(0.02, rel=0.25)  # BERT's initializer_range
    assert not torch.equal(first["bert.pooler.dense.weight"][:3], first["classifier.weight"])


@pytest.mark.parametrize("kind", ["llama", "bert", "t5"])
def test_random_numbers_and_the_voice_of_transformers_are_left_alone(made, kind):
    log = transformers.utils.logging
    log.set_verbosity_info()
    log.enable_progress_bar()
    torch.manual_seed(5)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    filters = list(warnings.filters)
    try:
        load_base(str(made[kind]), labels=LABELS)
        assert (log.get_verbosity(), log.is_progress_bar_enabled()) == (log.INFO, True)
    finally:
        log.set_verbosity_warning()
        log.disable_progress_bar()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()
    assert warnings.filters == filters


def test_nothing_is_printed(made, capfd):
    base = load_base(str(made["bert"]), labels=LABELS)
    base.encode(TEXTS[0] * 100)
    base = load_base(str(made["gpt2"]))
    base.encode(TEXTS[0] * 100)
    assert capfd.readouterr() == ("", "")


def _classifier(made, folder, labels):
    """A trained classifier as others save it: random, but from another seed than ours."""
    torch.manual_seed(11)
    named = {"id2label": dict(enumerate(labels)), "label2id": {label: n for n, label in enumerate(labels)}}
    model = transformers.BertForSequenceClassification.from_pretrained(made["bert"], **named)
    model.save_pretrained(folder)
    shutil.copy(made["bert"] / "tokenizer.json", folder)
    shutil.copy(made["bert"] / "tokenizer_config.json", folder)
    return model


def test_a_trained_classifier_of_the_same_labels_is_kept(made, tmp_path):
    model = _classifier(made, tmp_path, LABELS)
    base = load_base(str(tmp_path), labels=LABELS)
    assert base.heads == ()
    assert torch.equal(base.model.classifier.weight, model.classifier.weight)
    assert "is not trained" in base.notes[0]


@pytest.mark.parametrize("labels", [("x", "y", "z"), ("x", "y"), (*LABELS, "z")])
def test_one_of_other_labels_starts_anew(made, tmp_path, labels):
    model = _classifier(made, tmp_path, LABELS)
    base = load_base(str(tmp_path), labels=labels)
    assert base.heads == ("classifier",)
    n = len(labels)
    assert not torch.equal(base.model.classifier.weight, model.classifier.weight[:n])
    assert torch.equal(base.model.bert.pooler.dense.weight, model.bert.pooler.dense.weight)


def test_weights_in_other_files(made, tmp_path):
    """bfloat16, shards, and pytorch_model.bin; safetensors win where both are there."""
    model = transformers.AutoModelForCausalLM.from_pretrained(made["llama"])
    whole = model.state_dict()
    for name, dtype, options in [
        ("bf16", torch.bfloat16, {}),
        ("shards", torch.float32, {"max_shard_size": "30KB"}),
    ]:
        model.to(dtype).save_pretrained(tmp_path / name, **options)
        base = load_base(str(tmp_path / name), tokenizer="bytes")
        assert {p.dtype for p in base.model.parameters()} == {torch.float32}
        for key, value in base.model.state_dict().items():
            assert torch.equal(value, whole[key].to(torch.bfloat16).float()), key
    assert (tmp_path / "shards" / "model.safetensors.index.json").exists()
    old = shutil.copytree(made["llama"], tmp_path / "old")
    torch.save({key: value + 1 for key, value in whole.items()}, old / "pytorch_model.bin")
    assert torch.equal(
        load_base(str(old)).model.lm_head.weight, load_base(str(made["llama"])).model.lm_head.weight
    )
    (old / "model.safetensors").unlink()
    assert torch.equal(load_base(str(old)).model.lm_head.weight, whole["lm_head.weight"] + 1)


class _Evil:
    def __reduce__(self):
        return print, ("run",)


def test_no_code_of_a_stranger_is_run(copy, capfd):
    folder = copy("llama")
    (folder / "model.safetensors").unlink()
    torch.save({"lm_head.weight": _Evil()}, folder / "pytorch_model.bin")
    _refused(UnsafeFileError, "could run code when it is loaded", folder)
    assert "run" not in capfd.readouterr().out


def test_other_files_and_entries_have_no_say(copy, tmp_path):
    """Each of them would make transformers load other weights, other layers, or code."""
    folder = copy("llama")
    expected = load_base(str(folder)).model.state_dict()
    (folder / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "no/where", "peft_type": "LORA"})
    )
    (folder / "modeling_own.py").write_text("raise SystemExit('run')\n")
    edit_config(
        folder,
        auto_map={"AutoModelForCausalLM": "modeling_own.Model", "AutoConfig": "modeling_own.Config"},
        attn_implementation="org/kernel",
        transformers_weights="../other.bin",
        torch_dtype="bfloat16",
    )
    base = load_base(str(folder))
    assert "not run" in base.notes[0]
    found = base.model.state_dict()
    assert set(found) == set(expected) and all(torch.equal(found[key], expected[key]) for key in found)


def test_the_embedded_base():
    base = load_base("embedded")
    assert (base.task, base.model_type, base.pad, base.heads) == ("lm", "llama", 0, ())
    assert base.encode("é\n") == [0xC3, 0xA9, 10]
    text = " ".join(TEXTS)
    task = NextToken.of(base.encode(text), len(text), batch=2, length=8, seed=0, held=0)
    _gradients(base.model, task.loss(base.model, 0))
    assert default_targets(base.model) == ("q_proj", "v_proj")
    _refused(
        ValueRangeError,
        "embedded model cannot classify, and the data have 3 labels.*turn `labels` off",
        "embedded",
        labels=LABELS,
    )


def test_bytes_in_place_of_a_tokenizer(made, tmp_path):
    base = load_base(str(made["gpt2"]), tokenizer="bytes")
    assert base.encode("ab") == [97, 98]
    assert load_base(str(made["bert"]), tokenizer="bytes", labels=LABELS, length=3).encode("abcd") == [
        97,
        98,
        99,
    ]
    bare = tiny("gpt2", tmp_path / "bare", tokenizer=False)
    _refused(FileError, "No tokenizer in .*none of tokenizer.json.*give `tokenizer` bytes", bare)
    assert load_base(str(bare), tokenizer="bytes").encode("a") == [97]
    small = tiny("gpt2", tmp_path / "small", tokenizer=False, vocab_size=255)
    _refused(
        ValueRangeError, "cannot read bytes: it has 255 token ids, fewer than 256", small, tokenizer="bytes"
    )


def test_ids_that_the_model_has_not(made, tmp_path):
    small = tiny("gpt2", tmp_path / "small", vocab_size=150)
    base = load_base(str(small))
    with pytest.raises(ShapeError, match="gives the id 282 for the earth, and the model has 150"):
        base.encode("the earth")


def test_wrong_arguments(made):
    _refused(ValueRangeError, "Unknown tokenizer 'words'; .* auto or bytes", made["gpt2"], tokenizer="words")
    _refused(ValueRangeError, "Invalid `length` 0", made["gpt2"], length=0)
    for labels in (["a"], ["a", "b", "a"]):
        _refused(
            ValueRangeError, "at least two different labels, and these are a", made["gpt2"], labels=labels
        )


def test_a_path_without_a_model(made, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # nothing here is a question to a server
    monkeypatch.chdir(tmp_path)
    _refused(
        FileError,
        "Cannot read the model .*none: No such file or directory; give 'embedded'",
        tmp_path / "none",
    )
    _refused(FileError, "No such file", "./a/b")
    (tmp_path / "runs").mkdir()
    _refused(
        FileError,
        "No such file or directory: runs/none; runs is here, so that the Hugging Face hub was not asked",
        "runs/none",
    )
    _refused(FileError, "model model.safetensors: No such file", "model.safetensors")
    _refused(FileError, "Not a directory; give", made["gpt2"] / "model.safetensors")
    _refused(FileError, "No config.json and no weights.*which holds none", "runs")
    (tmp_path / "runs" / "adapter_config.json").write_text("{}")
    _refused(FileError, "which holds adapter_config.json; this is an adapter: give the model", "runs")
    (tmp_path / "runs" / "config.json").write_text("{}")
    (tmp_path / "runs" / "tf_model.h5").write_text("{}")
    _refused(
        FileError,
        r"No weights \(model.safetensors.*holds adapter_config.json, config.json, tf_model",
        "runs",
    )


@pytest.mark.parametrize(
    ("config", "error", "match"),
    [
        ("{", FileError, "Invalid JSON file: .*config.json"),
        ("[]", FileError, "the top level is a list"),
        ("{}", FormatError, "config.json has no model_type"),
        ('{"model_type": ["bert"]}', FormatError, "has model_type .'bert'.;"),
        ('{"model_type": "wonder"}', FormatError, "does not know .*: config.json has model_type wonder"),
        ('{"model_type": "wonder", "auto_map": {"AutoConfig": "c.C"}}', FormatError, "code of its own.*never run"),
        ('{"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}', FormatError, "are quantised"),
        ('{"model_type": "llama", "hidden_size": "wide"}', FormatError, "cannot (read config.json|build the model) of"),
        ('{"model_type": "vit"}', ValueRangeError, "cannot predict the next token: .* of the type vit"),
    ],
)  # fmt: skip
def test_a_configuration_of_no_use(copy, config, error, match):
    folder = copy("llama")
    (folder / "config.json").write_text(config)
    _refused(error, match, folder)


def test_no_classifier_of_that_type(copy):
    folder = copy("llama")
    (folder / "config.json").write_text('{"model_type": "blenderbot"}')
    _refused(
        ValueRangeError,
        "cannot classify: transformers has no such model of the type blenderbot",
        folder,
        labels=LABELS,
    )


@pytest.mark.parametrize(("kind", "labels"), [("llama", ()), ("llama", LABELS), ("bert", LABELS), ("t5", ())])
def test_weights_that_do_not_fit(copy, kind, labels):
    """Half of the layers absent; a width that is another; and for a language model the head absent."""
    from safetensors.torch import load_file, save_file

    folder = copy(kind)
    path = folder / "model.safetensors"
    # copies: some versions of safetensors map the file, which is written over here
    state = {key: value.clone() for key, value in load_file(path).items()}
    half = {key: value for key, value in state.items() if ".1." not in key}
    assert 0 < len(half) < len(state)
    save_file(half, path, metadata={"format": "pt"})
    _refused(
        FormatError,
        "weights of .* do not fit its config.json: .* parameters are missing",
        folder,
        labels=labels,
    )
    save_file(state, path, metadata={"format": "pt"})
    if kind != "t5":
        edit_config(folder, intermediate_size=48)
        _refused(FormatError, "do not fit its config.json", folder, labels=labels)
    if kind == "llama" and not labels:
        edit_config(folder, intermediate_size=64)
        save_file({k: v for k, v in state.items() if k != "lm_head.weight"}, path, metadata={"format": "pt"})
        _refused(FormatError, r"1 of \d+ parameters are missing .*\(lm_head.weight\)", folder)


def test_tied_weights_are_not_missing(copy):
    from safetensors.torch import load_file, save_file

    folder = copy("llama")
    state = {key: value.clone() for key, value in load_file(folder / "model.safetensors").items()}
    del state["lm_head.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    edit_config(folder, tie_word_embeddings=True)
    model = load_base(str(folder)).model
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert torch.equal(model.lm_head.weight, state["model.embed_tokens.weight"])


def test_weights_beyond_the_model_are_told(copy):
    from safetensors.torch import load_file, save_file

    folder = copy("llama")
    state = {key: value.clone() for key, value in load_file(folder / "model.safetensors").items()}
    state["model.extra.weight"] = torch.zeros(2)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    assert load_base(str(folder)).notes == ("1 stored tensor not used by the model: model.extra.weight",)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "tokenizer.json",
            {"normalizer": {"type": "Replace", "pattern": {"Regex": r"^(([a-zA-Z ]+)+)+\d$"}, "content": ""}},
            "cannot use the tokenizer of .*: PanicException: .*; save the tokenizer again",
        ),
        ("tokenizer_config.json", {"model_max_length": "x"}, "cannot use the tokenizer of .*: TypeError"),
    ],
)
def test_a_tokenizer_that_fails_on_a_text(copy, file, change, message):
    folder = copy("llama")
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    base = load_base(str(folder))
    with pytest.raises(FormatError, match=message):
        base.encode(" ".join(TEXTS))


def test_a_number_of_labels_is_nothing_that_is_allocated(copy):
    folder = copy("llama")
    edit_config(folder, num_labels=10**9)
    assert load_base(str(folder)).task == "lm"


@pytest.mark.parametrize(
    ("kind", "key"), [("llama", "num_hidden_layers"), ("gpt2", "n_layer"), ("t5", "num_decoder_layers")]
)
def test_layers_without_end_are_refused_before_one_is_built(copy, kind, key):
    folder = copy(kind)
    edit_config(folder, **{key: 10**7})
    _refused(FormatError, f"Invalid {key} in config.json: 10000000, and no model has more than 2,000", folder)


def test_damaged_files(copy):
    folder = copy("bert")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    _refused(SubspaceError, "model.safetensors", folder, labels=LABELS)
    folder = copy("gpt2")
    (folder / "tokenizer.json").write_text("{")
    _refused(FormatError, "transformers cannot read the tokenizer of .*give `tokenizer` bytes", folder)


def test_a_tokenizer_with_code_of_its_own(copy, capfd):
    folder = copy("llama")
    (folder / "own.py").write_text("print('run')\n")
    stated = {"auto_map": {"AutoTokenizer": ["own.Own", None]}, "tokenizer_class": "Own"}
    (folder / "tokenizer_config.json").write_text(json.dumps(stated))
    _refused(
        FormatError, "cannot read the tokenizer.*(never run|does not exist).*give `tokenizer` bytes", folder
    )
    assert capfd.readouterr() == ("", "")


def test_transformers_not_installed(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    _refused(FileError, r"transformers is not installed.*pip install 'lora-subspace\[hf\]'", made["gpt2"])
    assert load_base("embedded").task == "lm"


class _Hub:
    """What the hub's client does, with one model in the cache and none to be reached."""

    def __init__(self, folder, error):
        self.folder, self.error, self.asked = folder, error, []

    def model_info(self, repo, *, revision=None, timeout=None):
        raise self.error

    def snapshot_download(self, repo, *, revision=None, allow_patterns=None, local_files_only=False):
        self.asked.append((repo, revision, allow_patterns, local_files_only))
        if local_files_only and repo != "org/cached":
            raise FileNotFoundError("not in the cache")
        return str(self.folder)


@pytest.fixture
def server(made, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    fake = _Hub(made["gpt2"], ConnectionError("no route\nto host"))
    monkeypatch.setattr(hub, "HfApi", lambda: fake)
    monkeypatch.setattr(hub, "snapshot_download", fake.snapshot_download)
    return fake


def test_a_model_of_the_hub(server, monkeypatch):
    names = ["config.json", "model.safetensors", "pytorch_model.bin", "run.py", "tokenizer.json"]
    listed = SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in names])
    monkeypatch.setattr(server, "model_info", lambda *_, **__: listed)
    base = load_base("org/name@v1")
    assert base.name == "org/name@v1"
    assert server.asked == [("org/name", "v1", ["model.safetensors", "config.json", "tokenizer.json"], False)]


def test_without_a_connection(server):
    assert load_base("org/cached").name == "org/cached"
    _refused(
        FileError, "No such file or directory: org/name, and no such repository in the cache", "org/name"
    )
    _refused(FileError, "No such file or directory: gpt3, and no such repository", "gpt3")


def test_a_model_that_the_hub_has_not(server):
    from huggingface_hub.errors import RepositoryNotFoundError

    response = type("Response", (), {"headers": {}, "request": None, "status_code": 404})()
    server.error = RepositoryNotFoundError("404", response=response)
    _refused(
        FileError, "no such repository on the Hugging Face hub: org/name; .*private or gated", "org/name"
    )


def test_the_hub_needs_its_client(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    _refused(FileError, r"No such file or directory: org/name; .*'lora-subspace\[hub\]'", "org/name")


def test_the_files_of_a_base():
    shards = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    old = ["pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json"]
    new = [
        "config.json",
        "model.safetensors.index.json",
        *shards,
        "vocab.txt",
        "spiece.model",
        "chat_template.jinja",
    ]
    others = ["README.md", "adapter_config.json", "modeling.py", "onnx/config.json", "tf_model.h5"]
    assert set(model_files([*old, *new, *others], tokenizer=True)) == set(new)
    assert set(model_files(["config.json", *old], tokenizer=True)) == {"config.json", *old}
    assert model_weights(["config.json", "model.fp16.safetensors"], only_known=True) is None


TARGETS = {"gpt2": ("c_attn",), "llama": ("q_proj", "v_proj"), "bert": ("query", "value"), "t5": ("q", "v")}


@pytest.mark.parametrize("kind", TARGETS)
def test_default_targets(made, kind):
    model = load_base(str(made[kind]), labels=LABELS).model
    assert default_targets(model) == TARGETS[kind]


def test_default_targets_of_a_model_without_attention():
    model = nn.ModuleDict({"up": nn.Linear(4, 4), "down": nn.Linear(4, 4), "query": nn.Linear(4, 4)})
    with pytest.raises(
        ValueRangeError, match=r"query\+value.*the model has up, down, query; name the layers"
    ):
        default_targets(model)
    half = nn.ModuleDict({"q_proj": nn.Linear(4, 4), "v_proj": nn.Embedding(4, 4)})
    with pytest.raises(ValueRangeError, match="the model has q_proj"):
        default_targets(half)
