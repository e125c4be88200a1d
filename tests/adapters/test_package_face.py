"""What the package of adapters shows to a user and to an editor."""

from __future__ import annotations

import importlib
import subprocess
import sys

import numpy as np
import pytest

from subspace import adapters


def test_dir_is_the_public_names():
    assert dir(adapters) == sorted(adapters.__all__)
    assert all(getattr(adapters, name) is not None for name in adapters.__all__)
    with pytest.raises(AttributeError, match="no attribute 'load_adaptor'"):
        _ = adapters.load_adaptor


@pytest.mark.parametrize("name", sorted(adapters.__all__))
def test_public_names_are_documented(name):
    thing = getattr(adapters, name)
    if isinstance(thing, type) or callable(thing):
        assert len(thing.__doc__.splitlines()) > 3, name


def test_base_weights_and_yaml_are_imported_when_used():
    code = "import sys, subspace.adapters; print(sorted({'yaml', 'subspace.adapters.base.weights'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_peft_files_are_what_peft_names(tmp_path):
    """The file that PEFT writes has the keys and the names that ours have."""
    peft, torch = importlib.import_module("peft"), importlib.import_module("torch")
    from subspace.checkpoints import open_weights, peft_files

    model = torch.nn.ModuleDict({"q": torch.nn.Linear(4, 3), "e": torch.nn.Embedding(5, 4)})
    config = peft.LoraConfig(r=2, target_modules=["q", "e"])
    peft.get_peft_model(model, config).save_pretrained(tmp_path)
    wanted = {*peft_files.factor_keys("q"), *peft_files.factor_keys("e", embedding=True)}
    assert wanted <= set(open_weights(tmp_path / peft_files.WEIGHTS).layout)
    ours = peft_files.lora_config({"r": 2, "lora_alpha": 4, "target_modules": ["q", "e"]})
    assert peft.LoraConfig(**ours).target_modules == {"q", "e"}


def test_peft_files_are_read_back(tmp_path):
    from subspace.checkpoints import peft_files
    from subspace.checkpoints.tensor_bytes import StoredTensor

    shapes = zip(peft_files.factor_keys("h.0.q"), ((2, 4), (3, 2)), strict=True)
    tensors = {key: StoredTensor(np.ones(shape, np.float32), "float32") for key, shape in shapes}
    config = peft_files.lora_config({"r": 2, "lora_alpha": 1, "target_modules": ["q"]})
    for name, content in peft_files.peft_files(tensors, config).items():
        (tmp_path / name).write_bytes(content)
    read = adapters.load_adapter(tmp_path)
    assert (read.format, read.notes, read.unknown) == ("peft", (), ())
    assert read["h.0.q"].delta_W() == pytest.approx(np.ones((3, 4)))
