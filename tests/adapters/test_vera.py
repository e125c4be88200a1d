"""VeRA against PEFT's own `get_delta_weight`, on files that it wrote."""

from __future__ import annotations

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import save_file

from subspace.adapters import load_adapter
from subspace.analysis.amplify import amplify
from subspace.analysis.inspect import inspect
from subspace.errors import FormatError, InconclusiveError, ShapeError

pytestmark = [
    pytest.mark.filterwarnings(r"ignore:::peft\..*"),
    pytest.mark.filterwarnings("ignore:Specified to not"),
]


class Toy(torch.nn.Module):
    def __init__(self, widths=(8, 12)):
        super().__init__()
        self.q = torch.nn.Linear(widths[0], 10)
        self.v = torch.nn.Linear(widths[1], 6)


def adapted(folder, widths=(8, 12), **config):
    torch.manual_seed(0)
    model = Toy(widths)
    save_file(model.state_dict(), folder / "base.safetensors")
    told = {"r": 4, "target_modules": ["q", "v"], "projection_prng_key": 7, **config}
    model = peft.get_peft_model(model, peft.VeraConfig(**told))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "vera_lambda" in name:
                parameter.normal_()
    model.save_pretrained(folder / "vera")
    return model, folder / "vera", folder / "base.safetensors"


def assert_as_peft(read, model):
    for name in ("q", "v"):
        wanted = getattr(model.base_model.model, name).get_delta_weight("default").detach().double().numpy()
        got = read[name].delta_W()
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())


@pytest.mark.parametrize("saved", [True, False], ids=["saved", "regenerated"])
def test_saved_adapter_equals_peft(saved, tmp_path):
    model, path, base = adapted(tmp_path, save_projection=saved)
    read = load_adapter(path, base=base)
    assert (read.format, read.ignored, read.unknown, read.notes) == ("vera", (), (), ())
    assert_as_peft(read, model)
    assert {update.scale.value for update in read.values()} == {1.0}


def test_without_the_base_layers_of_one_width_are_right(tmp_path):
    model, path, _ = adapted(tmp_path, widths=(9, 9))
    read = load_adapter(path)
    assert_as_peft(read, model)
    assert "is taken to be 9" in read.notes[0]


def test_a_model_in_memory(tmp_path):
    model, _, base = adapted(tmp_path)
    read = load_adapter(model, base=base)
    assert read.unknown == ()
    assert {entry.why for entry in read.ignored} >= {"a copy of a shared projection"}
    assert_as_peft(read, model)


def test_regenerating_needs_the_base(tmp_path):
    _, path, base = adapted(tmp_path, save_projection=False)
    with pytest.raises(
        InconclusiveError, match=r"base weights: those of 2 of 2 modules are missing, in .*`base`"
    ):
        load_adapter(path)
    assert {row.module for row in amplify(base, path).modules} == {"q", "v"}


def test_projections_from_nowhere():
    tensors = {"q.vera_lambda_b": np.ones(3), "q.vera_lambda_d": np.ones(2)}
    with pytest.raises(FormatError, match="projection_prng_key is None in the configuration"):
        load_adapter(tensors)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"m.q.vera_lambda_d": np.ones((2, 1))}, "are not vectors"),
        ({"vera_A": np.ones((3, 4))}, r"A is \[3, 4\] and B is \[3, 2\] for r = 2"),
        (
            {"m.q.vera_lambda_b": None},
            "vera_lambda_b is missing for module m.q of .*, which has vera_lambda_d",
        ),
    ],
)
def test_shapes_that_do_not_fit(change, match):
    tensors = {
        "base_model.vera_A": np.ones((2, 4)),
        "base_model.vera_B": np.ones((3, 2)),
        "base_model.model.m.q.vera_lambda_b": np.ones(3),
        "base_model.model.m.q.vera_lambda_d": np.ones(2),
    }
    tensors |= {
        f"base_model.{'' if key.startswith('vera') else 'model.'}{key}": value
        for key, value in change.items()
    }
    with pytest.raises(ShapeError, match=match):
        load_adapter({key: value for key, value in tensors.items() if value is not None})


def test_an_untrained_one_is_said_to_be(tmp_path):
    peft.get_peft_model(Toy(), peft.VeraConfig(r=4, target_modules=["q", "v"])).save_pretrained(tmp_path)
    assert all(row.flags == ("composed", "untrained") for row in inspect(tmp_path).modules)
