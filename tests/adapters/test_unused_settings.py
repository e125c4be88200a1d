"""A setting that cannot change how a file is read is named in a note; one that did is not."""

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import subspace

PAIR = {"q.lora_A": np.ones((2, 8)), "q.lora_B": np.ones((6, 2))}
PEFT = {f"base_model.model.q.lora_{side}.weight": np.ones((2, 8) if side == "A" else (6, 2)) for side in "AB"}


def notes(tensors, **settings):
    return [note for note in subspace.load_adapter(tensors, **settings).notes if "changed nothing" in note]


@pytest.mark.parametrize(
    ("tensors", "settings", "words"),
    [
        (
            PAIR,
            {"enable_lora": (True, False, True)},
            "`enable_lora` changed nothing: no layer of the file is a fused",
        ),
        (PEFT, {"enable_lora": (True, False)}, "`enable_lora` changed nothing"),
        (
            PAIR,
            {"adapter_name": "other"},
            "`adapter_name` changed nothing: there is one adapter, which has no name",
        ),
        (PEFT, {"adapter_name": "other"}, "`adapter_name` changed nothing"),
        (
            {"q.delta_W": np.eye(3)},
            {"layout": "AB"},
            "`layout` changed nothing: the format dense has one way",
        ),
    ],
)
def test_a_setting_that_changes_nothing_is_named(tensors, settings, words):
    (note,) = notes(tensors, **settings)
    assert note.startswith(words)


@pytest.mark.parametrize(
    ("tensors", "settings"),
    [
        (PAIR, {}),
        (PAIR, {"layout": "BA"}),
        ({"q.lora_A": np.ones((4, 8)), "q.lora_B": np.ones((6, 2))}, {"enable_lora": (True, False, True)}),
        (
            {key.replace(".weight", ".mine.weight"): value for key, value in PEFT.items()},
            {"adapter_name": "mine"},
        ),
        (PEFT, {"adapter_name": "default"}),
    ],
)
def test_a_setting_that_is_used_is_not(tensors, settings):
    assert notes(tensors, **settings) == []


def test_an_adapter_that_is_chosen_by_its_folder_has_a_name(tmp_path):
    for name in ("", "other"):
        (tmp_path / name).mkdir(exist_ok=True)
        save_file(PEFT, tmp_path / name / "adapter_model.safetensors")
    assert notes(tmp_path, adapter_name="other") == []


def test_a_model_in_memory_has_named_adapters():
    import peft

    model = torch.nn.Sequential(torch.nn.Linear(8, 6))
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["0"]), adapter_name="mine")
    assert notes(adapted, adapter_name="mine") == []


def test_the_command_line_names_the_option(tmp_path):
    from click.testing import CliRunner

    from subspace.cli import app

    save_file(PAIR, tmp_path / "pair.safetensors")
    done = CliRunner().invoke(app, ["inspect", str(tmp_path / "pair.safetensors"), "--enable-lora", "1,0,1"])
    assert "--enable-lora changed nothing" in done.stderr
