"""A training method is one file: two that are dropped in are trained, refused, merged and saved like the others."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

import subspace
from subspace.training import IA3, Full, Job, LoRA
from subspace.training.embedded import FOLDER
from subspace.training.methods import every

# an adapter: one direction of each weight, of a fixed scale
_ONE_DIRECTION = """
from dataclasses import dataclass

from subspace.training.method import Method, Option


@dataclass(frozen=True)
class OneDirection(Method):
    name = "one"
    about = "one direction of each target"
    lr = 1e-2
    parts = ("one_u", "one_v")
    options = (Option("--gain", "gain", "Factor of the direction.", least=0), Option("--alpha", "alpha", "Unused."))

    gain: float = 2.0
    alpha: float = 1.0

    def start(self, layer, module):
        d_out, d_in = layer.weight.shape
        return {"one_u": layer.weight.new_zeros(d_out), "one_v": layer.weight.new_full((d_in,), d_in**-0.5)}

    def output(self, layer, adapter, x, *args, **kwargs):
        u, v = layer.factors(adapter).values()
        return layer.plain(x, *args, **kwargs) + self.gain * (x @ v)[..., None] * u

    def delta_weight(self, layer, adapter):
        u, v = layer.factors(adapter).values()
        return self.gain * u.outer(v)

    def peft_tensors(self, layer, adapter):
        u, v = (value.detach() for value in layer.factors(adapter).values())
        return {"lora_A.weight": v[None], "lora_B.weight": u[:, None]}

    def peft_config(self, model, layers, common):
        return {"peft_type": "LORA", "r": 1, "lora_alpha": self.gain, **common}


METHOD = OneDirection
"""
# no adapter: parameters that the model has
_NORMS = """
from dataclasses import dataclass

from subspace.training.method import Method


@dataclass(frozen=True)
class Norms(Method):
    name = "norms"
    about = "the scales of normalisations"
    lr = 1e-2
    needs_targets = False

    def own_parameters(self, model, chosen):
        return [parameter for parameter in model.parameters() if parameter.dim() == 1]


METHOD = Norms
"""
_COMMAND = """
import sys
from subspace.training import methods
methods.__path__.append(sys.argv.pop(1))
from subspace.cli import main
main()
"""
_QUICK = ("--steps", "2", "--batch", "2", "--length", "32", "--threads", "1")


@pytest.fixture
def dropped_in(tmp_path):
    """Give a function that calls ``subspace`` with the two files in the folder of methods."""
    folder = tmp_path / "methods"
    folder.mkdir()
    (folder / "one.py").write_text(_ONE_DIRECTION)
    (folder / "norms.py").write_text(_NORMS)

    def call(*words):
        command = [sys.executable, "-c", _COMMAND, folder, *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return call


def test_the_methods_are_found_by_being_there():
    assert every() == {"full": Full, "ia3": IA3, "lora": LoRA}
    for name, method in every().items():
        job = Job(method=method())
        assert job.settings()["method"]["kind"] == name
        assert Job.from_document(json.loads(json.dumps(job.document()))) == job


def test_an_adapter_that_is_dropped_in_is_trained_merged_saved_and_read(dropped_in, tmp_path):
    done = dropped_in("train", *_QUICK, "--method", "one", "--gain", "4", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert record["settings"]["method"] == {"kind": "one", "gain": 4.0, "alpha": 1.0}
    assert record["settings"]["lr"] == 1e-2 and record["trainable"] == 8 * 2 * 256
    # unmerged and merged agree: what it computes is what it says of the weight
    assert record["accounts"]["merged_difference"] < 1e-5
    update = subspace.load_adapter(tmp_path / "out")["model.layers.0.self_attn.q_proj"]
    assert update.A.shape == (1, 256) and update.scale.value == 4.0
    assert np.linalg.norm(update.B) > 0


def test_a_method_that_trains_parameters_of_the_model_is_one_too(dropped_in, tmp_path):
    done = dropped_in("train", *_QUICK, "--method", "norms", "--no-accounts", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    from safetensors.torch import load_file as tensors

    base, tuned = tensors(FOLDER / "model.safetensors"), tensors(tmp_path / "out/model.safetensors")
    changed = {name for name, value in tuned.items() if not value.equal(base[name].float())}
    assert changed == {name for name in base if "norm" in name}


def test_its_options_are_in_the_help_and_refused_with_other_methods(dropped_in, tmp_path):
    told = " ".join(dropped_in("train", "--help").stdout.split())
    assert "[full|ia3|lora|norms|one]" in told and "one: one direction of each target" in told
    assert "--gain" in told and "Factor of the direction." in told and "norms 0.01" in told
    for words, needed in (
        (("--gain", "2"), "--gain needs --method one"),
        (("--method", "one", "--rank", "2"), "--rank needs --method lora"),
        (("--method", "norms", "--alpha", "2"), "--alpha needs --method lora or --method one"),
    ):
        done = dropped_in("train", *words, "-o", tmp_path / "out")
        assert done.returncode == 2 and needed in done.stderr
    assert not (tmp_path / "out").exists()
    refused = dropped_in("train", "--method", "one", "--format", "loralib", "-o", tmp_path / "out")
    assert refused.returncode == 1 and "loralib cannot hold what the method one trains" in refused.stderr
