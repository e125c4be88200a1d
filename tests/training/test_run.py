"""A run as a whole: what it leaves, who can load that, and what becomes of one that is killed."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import TEXTS, tiny

import subspace
from subspace.training import IA3, Full, Job, LoRA, Recipe, train
from subspace.training.output_folder import sole_use
from subspace.training.run_folder import RUN, RunFolder

pytest.importorskip("transformers")


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(TEXTS * 30), encoding="utf-8")
    return str(path)


@pytest.fixture
def labelled(tmp_path):
    rows = [f"{text}\t{n % 2}" for n in range(40) for text in TEXTS[: 1 + n % 2]]
    path = tmp_path / "rows.tsv"
    path.write_text("\n".join(["document\tlabel", *rows]) + "\n", encoding="utf-8")
    return str(path)


def _recipe(**given):
    return Recipe(**{"steps": 6, "batch": 4, "length": 16, "lr": 1e-2, "dtype": "float32", **given})


def _job(model, data, **given):
    return Job(
        **{"model": str(model), "data": data, "recipe": _recipe(), "threads": 1, "accounts": False, **given}
    )


def _tensors(path):
    return load_file(path / "adapter_model.safetensors")


def _logits(model, ids):
    model.eval()
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


@pytest.mark.parametrize(
    ("kind", "method", "targets"),
    [
        ("gpt2", LoRA(r=4), ()),
        ("gpt2", LoRA(r=4, alpha=6, groups=(True, False, True)), ("c_attn",)),
        ("gpt2", LoRA(r=4, alpha=6, rslora=True, groups=(True, False, True)), ("c_attn",)),
        ("llama", LoRA(r=4, rslora=True), ()),
        ("llama", LoRA(r=4), ("layers.1.*.q_proj", "embed_tokens")),
        ("llama", IA3(feedforward=("down_proj",)), ("k_proj", "v_proj", "down_proj")),
        ("gpt2", IA3(), ("c_attn",)),
    ],
)
def test_peft_loads_what_was_trained_and_computes_the_same(
    kind, method, targets, tmp_path, text, monkeypatch
):
    import peft
    import transformers

    from subspace.training import run

    folder = tiny(kind, tmp_path / "model")
    seen = {}
    monkeypatch.setattr(run._Training, "_account", lambda self, *told: seen.update(model=self.model))
    train(_job(folder, text, method=method, targets=targets, accounts=True), tmp_path / "out")
    ids = torch.arange(20).view(2, 10)
    base = transformers.AutoModelForCausalLM.from_pretrained(folder)
    theirs = _logits(peft.PeftModel.from_pretrained(base, tmp_path / "out"), ids)
    torch.testing.assert_close(_logits(seen["model"], ids), theirs, rtol=1e-4, atol=1e-5)
    base = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert not torch.allclose(_logits(base, ids), theirs, atol=1e-3)


@pytest.mark.parametrize("kind", ["bert", "electra", "gpt2", "t5"])
def test_a_classifier_is_trained_saved_and_loaded_by_peft(kind, tmp_path, labelled, monkeypatch):
    import peft
    import transformers

    from subspace.training import run

    folder = tiny(kind, tmp_path / "model")
    seen = {}
    monkeypatch.setattr(run._Training, "_account", lambda self, *told: seen.update(model=self.model))
    done = train(_job(folder, labelled, accounts=True), tmp_path / "out")
    measures = {"loss", "accuracy", "macro_f1", "balanced_accuracy", "majority"}
    assert measures == set(done.record["held_out"]["after"])
    assert done.record["kept"] and not any("encoder.layer" in name for name in done.record["kept"])
    ids = torch.tensor([[5, 6, 7, 8, 2], [9, 4, 6, 5, 2]])
    base = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    base.config.pad_token_id = seen["model"].config.pad_token_id
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "out")
    torch.testing.assert_close(_logits(seen["model"], ids), _logits(theirs, ids), rtol=1e-4, atol=1e-5)


def test_only_what_is_adapted_or_kept_is_in_the_file(tmp_path, labelled):
    folder = tiny("bert", tmp_path / "model")
    train(_job(folder, labelled, keep=("encoder.layer.1.output.LayerNorm",)), tmp_path / "out")
    kinds = {name.removeprefix("base_model.model.") for name in _tensors(tmp_path / "out")}
    kept = {name for name in kinds if "lora_" not in name}
    assert kept == {
        *(f"{module}.{p}" for module in ("bert.pooler.dense", "classifier") for p in ("weight", "bias")),
        *(f"bert.encoder.layer.1.output.LayerNorm.{p}" for p in ("weight", "bias")),
    }
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert config["modules_to_save"] == ["bert.encoder.layer.1.output.LayerNorm", "bert.pooler", "classifier"]
    assert config["target_modules"] == ["query", "value"] and config["task_type"] == "SEQ_CLS"


def test_our_own_commands_read_the_run_and_take_its_start_away(tmp_path, text):
    folder = tiny("llama", tmp_path / "model")
    for r in (2, 8):
        train(_job(folder, text, method=LoRA(r=r)), tmp_path / f"r{r}")
    result = subspace.compare(
        tmp_path / "r2", tmp_path / "r8", init=(tmp_path / "r2/start", tmp_path / "r8/start")
    )
    assert {(row.init, row.module[-6:]) for row in result.modules} == {
        (init, end) for init in ("kept", "removed") for end in ("q_proj", "v_proj")
    }
    assert len(result.modules) == 8
    amplified = subspace.amplify(folder, tmp_path / "r2")
    assert all(rank.amplification > 0 for module in amplified.modules for rank in module.ranks)


def test_the_start_is_a_function_of_seed_module_and_rank(tmp_path, text):
    folder = tiny("llama", tmp_path / "model")
    starts = {}
    for name, r, seed in (("a", 4, 0), ("b", 4, 0), ("c", 4, 1), ("d", 2, 0)):
        train(_job(folder, text, method=LoRA(r=r, seed=seed), recipe=_recipe(steps=1)), tmp_path / name)
        starts[name] = _tensors(tmp_path / name / "start")
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    assert torch.equal(starts["a"][key], starts["b"][key])
    assert not torch.equal(starts["a"][key], starts["c"][key])
    assert not torch.allclose(starts["a"][key][:2], starts["d"][key])
    assert not torch.equal(starts["a"][key], starts["a"][key.replace("q_proj", "v_proj")])
    assert all(not value.any() for name, value in starts["a"].items() if "lora_B" in name)


def test_loralib_s_format(tmp_path, text):
    folder = tiny("gpt2", tmp_path / "model")
    job = _job(
        folder, text, method=LoRA(r=2, groups=(True, False, True)), targets=("c_attn",), format="loralib"
    )
    train(job, tmp_path / "out")
    assert not (tmp_path / "out/adapter_config.json").exists()
    state = torch.load(tmp_path / "out/adapter.pt", weights_only=True)
    assert state["transformer.h.0.attn.c_attn.lora_A"].shape == (4, 32)
    assert state["transformer.h.0.attn.c_attn.lora_B"].shape == (64, 2)
    adapter = subspace.load_adapter(tmp_path / "out", scale=8.0, enable_lora=(True, False, True))
    assert len(adapter) == 4
    start = torch.load(tmp_path / "out/start/adapter.pt", weights_only=True)
    assert not start["transformer.h.0.attn.c_attn.lora_B"].any()


@pytest.mark.parametrize("targets", [(), ("q_proj", "v_proj")])
def test_full_fine_tuning_is_a_model_whose_update_is_analysed(targets, tmp_path, text):
    import transformers

    folder = tiny("llama", tmp_path / "model")
    train(_job(folder, text, method=Full(everything=not targets), targets=targets), tmp_path / "out")
    base, tuned = (
        transformers.AutoModelForCausalLM.from_pretrained(p).state_dict() for p in (folder, tmp_path / "out")
    )
    changed = {name for name in base if not torch.equal(base[name], tuned[name])}
    if targets:
        assert changed == {f"model.layers.{n}.self_attn.{p}_proj.weight" for n in (0, 1) for p in "qv"}
    else:
        assert "model.norm.weight" in changed and "model.embed_tokens.weight" in changed
    train(_job(folder, text), tmp_path / "lora")
    tuned = subspace.load_adapter(tmp_path / "out", base=folder)
    result = subspace.compare(tuned, tmp_path / "lora", side="left")
    assert len(result.modules) == 4


def test_a_run_that_is_done_is_not_done_again(tmp_path, text):
    folder = tiny("llama", tmp_path / "model")
    first = train(_job(folder, text), tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    again = train(_job(folder, text), tmp_path / "out")
    assert (first.resumed, again.resumed, again.files) == (0, 6, ())
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
    assert not list((tmp_path / "out").rglob("optimizer*"))
    rows = [json.loads(row) for row in (tmp_path / "out/log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]


def test_other_settings_are_refused_and_named_unless_it_begins_anew(tmp_path, text):
    folder = tiny("llama", tmp_path / "model")
    train(_job(folder, text), tmp_path / "out")
    (tmp_path / "out/mine.txt").write_text("kept")
    other = _job(folder, text, method=LoRA(r=4), recipe=_recipe(lr=0.5))
    with pytest.raises(subspace.SubspaceError, match=r"method .*, lr 0\.01, now 0\.5"):
        train(other, tmp_path / "out")
    train(other, tmp_path / "out", overwrite=True)
    assert (
        _tensors(tmp_path / "out")["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"].shape[0]
        == 4
    )
    assert (tmp_path / "out/mine.txt").read_text() == "kept"
    Path(text).write_text("other text " * 500)
    with pytest.raises(subspace.SubspaceError, match="data_sha256"):
        train(other, tmp_path / "out")


def test_a_folder_of_something_else_is_left_alone(tmp_path, text):
    folder = tiny("llama", tmp_path / "model")
    before = sorted(folder.iterdir())
    with pytest.raises(
        subspace.SubspaceError, match=r"Not the directory of a run: .* holds config.json.*, but no run.json"
    ):
        train(_job(folder, text), folder, overwrite=True)
    assert sorted(folder.iterdir()) == before
    (tmp_path / "file").write_text("x")
    with pytest.raises(subspace.SubspaceError, match=r"Not a directory: .*file is a file"):
        train(_job(folder, text), tmp_path / "file")


def test_asked_to_stop_it_saves_and_goes_on_to_the_same_bits(tmp_path, text):
    folder = tiny("gpt2", tmp_path / "model")  # with dropout of its own
    job = _job(folder, text, method=LoRA(r=2, dropout=0.1), recipe=_recipe(accumulate=2))
    train(job, tmp_path / "whole")
    told = []
    with pytest.raises(KeyboardInterrupt):
        train(
            job, tmp_path / "cut", progress=lambda n, _, note: told.append(n), stopping=lambda: told[-1] == 4
        )
    assert (tmp_path / "cut/checkpoint-4/optimizer.safetensors").exists()
    assert not (tmp_path / "cut/adapter_model.safetensors").exists()
    done = train(job, tmp_path / "cut")
    assert done.resumed == 4
    _same_run(tmp_path / "whole", tmp_path / "cut")


def _same_run(one, other):
    names = [sorted(p.name for p in path.rglob("*.safetensors")) for path in (one, other)]
    assert names[0] and "optimizer.safetensors" not in names[0]
    files = [path.relative_to(one) for path in one.rglob("*.safetensors")]
    files = [path for path in files if not str(path).startswith("checkpoint")]
    assert all((one / name).read_bytes() == (other / name).read_bytes() for name in files)
    rows = [
        [json.loads(row) for row in (path / "log.jsonl").read_text().splitlines()] for path in (one, other)
    ]
    assert [(r["step"], r["loss"]) for r in rows[0]] == [(r["step"], r["loss"]) for r in rows[1]]


_KILLED = """
import os, signal, sys
import subspace.training.run_folder as folder
from subspace.checkpoints import folder_swap
from dataclasses import replace
from pathlib import Path
from subspace.training.run import train
from test_run import _job, _recipe
from subspace.training import LoRA

at, calls = int(sys.argv[4]), 0
def counted(name):
    original = getattr(*name)
    def replaced(*args, **kwargs):
        global calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)
    setattr(*name, replaced)
# every rename, removal and row of the log is a point at which the process may end
for name in ("replace", "rename", "unlink"):
    counted((Path, name))
for place in ((folder_swap, "_exchange"), (folder.RunFolder, "log")):
    counted(place)
train(_job(sys.argv[1], sys.argv[2], method=LoRA(r=2, dropout=0.1), save_every=2), sys.argv[3])
"""


@pytest.mark.slow
def test_killed_at_any_point_it_goes_on_to_the_same_bits(tmp_path, text):
    folder = tiny("llama", tmp_path / "model")
    job = _job(folder, text, method=LoRA(r=2, dropout=0.1), save_every=2)
    train(job, tmp_path / "whole")
    here = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([here, str(Path(here).parent)])}
    killed = 0
    for at in range(1, 200, 6):
        out = tmp_path / f"cut{at}"
        done = subprocess.run(
            [sys.executable, "-c", _KILLED, folder, text, out, str(at)],
            check=False,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        if done.returncode == 0:
            break
        killed += 1
        train(job, out)
        _same_run(tmp_path / "whole", out)
        # killed once the run is done, the process leaves a lock file next to it, which is hidden and no obstacle
        assert not list(out.rglob(".subspace-*")), at
    assert killed >= 4


def test_a_full_disk_is_an_error_that_keeps_the_last_good_checkpoint(tmp_path, text, monkeypatch):
    from subspace.training import run_folder as folders

    resource = pytest.importorskip("resource")

    folder = tiny("llama", tmp_path / "model")
    original, calls = folders.write_whole, []

    def full(contents):
        calls.append(contents)
        if any("checkpoint-4" in str(path) for path in contents):
            limit = resource.getrlimit(resource.RLIMIT_FSIZE)
            before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
            try:
                return original(contents)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limit)
                signal.signal(signal.SIGXFSZ, before)
        return original(contents)

    monkeypatch.setattr(folders, "write_whole", full)
    job = _job(folder, text, save_every=2)
    with pytest.raises(
        subspace.SubspaceError, match=r"(No space left|Cannot write).*last good checkpoint is .*checkpoint-2"
    ):
        train(job, tmp_path / "out")
    assert not (tmp_path / "out/checkpoint-4").exists()
    assert not list((tmp_path / "out").rglob(".subspace*"))
    monkeypatch.undo()
    assert train(job, tmp_path / "out").resumed == 2
    train(job, tmp_path / "whole")
    _same_run(tmp_path / "whole", tmp_path / "out")


def test_a_loss_that_is_not_finite_names_step_and_checkpoint(tmp_path, text):
    folder = tiny("llama", tmp_path / "model")
    job = _job(
        folder, text, recipe=_recipe(lr=1e30, steps=20, clip=0, schedule="constant", warm_up=0), save_every=1
    )
    with pytest.raises(
        subspace.SubspaceError, match=r"at step \d.*last good checkpoint is .*checkpoint-\d"
    ) as told:
        train(job, tmp_path / "out")
    assert "lower `lr` (now 1e+30)" in str(told.value)
    job = _job(
        folder, text, recipe=_recipe(lr=1e30, steps=20, clip=0, schedule="constant", warm_up=0), save_every=0
    )
    with pytest.raises(subspace.SubspaceError, match="no checkpoint had been saved"):
        train(job, tmp_path / "other")


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("t5", {}),
        ("t5", {"method": Full()}),
        ("gpt2", {"method": Full()}),
        ("gpt2", {"keep": ("wte",)}),
        ("gpt2", {"targets": ("lm_head", "c_proj")}),
    ],
)
def test_models_with_tied_weights_are_saved_and_go_on_to_the_same_bits(tmp_path, text, kind, given):
    folder = tiny(kind, tmp_path / "model")
    job = _job(folder, text, save_every=2, **given)
    train(job, tmp_path / "whole")
    asked = iter([False, False, False, True])
    with pytest.raises(KeyboardInterrupt):
        train(job, tmp_path / "out", stopping=lambda: next(asked))
    state = load_file(tmp_path / "out/checkpoint-4/optimizer.safetensors")
    assert not any(name.startswith("buffer/") and "weight" in name for name in state)
    assert train(job, tmp_path / "out").resumed == 4
    _same_run(tmp_path / "whole", tmp_path / "out")


def test_a_head_that_is_new_is_trained_whole_and_not_adapted(tmp_path, labelled):
    folder = tiny("bert", tmp_path / "model")
    done = train(_job(folder, labelled, targets=("*",), method=LoRA(r=2)), tmp_path / "out")
    assert "classifier.weight" in done.record["kept"] and "classifier" not in done.record["targets"]
    keys = [name for name in _tensors(tmp_path / "out") if "classifier" in name]
    assert keys and not any("lora" in name for name in keys)
    with pytest.raises(subspace.SubspaceError, match="trained whole anyway: classifier"):
        train(_job(folder, labelled, targets=("classifier",)), tmp_path / "other")


def test_another_base_is_not_gone_on_with(tmp_path, text):
    folder = tiny("llama", tmp_path / "model")
    with pytest.raises(KeyboardInterrupt):
        train(_job(folder, text), tmp_path / "out", stopping=lambda: True)
    tiny("llama", tmp_path / "model", seed=1)
    with pytest.raises(
        subspace.SubspaceError, match=r"The model .*model has changed since the run in .*out began"
    ):
        train(_job(folder, text), tmp_path / "out")
    tiny("llama", tmp_path / "model")
    assert train(_job(folder, text), tmp_path / "out").resumed == 1


@pytest.mark.parametrize(
    ("dtype", "cure"), [("bfloat16", "give `dtype` float32, or"), ("float32", "choose another model")]
)
def test_what_a_model_cannot_compute_is_one_line(tmp_path, text, monkeypatch, dtype, cure):
    from transformers.models.llama.modeling_llama import LlamaMLP

    def fails(self, x):
        raise RuntimeError("value cannot be converted\nand much more")

    folder = tiny("llama", tmp_path / "model")
    monkeypatch.setattr(LlamaMLP, "forward", fails)
    with pytest.raises(
        subspace.SubspaceError,
        match=rf"The model .*model failed with RuntimeError: value cannot be converted; {cure}",
    ) as told:
        train(_job(folder, text, recipe=_recipe(dtype=dtype)), tmp_path / "out")
    assert "much more" not in str(told.value)


def test_a_small_model_has_one_thread_however_busy_the_machine_is(tmp_path, text, monkeypatch):
    from subspace.training import threads

    def seconds(*_):
        raise AssertionError("nothing is to be measured")

    monkeypatch.setattr(threads, "_seconds", seconds)
    folder = tiny("llama", tmp_path / "model")
    done = train(_job(folder, text, threads=0), tmp_path / "out")
    assert done.record["computed"]["threads"] == 1


def test_bits_per_byte_of_many_texts_count_what_is_between_them(tmp_path):
    rows = tmp_path / "rows.csv"
    rows.write_text("text\n" + "ab\n" * 2000)
    done = train(Job(data=str(rows), recipe=_recipe(steps=1, held_out=0.1), accounts=False), tmp_path / "out")
    after = done.record["held_out"]["after"]
    assert math.isclose(after["bits_per_byte"], after["loss"] / math.log(2), rel_tol=1e-3)


def test_a_damaged_checkpoint_is_an_error_that_says_what_to_do(tmp_path, text):
    folder = tiny("llama", tmp_path / "model")
    with pytest.raises(KeyboardInterrupt):
        train(_job(folder, text), tmp_path / "out", stopping=lambda: True)
    (tmp_path / "out/checkpoint-1/optimizer.safetensors").write_bytes(b"cut")
    with pytest.raises(
        subspace.SubspaceError,
        match=r"The checkpoint .*checkpoint-1 is damaged: optimizer.safetensors is not what was written; .*: remove it",
    ):
        train(_job(folder, text), tmp_path / "out")


def test_a_checkpoint_of_another_run_or_step_is_refused(tmp_path, text):
    folder = tiny("llama", tmp_path / "model")
    for out, seed in (("one", 0), ("other", 1)):
        with pytest.raises(KeyboardInterrupt):
            train(_job(folder, text, recipe=_recipe(seed=seed)), tmp_path / out, stopping=lambda: True)
    checkpoint, mine = tmp_path / "one/checkpoint-1", tmp_path / "mine"
    checkpoint.rename(mine)
    (tmp_path / "other/checkpoint-1").rename(checkpoint)
    with pytest.raises(subspace.SubspaceError, match=r"checkpoint-1 is of another run or step.*; remove"):
        train(_job(folder, text), tmp_path / "one")
    checkpoint.rename(tmp_path / "other/checkpoint-1")
    mine.rename(tmp_path / "one/checkpoint-99")
    with pytest.raises(subspace.SubspaceError, match=r"checkpoint-99 is of another run or step"):
        train(_job(folder, text), tmp_path / "one")


def test_a_last_step_that_leaves_no_finite_loss_is_said_and_not_written(tmp_path, text):
    folder = tiny("llama", tmp_path / "model")
    job = _job(
        folder, text, method=Full(), recipe=_recipe(lr=1e30, steps=1, clip=0, schedule="constant", warm_up=0)
    )
    for _ in range(2):
        with pytest.raises(
            subspace.SubspaceError, match=r"diverged.*lower `lr` .*no checkpoint had been saved"
        ):
            train(job, tmp_path / "out")
    assert not (tmp_path / "out/model.safetensors").exists()
    assert not json.loads((tmp_path / "out/run.json").read_text())["done"]


def test_a_base_without_a_finite_loss_is_said_before_anything_is_written(tmp_path, text):
    folder = tiny("llama", tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] * math.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(subspace.SubspaceError, match=r"no finite loss before it is trained: a loss of nan"):
        train(_job(folder, text), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_targets_that_no_step_goes_through_are_named(tmp_path, text, monkeypatch):
    folder, notes = tiny("llama", tmp_path / "model"), []
    from transformers.models.llama.modeling_llama import LlamaMLP

    monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: x)
    done = train(_job(folder, text, targets=("q_proj", "up_proj")), tmp_path / "out", tell=notes.append)
    assert done.record["never_reached"] and all("up_proj" in name for name in done.record["never_reached"])
    assert any(
        "had no gradient in any step and were not trained: model.layers.0.mlp.up_proj" in n for n in notes
    )


def test_a_run_whose_adapter_is_gone_is_made_again(tmp_path, text):
    folder = tiny("llama", tmp_path / "model")
    train(_job(folder, text), tmp_path / "out")
    before = _tensors(tmp_path / "out")
    (tmp_path / "out/adapter_model.safetensors").unlink()
    assert train(_job(folder, text), tmp_path / "out").resumed == 0
    assert all(torch.equal(value, before[name]) for name, value in _tensors(tmp_path / "out").items())


def test_paths_and_single_names_are_taken(tmp_path, text):
    folder = tiny("llama", tmp_path / "model")
    job = _job(folder, Path(text), targets="q_proj", method=LoRA(r=np.int64(2)))
    assert train(replace(job, model=folder), tmp_path / "out").record["targets"] == [
        f"model.layers.{n}.self_attn.q_proj" for n in range(2)
    ]
    assert train(_job(folder, text, targets=("q_proj",), method=LoRA(r=2)), tmp_path / "out").resumed == 6


def test_one_process_has_a_directory_to_itself(tmp_path):
    with RunFolder.opened(tmp_path / "out", {"a": 1}) as folder:
        with (
            pytest.raises(
                subspace.SubspaceError, match=r"Another process is using the directory .*out; wait"
            ),
            RunFolder.opened(tmp_path / "out", {"a": 1}),
        ):
            pass
        folder.log({"step": 1})  # the log is still there
        assert (tmp_path / "out/log.jsonl").read_text() == '{"step": 1}\n'
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["log.jsonl"]


_HOLDS = """
import sys, time
from pathlib import Path
from subspace.training.output_folder import sole_use
with sole_use(Path(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_lock_ends_with_its_process_and_what_it_leaves_is_no_output(tmp_path):
    out = tmp_path / "out"
    holder = subprocess.Popen([sys.executable, "-c", _HOLDS, out], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "ready\n"
    with pytest.raises(subspace.SubspaceError, match="Another process is using"), sole_use(out):
        pass
    holder.kill()
    holder.communicate()
    assert list(out.iterdir()) == [] and RUN.read(out) == {}
    assert [path.name for path in tmp_path.glob(".*")] == [next(tmp_path.glob(".subspace-*.lock")).name]
    with sole_use(out):
        (out / "mine.txt").write_text("")
    assert [path.name for path in out.iterdir()] == ["mine.txt"] and not list(tmp_path.glob(".*"))


def test_the_callers_random_numbers_and_threads_are_put_back(tmp_path, text):
    folder = tiny("llama", tmp_path / "model")
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    train(_job(folder, text, threads=2), tmp_path / "out")
    assert torch.equal(before, torch.get_rng_state()) and torch.get_num_threads() == threads
    assert json.loads((tmp_path / "out/run.json").read_text())["computed"]["threads"] == 2


def test_a_window_longer_than_the_model_takes_is_cut_and_said(tmp_path, text):
    notes = []
    folder = tiny("gpt2", tmp_path / "model")
    done = train(_job(folder, text, recipe=_recipe(length=500)), tmp_path / "out", tell=notes.append)
    assert done.record["computed"]["length"] == 64
    assert any("takes at most 64 tokens" in note for note in notes)


def test_seq2seq_learns_the_second_half_from_the_first(tmp_path, text):
    folder = tiny("t5", tmp_path / "model")
    done = train(_job(folder, text, recipe=_recipe(steps=40)), tmp_path / "out")
    held = done.record["held_out"]
    assert held["after"]["loss"] < held["before"]["loss"] and math.isfinite(held["after"]["bits_per_byte"])
    assert json.loads((tmp_path / "out/adapter_config.json").read_text())["task_type"] == "SEQ_2_SEQ_LM"


@pytest.mark.slow  # among the quick ones, subspace train does this
def test_the_embedded_base_learns_pythons_documentation(tmp_path):
    job = Job(recipe=Recipe(steps=3, batch=2, length=64), accounts=True)
    done = train(job, tmp_path / "out")
    assert done.record["held_out"]["after"]["loss"] < done.record["held_out"]["before"]["loss"]
    accounts = json.loads((tmp_path / "out/run.json").read_text())["accounts"]
    assert accounts["run"]["trainable"] == 8 * 2 * 8 * 256 and accounts["merged_difference"] <= 1e-5
    factors = _tensors(tmp_path / "out")
    assert np.isfinite([float(value.norm()) for value in factors.values()]).all()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"format": "x"}, "Unknown format 'x'.* peft, loralib"),
        ({"format": "loralib", "method": IA3()}, "The format loralib cannot hold what the method ia3 trains"),
        ({"save_every": -1}, "`save_every` is negative: -1"),
        (
            {"method": "lora"},
            r"Not a training method: 'lora'; give DoRA\(...\) or Full\(...\) or IA3\(...\) or LoRA\(...\)",
        ),
    ],
)
def test_a_job_that_cannot_be_done(given, told):
    with pytest.raises(subspace.SubspaceError, match=told):
        Job(**given)


def test_what_is_wrong_is_said_before_anything_is_written(tmp_path, text):
    folder = tiny("llama", tmp_path / "model")
    for given, told in (
        (
            {"targets": ("nothing",)},
            "No layer matches the target 'nothing'; the model has .*q_proj",
        ),
        ({"method": LoRA(r=64)}, r"Rank 64 is too large for a target of 32 x 32.*q_proj"),
        ({"keep": ("nothing",)}, "No module matches 'nothing', which is to be kept"),
        ({"data": str(tmp_path / "absent.txt")}, "absent.txt"),
    ):
        with pytest.raises(subspace.SubspaceError, match=told):
            train(_job(folder, given.pop("data", text), **given), tmp_path / "out")
        assert not (tmp_path / "out").exists()
    train(_job(folder, text), tmp_path / "out")  # what was left behind is no obstacle
    assert (tmp_path / "out/run.json").is_file()


def test_stopped_while_it_measures_what_it_cost_the_run_is_done(tmp_path, text):
    folder, told = tiny("llama", tmp_path / "model"), []
    job = _job(folder, text, accounts=True)
    with pytest.raises(KeyboardInterrupt):
        train(
            job,
            tmp_path / "out",
            progress=lambda n, of, note: told.append(note),
            stopping=lambda: "cost" in told[-1],
        )
    assert train(job, tmp_path / "out").files == () and _tensors(tmp_path / "out")


@pytest.mark.parametrize(
    ("kind", "auto"),
    [("gpt2", "CausalLM"), ("t5", "Seq2SeqLM"), ("bart", "Seq2SeqLM"), ("electra", "SequenceClassification")],
)
def test_a_fine_tuned_model_is_whole_for_transformers(kind, auto, tmp_path, text, labelled, monkeypatch):
    """Tied weights stand in the file once, and a new classifier with its number of classes in the configuration."""
    import transformers

    from subspace.training import run

    seen = {}
    monkeypatch.setattr(run._Training, "_account", lambda self, *told: seen.update(model=self.model))
    data = labelled if auto == "SequenceClassification" else text
    job = _job(tiny(kind, tmp_path / "model"), data, method=Full(), accounts=True)
    train(job, tmp_path / "out")
    theirs, told = getattr(transformers, f"AutoModelFor{auto}").from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not told["missing_keys"] and not told["unexpected_keys"]
    ours = seen["model"].state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in theirs.state_dict().items())
