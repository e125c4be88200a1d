"""Which checkpoints are of one run: by their folders and names, and against what their numbers show."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file
from step_runs import MODULES, peft_tensors, run, write_peft, write_run

import subspace
from subspace.analysis.checkpoint_steps import named_step

FEW = {"side": "b", "controls": "none"}


def _steps(found):
    return [run.steps for run in found.runs]


def _track(*paths, **options):
    return subspace.track([str(path) for path in paths], **{**FEW, **options})


@pytest.mark.parametrize(
    ("name", "number", "unit"),
    [
        ("checkpoint-500", 500, "step"),
        ("checkpoint_1000", 1000, "step"),
        ("gpt2-lazie-runX-ck4000", 4000, "step"),
        ("0000100_adapters.safetensors", 100, "step"),
        ("style-000010.safetensors", 10, "epoch"),
        ("style-step00000500.safetensors", 500, "step"),
        ("style_000000750.safetensors", 750, "step"),
        ("iter-000800-ckpt.pth", 800, "step"),
        ("epoch_3", 3, "epoch"),
        ("epoch-2-step-40", 40, "step"),
        ("global_step12", 12, "step"),
        ("adapter_model.safetensors", None, "step"),
        ("gpt2-lazie-runZ-final", None, "step"),
        ("llama-7b", None, "step"),
        ("r8", None, "step"),
    ],
)
def test_names_of_checkpoints(name, number, unit):
    assert named_step(name)[:2] == (number, unit)


def test_the_final_adapter_that_is_the_last_checkpoint_counts_once(tmp_path):
    folder = write_run(tmp_path / "run", run(0)[1:], (9, 10, 100), final=True)
    found = _track(folder)
    assert _steps(found) == [(9, 10, 100)]
    assert any("are equal and counted once" in note for note in found.notes)


def test_a_final_adapter_that_trained_on_is_the_end(tmp_path):
    folder = write_run(tmp_path / "run", run(0)[1:3], (10, 20))
    write_peft(folder, run(0)[3])
    assert _steps(_track(folder)) == [(10, 20, None)]
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 25}))
    found = _track(folder)
    assert _steps(found) == [(10, 20, 25)]
    assert found.runs[0].checkpoints[-1].step_source == "trainer_state.json"


def test_mlx_checkpoints_in_one_folder(tmp_path):
    folder = tmp_path / "mlx"
    folder.mkdir()
    states = run(0)[1:]
    for name, state in zip(("0000100_", "0000200_", ""), states, strict=True):
        tensors = {
            f"{key[:-2]}.lora_{key[-1].lower()}": value.T.astype(np.float32) for key, value in state.items()
        }
        save_file(
            {k: np.ascontiguousarray(v) for k, v in tensors.items()}, folder / f"{name}adapters.safetensors"
        )
    config = {
        "fine_tune_type": "lora",
        "lora_parameters": {"rank": 4, "scale": 2.0, "dropout": 0.0},
        "num_layers": 3,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    found = _track(folder)
    assert _steps(found) == [(100, 200, None)] and len(found.runs[0].modules) == len(MODULES)
    assert found.runs[0].total[0].norm[0] is not None


def _kohya(state):
    tensors = {}
    for key, value in state.items():
        name = f"lora_te_text_model_encoder_{key[:-2].removeprefix('model.').replace('.', '_')}"
        tensors[f"{name}.lora_{'down' if key[-1] == 'A' else 'up'}.weight"] = value.astype(np.float32)
        tensors[f"{name}.alpha"] = np.array(4.0, dtype=np.float32)
    return tensors


def test_kohya_checkpoints_by_epoch_and_by_step(tmp_path):
    states = run(0)[1:]
    folder = tmp_path / "epochs"
    folder.mkdir()
    for name, state in zip(("style-000002", "style-000004", "style"), states, strict=True):
        save_file(_kohya(state), folder / f"{name}.safetensors")
    found = _track(folder)
    assert _steps(found) == [(2, 4, None)] and found.runs[0].unit == "epoch"
    for n, (name, state) in enumerate(zip(("style-000002", "style-000004", "style"), states, strict=True), 1):
        save_file(_kohya(state), folder / f"{name}.safetensors", metadata={"ss_steps": str(150 * n)})
    found = _track(folder)
    assert _steps(found) == [(150, 300, 450)] and found.runs[0].unit == "step"
    assert {each.step_source for each in found.runs[0].checkpoints} == {"metadata"}


def test_diffusers_checkpoints(tmp_path):
    for step, state in zip((500, 1000, 1500), run(0)[1:], strict=True):
        folder = tmp_path / "run" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        tensors = {
            f"unet.{key[:-2].replace('self_attn.', 'attn1.to_').replace('_proj', '')}.lora_{key[-1]}.weight": value
            for key, value in state.items()
        }
        save_file(
            {k: v.astype(np.float32) for k, v in tensors.items()}, folder / "pytorch_lora_weights.safetensors"
        )
    assert _steps(_track(tmp_path / "run")) == [(500, 1000, 1500)]


def test_a_list_is_taken_in_the_order_of_its_steps_however_a_shell_sorts_it(tmp_path):
    folder = write_run(tmp_path / "run", run(0)[1:], (9, 10, 100))
    paths = sorted(folder.iterdir())
    assert [path.name for path in paths] == ["checkpoint-10", "checkpoint-100", "checkpoint-9"]
    assert _steps(_track(*paths)) == [(9, 10, 100)]


@pytest.mark.parametrize("names", ["telling", "silent"])
def test_two_runs_in_one_folder_are_never_joined(tmp_path, names):
    """Steps that fit each other, from another start."""
    for state, step in zip(run(0)[1:], (10, 30, 50), strict=True):
        write_peft(tmp_path / "all" / (f"x-ck{step}" if names == "telling" else f"checkpoint-{step}"), state)
    for state, step in zip(run(1)[1:], (20, 40, 60), strict=True):
        write_peft(tmp_path / "all" / (f"y-ck{step}" if names == "telling" else f"checkpoint-{step}"), state)
    found = _track(tmp_path / "all")
    assert _steps(found) == [(10, 30, 50), (20, 40, 60)]
    assert all(run.parent is None for run in found.runs)
    assert any("There are 2 runs in" in note and "show to be different" in note for note in found.notes)


def test_two_runs_from_one_start_are_told_apart_by_what_they_learned(tmp_path):
    write_run(tmp_path / "one", run(0)[1:], (10, 20, 30))
    write_run(tmp_path / "two", run(0, turn=1)[1:], (10, 20, 30))
    found = _track(tmp_path / "one", tmp_path / "two")
    assert _steps(found) == [(10, 20, 30)] * 2
    parent = found.runs[1].parent
    assert (
        (parent.run, parent.kind) == (0, "common_start") and parent.start_z > 5 and abs(parent.cosine) < 0.3
    )
    assert "began from the same random start as run 0" in found.headline()


def test_a_second_folder_that_goes_on_is_one_run(tmp_path):
    states = run(0, (0.2, 0.5, 0.8, 0.9, 1.0))
    write_run(tmp_path / "one", states[:3], (10, 20, 30))
    write_run(tmp_path / "two", states[3:], (40, 50))
    found = _track(tmp_path / "one", tmp_path / "two")
    assert _steps(found) == [(10, 20, 30, 40, 50)] and found.runs[0].resumed == (40,)
    assert "resumed in another folder at step 40" in found.headline()


def test_steps_that_are_counted_anew_are_a_run_that_goes_on_from_another(tmp_path):
    states = run(0, (0.2, 0.5, 0.8, 0.9, 1.0))
    write_run(tmp_path / "one", states[:3], (10, 20, 30))
    write_run(tmp_path / "two", states[3:], (10, 20))
    found = _track(tmp_path / "one", tmp_path / "two")
    assert _steps(found) == [(10, 20, 30), (10, 20)]
    assert found.runs[1].parent[:3] == (0, 30, "continued")


def test_a_branch_begins_where_it_left(tmp_path):
    states = run(0, (0.2, 0.4, 0.8, 1.0))
    write_run(tmp_path / "one", states, (10, 20, 40, 60))
    way = run(0, (0.0, 0.3), turn=1)
    branch = [
        {key: value + 0.15 * n * (way[1][key] - way[0][key]) for key, value in states[1].items()}
        for n in (1, 4)
    ]
    write_run(tmp_path / "two", branch, (25, 45))
    found = _track(tmp_path / "one", tmp_path / "two")
    assert _steps(found) == [(10, 20, 40, 60), (25, 45)]
    assert found.runs[1].parent[:3] == (0, 20, "branch")
    assert "a branch of run 0 from step 20" in found.headline()


def test_paths_of_two_folders_are_taken_as_the_folders(tmp_path):
    states = run(0, (0.2, 0.4, 0.8, 1.0))
    one = write_run(tmp_path / "one", states, (100, 200, 400, 600))
    two = write_run(tmp_path / "two", [states[1], run(0, (0.5,))[0]], (200, 300))
    found = _track(*one.iterdir(), *two.iterdir())
    assert _steps(found) == [(100, 200, 400, 600), (200, 300)]
    assert found.runs[1].parent[:3] == (0, 200, "branch")


def test_steps_that_go_back_in_a_list_begin_anew(tmp_path):
    states = run(0, (0.2, 0.4, 0.8, 0.9, 0.95))
    folder = tmp_path / "all"
    names = ("x-100", "x-200", "x-300", "resumed-250", "resumed-350")
    for name, state in zip(names, states, strict=True):
        write_peft(folder / name, state)
    found = _track(*(folder / name for name in names))
    assert _steps(found) == [(100, 200, 300), (250, 350)]
    assert found.runs[1].parent[:3] == (0, 300, "continued")


def test_rank_one_cannot_tell_and_says_so(tmp_path):
    """One row of A has no number to be permuted, and the cosine of these is neither near 1 nor near 0."""
    module = MODULES[:1]
    states = run(0, (0.5, 1.0), r=1, modules=module)
    states[0][f"{module[0]}.B"] += 0.9 * np.random.default_rng(3).standard_normal((32, 1))
    folder = write_run(tmp_path / "run", states, (10, 20), r=1)
    found = _track(folder)
    cosine = found.runs[0].checkpoints[1].cosine
    assert 0.1 < cosine < 0.9 and found.runs[0].checkpoints[1].start_z is None
    assert _steps(found) == [(10, 20)]
    assert any("The numbers cannot tell" in note and "joined by their names" in note for note in found.notes)
    # under other names nothing joins them
    shutil.move(folder / "checkpoint-20", folder / "other-20")
    assert _steps(_track(folder)) == [(10,), (20,)]


def test_a_checkpoint_that_cannot_be_read_is_left_out(tmp_path):
    folder = write_run(tmp_path / "run", run(0)[1:], (10, 20, 30))
    weights = folder / "checkpoint-30" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    found = _track(folder)
    assert _steps(found) == [(10, 20)]
    assert any("left out, as it cannot be read" in note and "checkpoint-30" in note for note in found.notes)


def test_nothing_there_is_one_error(tmp_path):
    with pytest.raises(
        subspace.SubspaceError, match=r"No checkpoint in .*: no file of an adapter in it; give the"
    ):
        _track(tmp_path)
    with pytest.raises(subspace.SubspaceError, match="no/such/run"):
        subspace.track("no/such/run")


def test_a_run_of_this_package_has_its_start_and_its_end(tmp_path):
    states = run(0)
    folder = write_run(tmp_path / "r4", states[1:3], (10, 20))
    write_peft(folder / "start", states[0])
    write_peft(folder, states[3])
    (folder / "run.json").write_text(json.dumps({"schema": "subspace.train/1", "step": 30, "done": True}))
    found = _track(folder)
    assert _steps(found) == [(0, 10, 20, 30)] and found.runs[0].start == "step_0"
    assert found.runs[0].name == str(folder)


def test_published_checkpoints_of_three_runs_fall_apart(real_adapters):
    names = ("runX-ck500", "runX-ck4000", "runX-ck7500", "runY-ck1000", "runZ-final")
    found = _track(*(real_adapters / f"gpt2-lazie-{name}" for name in names))
    assert _steps(found) == [(500, 4000, 7500), (1000,), (None,)]
    assert all(run.parent is None for run in found.runs)
    assert found.runs[0].checkpoints[1].start_z > 20
    assert found.runs[0].side("b").to_final == pytest.approx((0.6305, 0.9427, 1.0), abs=1e-3)


def test_published_checkpoints_under_names_that_say_nothing(real_adapters, tmp_path):
    order = {"runX-ck500": 500, "runY-ck1000": 1000, "runX-ck4000": 4000, "runX-ck7500": 7500}
    for name, step in order.items():
        shutil.copytree(real_adapters / f"gpt2-lazie-{name}", tmp_path / "results" / f"checkpoint-{step}")
    shutil.copytree(real_adapters / "gpt2-lazie-runZ-final", tmp_path / "results", dirs_exist_ok=True)
    found = _track(tmp_path / "results")
    assert _steps(found) == [(500, 4000, 7500), (1000,), (None,)]


def test_published_mlx_checkpoints_are_one_run(real_adapters):
    found = _track(*(real_adapters / f"mlx-gemma2b-medqa-0000{n}" for n in (100, 600)))
    assert _steps(found) == [(100, 600)]
    assert found.runs[0].checkpoints[1].cosine == pytest.approx(0.707, abs=0.03)


def test_signatures_take_few_modules_of_many():
    from subspace.adapters import load_adapter
    from subspace.analysis.kinship import signature

    state = {}
    for n in range(100):
        state |= peft_tensors({f"layers.{n}.q.A": np.ones((1, 8)), f"layers.{n}.q.B": np.ones((8, 1))})
    found = signature(load_adapter(state, scale=1.0))
    assert len(found.modules) == 24 and len(found.names) == 100
    assert {"layers.0.q", "layers.99.q"} <= set(found.modules)
