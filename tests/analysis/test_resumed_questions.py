"""Every question about base weights goes on from its file of earlier results, and answers as it did."""

import numpy as np
import pytest
from safetensors.numpy import save_file

import subspace


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(1)
    base = {f"layers.{n}.q_proj.weight": rng.standard_normal((24, 20)).astype("f4") for n in range(3)}
    delta = {}
    for key in base:
        module = key.removesuffix(".weight")
        delta[f"{module}.lora_A.weight"] = rng.standard_normal((2, 20)).astype("f4")
        delta[f"{module}.lora_B.weight"] = rng.standard_normal((24, 2)).astype("f4")
    tuned = {
        key: W + delta[key.replace("weight", "lora_B.weight")] @ delta[key.replace("weight", "lora_A.weight")]
        for key, W in base.items()
    }
    for name, tensors in {"base": base, "delta": delta, "tuned": tuned}.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")
    return {name: str(tmp_path / f"{name}.safetensors") for name in ("base", "delta", "tuned")}


QUESTIONS = {
    "align": lambda f, **scope: subspace.align(
        f["base"], f["delta"], scale=1.0, k=2, store="bfloat16", **scope
    ),
    "amplify": lambda f, **scope: subspace.amplify(
        f["base"], f["delta"], scale=1.0, store="float16", **scope
    ),
    "explain": lambda f, **scope: subspace.explain(f["delta"], base=f["base"], scale=1.0, **scope),
    "extract": lambda f, **scope: subspace.extract(f["base"], f["tuned"], rank=1, **scope),
    "intruders": lambda f, **scope: subspace.intruders(
        f["base"], f["delta"], scale=1.0, side="both", **scope
    ),
    "spectrum": lambda f, **scope: subspace.spectrum(f["delta"], base=f["base"], scale=1.0, **scope),
    "visibility": lambda f, **scope: subspace.visibility(f["base"], f["delta"], scale=1.0, **scope),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_goes_on_where_it_was_interrupted(question, files, tmp_path):
    ask, resume = QUESTIONS[question], tmp_path / "earlier.jsonl"
    whole = ask(files).to_json()
    assert ask(files, resume=resume).to_json() == whole
    lines = resume.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    resume.write_bytes(b"".join(lines[:2]) + lines[2][:20])
    assert ask(files, resume=resume).to_json() == whole
    assert ask(files, resume=resume).to_json() == whole
