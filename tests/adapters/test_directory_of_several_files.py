"""Which file of a directory was read is said where it holds others, and its configuration stands for the directory."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import subspace


def tensors(seed):
    rng = np.random.default_rng(seed)
    return {
        "base_model.model.q.lora_A.weight": rng.standard_normal((2, 8)).astype("f4"),
        "base_model.model.q.lora_B.weight": rng.standard_normal((6, 2)).astype("f4"),
    }


@pytest.fixture
def folder(tmp_path):
    save_file(tensors(0), tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize("other", ["adapter_model.bin", "pytorch_adapter.bin", "adapters.safetensors"])
def test_another_file_of_weights_is_named(folder, other):
    if other.endswith(".bin"):
        torch.save({key: torch.from_numpy(value) for key, value in tensors(1).items()}, folder / other)
    else:
        save_file(tensors(1), folder / other)
    adapter = subspace.load_adapter(folder)
    np.testing.assert_array_equal(adapter["q"].A, tensors(0)["base_model.model.q.lora_A.weight"])
    assert any(
        note.startswith(
            f"adapter_model.safetensors was read; {other}, which the directory also holds, was not"
        )
        for note in adapter.notes
    )
    assert not any(
        "was read" in note for note in subspace.load_adapter(folder / "adapter_model.safetensors").notes
    )


@pytest.mark.parametrize(
    "other", ["optimizer.pt", "training_args.bin", "model-00001-of-00002.safetensors", "README.md"]
)
def test_state_of_the_trainer_and_shards_are_not(folder, other):
    (folder / other).write_bytes(b"")
    assert subspace.load_adapter(folder).notes == ()


def test_the_configuration_stands_for_its_directory(folder, monkeypatch):
    wanted = subspace.load_adapter(folder)["q"]
    monkeypatch.chdir(folder)
    for path in (folder / "adapter_config.json", "adapter_config.json"):
        found = subspace.load_adapter(path)["q"]
        assert found.scale == wanted.scale
        np.testing.assert_array_equal(found.A, wanted.A)


def test_a_configuration_without_weights_is_an_error(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(subspace.SubspaceError, match="No adapter in the directory"):
        subspace.load_adapter(tmp_path / "adapter_config.json")
