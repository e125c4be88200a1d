"""The callback in transformers' Trainer with PEFT, and the recorder in a loop of plain torch."""

from __future__ import annotations

import json

import numpy as np
import pytest

import subspace
from subspace.adapters import load_adapter

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")


def _model(seed=0):
    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        vocab_size=32, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    lora = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM"
    )
    return peft.get_peft_model(transformers.GPT2LMHeadModel(config), lora)


def _examples():
    tokens = torch.randint(0, 32, (16, 16), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": row, "labels": row} for row in tokens]


def _trained(tmp_path, *callbacks, **settings):
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "run"), max_steps=6, per_device_train_batch_size=4, learning_rate=0.05,
        report_to=[], use_cpu=True, disable_tqdm=True, logging_strategy="no", seed=0,
        **{"save_strategy": "steps", "save_steps": 2, **settings},
    )  # fmt: skip
    model = _model()
    transformers.Trainer(
        model=model, args=arguments, train_dataset=_examples(), callbacks=list(callbacks)
    ).train()
    return model


def _lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_callback_records_every_save_as_track_sees_it(tmp_path):
    callback = subspace.TrackCallback(tmp_path / "track.jsonl")
    _trained(tmp_path, callback)
    lines = _lines(tmp_path / "track.jsonl")
    assert [line["step"] for line in lines] == [0, 2, 4, 6]
    assert [line["before"] for line in lines] == [None, 0, 2, 4]
    assert callback.result.runs[0].steps == (0, 2, 4, 6) and callback.result.runs[0].start == "step_0"
    document = json.loads((tmp_path / "track.json").read_text())
    assert document["schema"] == "subspace.track/1" and document["runs"][0]["steps"] == [0, 2, 4, 6]
    # what the Trainer saved, tracked afterwards
    saved = subspace.track(str(tmp_path / "run"))
    assert saved.runs[0].steps == (2, 4, 6)
    for own in callback.result.runs[0].modules:
        twin = next(
            (
                e
                for e in saved.runs[0].modules
                if (e.module, e.side, e.init) == (own.module, own.side, own.init)
            ),
            None,
        )
        if own.init == "removed":
            assert twin is None  # the Trainer saves no start
            continue
        assert twin.to_final == pytest.approx(own.to_final[1:], abs=1e-5)
        assert twin.cosine == pytest.approx(own.cosine[1:], abs=1e-5)
        assert twin.norm == pytest.approx(own.norm[1:], rel=1e-5)
    # and a line says while it goes on what is said of the step at the end
    for n, line in enumerate(lines[1:], 1):
        for values, own in zip(line["modules"], callback.result.runs[0].modules, strict=True):
            assert (values["module"], values["side"]) == (own.module, own.side)
            if own.side in ("a", "b"):  # left and right are of other directions at the end
                assert values["from_before"] == pytest.approx(own.to_next[n - 1], abs=1e-9)
                assert values["from_start"] == pytest.approx(own.from_start[n], abs=1e-9)
                assert values["norm"] == pytest.approx(own.norm[n])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_n_steps_without_any_save(tmp_path):
    callback = subspace.TrackCallback(tmp_path / "t.jsonl", every=3, side="b", controls="none")
    model = _trained(tmp_path, callback, save_strategy="no")
    assert [line["step"] for line in _lines(tmp_path / "t.jsonl")] == [0, 3, 6]
    last = load_adapter(model)
    norms = [np.linalg.norm(update.delta_W()) for update in last.values()]
    assert [each.norm[-1] for each in callback.result.runs[0].modules] == pytest.approx(norms, rel=1e-5)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_recording_does_not_change_the_training(tmp_path):
    plain = _trained(tmp_path / "plain", save_strategy="no").state_dict()
    callback = subspace.TrackCallback(tmp_path / "t.jsonl", every=1)
    recorded = _trained(tmp_path / "recorded", callback, save_strategy="no").state_dict()
    assert all(torch.equal(value, recorded[name]) for name, value in plain.items())


def test_a_loop_of_ones_own(tmp_path):
    model = _model()
    tokens = torch.stack([each["input_ids"] for each in _examples()])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    recorder = subspace.StepRecorder(model, tmp_path / "own.jsonl", side="left")
    recorder.record(0)
    for step in range(1, 4):
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        recorder.record(step)
    found = recorder.finish()
    assert found.runs[0].steps == (0, 1, 2, 3)
    assert found.runs[0].total[0].norm[0] == 0 < found.runs[0].total[0].norm[1]


def _adapter():
    rng = np.random.default_rng(0)
    return {"q.lora_A": rng.standard_normal((2, 6)), "q.lora_B": rng.standard_normal((5, 2))}


def test_a_line_that_a_crash_cut_short_is_taken_off(tmp_path):
    path = tmp_path / "t.jsonl"
    subspace.StepRecorder(_adapter(), path).record(1)
    with path.open("a") as file:
        file.write('{"schema": "subspace.track.st')
    subspace.StepRecorder(_adapter(), path).record(2)
    assert [line["step"] for line in _lines(path)] == [1, 2]
    subspace.StepRecorder(_adapter(), path, overwrite=True).record(3)
    assert [line["step"] for line in _lines(path)] == [3]


def test_a_file_of_something_else_is_not_written_to(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"loss": 1}\n')
    with pytest.raises(subspace.SubspaceError, match=r"log\.jsonl"):
        subspace.StepRecorder(_adapter(), path)
    assert path.read_text() == '{"loss": 1}\n'
    with pytest.raises(subspace.SubspaceError, match="give `path` another ending"):
        subspace.StepRecorder(_adapter(), tmp_path / "t.json")
    with pytest.raises(subspace.SubspaceError, match="give `every` a whole number"):
        subspace.TrackCallback(path, every=0)
