"""Which layers are adapted: all-linear as PEFT has it, exclusions, and the table of every layer's state."""

from __future__ import annotations

import json
import re
import sys

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from tiny_architectures import CLASSIFIERS, EVERY, architecture, inputs  # noqa: E402
from tiny_models import TEXTS, tiny  # noqa: E402
from torch import nn  # noqa: E402

from subspace.cli import main  # noqa: E402
from subspace.errors import ValueRangeError  # noqa: E402
from subspace.training import Full, Job, LoRA, inject, layer_table, targets_in  # noqa: E402


@pytest.mark.parametrize("kind", EVERY)
def test_all_linear_is_that_of_peft(kind):
    peft = pytest.importorskip("peft")
    from peft.tuners.tuners_utils import _maybe_include_all_linear_layers

    model = architecture(kind)
    found = set(targets_in(model, ["all-linear"]))
    task = {"task_type": "SEQ_CLS"} if kind in CLASSIFIERS else {}
    config = _maybe_include_all_linear_layers(peft.LoraConfig(target_modules="all-linear", **task), model)
    expected = config.target_modules
    heads = {name for name in expected if name.split(".")[0] in ("classifier", "score")}
    assert found == expected - heads
    # PEFT adapts the layers inside a head of several, which is trained whole in any case
    assert not heads or (kind in CLASSIFIERS and isinstance(model.classifier, nn.Module))
    output = model.get_output_embeddings()
    assert all(model.get_submodule(name) is not output for name in found)


def test_all_linear_of_other_models_is_every_linear_layer_and_goes_with_other_patterns():
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "e": nn.Embedding(4, 4), "c": nn.Conv1d(4, 4, 1)})
    assert targets_in(model, ["all-linear"]) == targets_in(model, "All-Linear") == ["a"]
    assert targets_in(model, ["e", "all-linear"]) == ["a", "e"]
    with pytest.raises(ValueRangeError, match="No layer matches the target 'all-linear'; the model has e"):
        targets_in(nn.ModuleDict({"e": nn.Embedding(4, 4)}), ["all-linear"])


def test_what_is_excluded_is_not_adapted():
    model = architecture("llama")
    chosen = inject(model, LoRA(r=1), ["all-linear"], exclude=["down_proj", "layers.0", "*.[kv]_proj"])
    assert [name.removeprefix("model.layers.1.") for name in chosen] == [
        "self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
    ]  # fmt: skip
    fresh = architecture("llama")
    with pytest.raises(
        ValueRangeError, match="No target matches 'o_proj', which is to be excluded; the targets are q_proj"
    ):
        inject(fresh, LoRA(r=1), ["q_proj"], exclude="o_proj")
    with pytest.raises(ValueRangeError, match="All targets are excluded"):
        inject(fresh, LoRA(r=1), ["q_proj"], exclude=["model"])


def test_what_is_excluded_stays_frozen_in_full_fine_tuning():
    model = architecture("llama")
    inject(model, Full(), [], exclude=["embed_tokens", "layers.0"])
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, _ in model.named_parameters() if "embed_tokens" in n or ".layers.0." in n}
    inject(model, Full(everything=False), ["q_proj"], exclude=["layers.0"])
    assert [n for n, p in model.named_parameters() if p.requires_grad] == [
        "model.layers.1.self_attn.q_proj.weight"
    ]
    with pytest.raises(ValueRangeError, match="No module matches 'zz', which is to be excluded"):
        inject(model, Full(), [], exclude=["zz"])


@pytest.mark.parametrize("kind", ["gpt2", "llama", "mixtral", "bert", "t5"])
def test_the_table_has_every_parameter_once(kind):
    model = architecture(kind)
    plain = sum(p.numel() for p in model.parameters())
    inject(
        model,
        LoRA(r=2),
        ["all-linear"],
        keep=["wpe" if kind == "gpt2" else "*norm*" if kind != "bert" else "LayerNorm"],
    )
    table = layer_table(model, lambda: model(**inputs(kind)))
    assert table.parameters == plain
    assert table.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(row.flops for row in table.layers) <= table.flops
    states = {row.name: row.state for row in table.layers}
    assert {name for name, state in states.items() if state == "adapted"} == set(
        targets_in(architecture(kind), ["all-linear"])
    )
    assert {"adapted", "kept", "frozen"} == set(states.values())
    assert json.loads(json.dumps(table.document())) == table.document()


def test_its_numbers_are_those_that_can_be_counted_by_hand():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.fc, self.norm = nn.Embedding(9, 6), nn.Linear(6, 8), nn.LayerNorm(8)
            self.head, self.extra = nn.Linear(6, 9, bias=False), nn.Parameter(torch.zeros(5))
            self.idle = nn.Linear(3, 3)
            self.head.weight = self.table.weight

        def forward(self, ids):
            h = self.norm(self.fc(self.table(ids)))
            return self.head(h[..., :6] @ torch.eye(6)) + self.extra.sum()

    model = Net()
    inject(model, LoRA(r=2), ["fc"], keep=["norm"])
    model.train()
    table = layer_table(model, lambda: model(torch.arange(6).view(2, 3)))
    assert model.training and model.fc.training
    rows = {
        row.name: (row.type, row.state, row.shape, row.output, row.parameters, row.trainable, row.flops)
        for row in table.layers
    }
    n = 6  # vectors in the batch
    assert rows == {
        "": ("Net", "frozen", (5,), (2, 3, 9), 5, 0, 2 * n * 6 * 6),
        "table": ("Embedding", "frozen", (9, 6), (2, 3, 6), 54, 0, 0),
        "fc": ("Linear", "adapted", (8, 6), (2, 3, 8), 56, 2 * (8 + 6), 2 * n * (6 * 8 + 2 * 6 + 2 * 8)),
        "norm": ("LayerNorm", "kept", (8,), (2, 3, 8), 16, 16, 0),
        "head": ("Linear", "frozen", (9, 6), (2, 3, 9), 0, 0, 2 * n * 6 * 9),
        "idle": ("Linear", "frozen", (3, 3), None, 12, 0, 0),
    }  # fmt: skip
    assert table.flops == sum(row[-1] for row in rows.values())
    *_, states, totals, flops = table.lines()
    assert states == "6 layers: 1 adapted, 4 frozen, 1 kept"
    assert totals == "143 parameters, 44 trained (30.8 %)"
    assert flops.endswith("FLOPs in the forward pass of one micro-batch")
    without = layer_table(model)
    assert without.flops is None and all(row.flops is None and row.output is None for row in without.layers)
    whole = architecture("llama")
    inject(whole, Full(), [])
    assert {row.state for row in layer_table(whole).layers} == {"trained"}


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(TEXTS * 30), encoding="utf-8")
    return str(path)


@pytest.fixture
def subspace(capsys, monkeypatch):
    """Give a function that runs the command line in this process: exit code, output, errors."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["subspace", *map(str, words)])
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code
        return code, *capsys.readouterr()

    return call


WORDS = (
    "--batch",
    "2",
    "--length",
    "16",
    "--steps",
    "2",
    "--threads",
    "1",
    "--no-accounts",
    "--dtype",
    "float32",
)


def test_a_dry_run_writes_nothing_and_prints_what_the_run_records(tmp_path, text, monkeypatch, subspace):
    folder = tiny("gpt2", tmp_path / "model")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    words = ["train", "--model", str(folder), "--data", text, *WORDS, "--targets", "all-linear", "--exclude", "c_proj",
             "--exclude", "h.0", "--keep", "ln_f"]  # fmt: skip
    code, out, err = subspace(*words, "--dry-run", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["schema"] == "subspace.layers/1"
    code, out, err = subspace(*words, "--dry-run", "-o", "out")
    assert code == 0, err
    assert "transformer.h.1.attn.c_attn" in out and "adapted" in out
    assert not list((tmp_path / "empty").iterdir())
    states = {row["name"]: row["state"] for row in found["layers"]}
    assert {name for name, state in states.items() if state == "adapted"} == {
        "transformer.h.1.attn.c_attn", "transformer.h.1.mlp.c_fc",
    }  # fmt: skip
    assert states["transformer.ln_f"] == "kept" and states["transformer.wte"] == "frozen"
    code, out, err = subspace(*words, "-o", "out")
    assert code == 0, err
    record = json.loads((tmp_path / "empty/out/run.json").read_text())
    assert record["layers"] == found
    assert record["settings"]["exclude"] == ["c_proj", "h.0"]
    assert record["trainable"] == found["trainable"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--json", "-o", "out"], 2, "--json needs --dry-run"),
        ([], 2, "Missing option '-o' / '--out'"),
        (["--dry-run", "--exclude", "up_proj"], 1, "No target matches 'up_proj', which is to be excluded"),
        (["--dry-run", "--exclude", "model"], 1, "All targets are excluded: .* other --targets, or narrow --exclude"),
        (["--dry-run", "--groups", "q,v"], 1, "is not a fused layer, of which --groups are parts"),
        (["--dry-run", "--groups", "1,2"], 2, "neither names such as q,v nor 0 and 1"),
        (["-o", "out", "--targets", "embed_tokens"], 1, "adapter of model.embed_tokens would be bypassed: ByteLlama"),
        (["--dry-run", "--targets", "embed_tokens"], 1, "adapter of model.embed_tokens would be bypassed: ByteLlama"),
    ],
)  # fmt: skip
def test_what_a_dry_run_refuses(words, code, message, text, tmp_path, monkeypatch, subspace):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    found, _, err = subspace("train", "--data", text, *WORDS, *words)
    assert found == code
    assert re.search(message, err), err
    assert sorted(tmp_path.iterdir()) == before


def test_a_run_from_before_there_were_exclusions_goes_on(text):
    assert "exclude" not in Job(data=text).settings()
    job = Job(data=text, exclude="down_proj")
    assert job.settings()["exclude"] == ["down_proj"] and Job.from_document(job.document()) == job
