"""A training method is one file: CONTRIBUTING's two are trained, refused, merged and saved like the others."""

from __future__ import annotations

import ast
import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import click
import guide
import numpy as np
import pytest
from tiny_models import TEXTS

import subspace
from subspace.errors import ValueRangeError
from subspace.training import IA3, DoRA, Full, Job, LoRA
from subspace.training.embedded import FOLDER
from subspace.training.methods import every

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
    """Give a function that calls ``subspace`` with the guide's files in the folder of methods."""
    folder = tmp_path / "methods"
    folder.mkdir()
    methods = {Path(name).name: text for name, text in guide.files("Add a training method").items()}
    # one whose option is LoRA's too
    methods["scaled.py"] = methods["direction.py"].replace("gain", "alpha").replace('"direction"', '"scaled"')
    for name, text in methods.items():
        (folder / name).write_text(text, encoding="utf-8")

    text = (
        tmp_path / "text.txt"
    )  # of which a tenth is held out: most of the time of two steps is to measure on that
    text.write_text("\n".join(TEXTS * 8), encoding="utf-8")

    def call(*words):
        if "--steps" in words:
            words = (*words, "--data", text)
        command = [sys.executable, "-c", _COMMAND, folder, *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return call


def test_the_methods_are_found_by_being_there():
    assert every() == {"dora": DoRA, "full": Full, "ia3": IA3, "lora": LoRA}
    for name, method in every().items():
        job = Job(method=method())
        assert job.settings()["method"]["kind"] == name
        assert Job.from_document(json.loads(json.dumps(job.document()))) == job


def test_an_adapter_that_is_dropped_in_is_trained_merged_saved_and_read(dropped_in, tmp_path):
    done = dropped_in("train", *_QUICK, "--method", "direction", "--gain", "4", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert record["settings"]["method"] == {"kind": "direction", "gain": 4.0, "seed": 0}
    assert record["settings"]["lr"] == 1e-2 and record["trainable"] == 8 * 256
    # unmerged and merged agree: what it computes is what it says of the weight
    assert record["accounts"]["merged_difference"] < 1e-5
    update = subspace.load_adapter(tmp_path / "out")["model.layers.0.self_attn.q_proj"]
    assert update.A.shape == (1, 256) and update.scale.value == 4.0
    assert np.linalg.norm(update.B) > 0


@pytest.mark.slow
def test_its_random_start_is_that_of_the_seed(dropped_in, tmp_path):
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        words = ("--method", "direction", "--seed", seed, "--no-accounts", "-o", tmp_path / name)
        done = dropped_in("train", *_QUICK, *words)
        assert done.returncode == 0, done.stderr
    for file in ("start/adapter_model.safetensors", "adapter_model.safetensors"):
        first, again, other = ((tmp_path / name / file).read_bytes() for name in ("first", "again", "other"))
        assert first == again != other
    start = subspace.load_adapter(tmp_path / "first/start")
    vs = np.array([update.A[0] for update in start.values()])
    assert not any(update.B.any() for update in start.values())
    assert np.linalg.matrix_rank(vs) == len(vs) == 8  # another in every module
    trained = subspace.load_adapter(tmp_path / "first")
    assert all(np.array_equal(trained[module].A, start[module].A) for module in start)


def test_its_settings_are_checked_from_python_as_on_the_command_line(tmp_path):
    (text,) = (t for n, t in guide.files("Add a training method").items() if n.endswith("direction.py"))
    (tmp_path / "direction.py").write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("direction", tmp_path / "direction.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.METHOD(gain=np.float32(2)).gain == 2
    for gain, wanted in (
        (-1, "finite and at least 0"),
        (math.nan, "finite and"),
        ("4", "a number"),
        (True, "a number"),
    ):
        with pytest.raises(ValueRangeError, match=f"Invalid `gain` {gain!r}: it must be {wanted}"):
            module.METHOD(gain=gain)


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        (LoRA, {"dropout": -0.1}, r"Invalid `dropout` -0.1: it must be in \[0, 1\)"),
        (LoRA, {"alpha": "16"}, "Invalid `alpha` '16': it must be a number"),
        (LoRA, {"alpha": math.inf}, "Invalid `alpha` inf: it must be finite"),
        (LoRA, {"rslora": "no"}, "Invalid `rslora` 'no': it must be true or false"),
        (LoRA, {"groups": "101"}, "Unknown group '101' of a fused layer"),
        (
            LoRA,
            {"groups": [2, 0]},
            r"Invalid `groups` \[2, 0\]: it must be a list of names, or of true and false",
        ),
        (IA3, {"feedforward": "down_proj"}, "Invalid `feedforward` 'down_proj': it must be a list of names"),
    ],
)
def test_settings_of_the_methods_are_checked(method, given, message):
    with pytest.raises(ValueRangeError, match=message):
        method(**given)


def test_no_file_that_is_found_by_being_there_imports_torch_before_it_is_used():
    """Or every ``subspace --help`` would wait for it."""
    package = Path(subspace.__file__).parent / "training"
    texts = {
        str(path): path.read_text()
        for name in ("methods", "starts")
        for path in (package / name).glob("[!_]*.py")
    }
    for heading in ("Add a training method", "Add a start of LoRA"):
        texts |= guide.files(heading)
    assert len(texts) >= 12
    for name, text in texts.items():
        imported = [node for node in ast.parse(text).body if isinstance(node, ast.Import | ast.ImportFrom)]
        modules = {getattr(node, "module", None) or alias.name for node in imported for alias in node.names}
        assert not any(module.split(".")[0] == "torch" for module in modules), name


def test_a_method_that_trains_parameters_of_the_model_is_one_too(dropped_in, tmp_path):
    done = dropped_in("train", *_QUICK, "--method", "norms", "--no-accounts", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    from safetensors.torch import load_file as tensors

    base, tuned = tensors(FOLDER / "model.safetensors"), tensors(tmp_path / "out/model.safetensors")
    changed = {name for name, value in tuned.items() if not value.equal(base[name].float())}
    assert changed == {name for name in base if "norm" in name}


def test_its_options_are_in_the_help_and_refused_with_other_methods(dropped_in, tmp_path):
    text = " ".join(dropped_in("train", "--help").stdout.split())
    assert (
        "[direction|dora|full|ia3|lora|norms|scaled]" in text
        and "direction: one direction of each target" in text
    )
    assert "--gain" in text and "Factor of the direction." in text and "norms 0.01" in text
    for words, needed in (
        (("--gain", "2"), "--gain needs --method direction"),
        (("--method", "direction", "--rank", "2"), "--rank needs --method lora"),
        (
            ("--method", "norms", "--alpha", "2"),
            "--alpha needs --method lora or --method dora or --method scaled",
        ),
    ):
        done = dropped_in("train", *words, "-o", tmp_path / "out")
        assert done.returncode == 2 and needed in done.stderr
    assert not (tmp_path / "out").exists()
    refused = dropped_in("train", "--method", "direction", "--format", "loralib", "-o", tmp_path / "out")
    assert (
        refused.returncode == 1 and "loralib cannot hold what the method direction trains" in refused.stderr
    )


def test_settings_of_two_methods_may_have_one_name_under_two_flags(monkeypatch):
    from click.testing import CliRunner

    from subspace.cli import train_options
    from subspace.training import LoRA
    from subspace.training.method import Option

    class Other(LoRA):
        name, options = "other", (Option("--other-rank", "r", "Rank of the other.", least=1),)

    monkeypatch.setattr(train_options, "every", lambda: {"lora": LoRA, "other": Other})
    found = []

    @click.command
    @train_options.method_options
    @click.option("--seed", default=0)
    @click.pass_context
    def command(context, **given):
        found.append(train_options.chosen_method(context))

    for words, kind, r in (
        (["--rank", "4"], LoRA, 4),
        (["--method", "other", "--other-rank", "3"], Other, 3),
        (["--method", "other"], Other, LoRA.r),
    ):
        done = CliRunner().invoke(command, words)
        assert done.exit_code == 0, done.output
        assert type(found[-1]) is kind and found[-1].r == r
    assert "needs --method other" in CliRunner().invoke(command, ["--other-rank", "3"]).output
