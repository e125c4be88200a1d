"""``subspace inputs``, and ``compare --inputs``."""

from __future__ import annotations

import pytest
from contract import COUNT, MAYBE, NUMBER, TEXT, check, document

from subspace.training import save_peft

INPUTS = {
    "schema": "subspace.inputs/1",
    "headline": TEXT,
    "model": TEXT,
    "data": TEXT,
    "model_sha256": TEXT,
    "data_sha256": TEXT,
    "tokens": COUNT,
    "modules": [
        {
            "module": TEXT,
            "read_with": TEXT,
            "tokens": COUNT,
            "d": COUNT,
            "energy": MAYBE,
            "mean_share": MAYBE,
            "top_share": MAYBE,
            "effective_dimension": MAYBE,
            "decay": MAYBE,
            "eigenpairs": COUNT,
            "rest_share": MAYBE,
            "error_share": MAYBE,
            "gradient_norm": MAYBE,
            "eigenvalues": [NUMBER],
            "flags": [TEXT],
        }
    ],
    "notes": [TEXT],
}
_FEW = ("--tokens", 96, "--length", 32, "--targets", "q_proj", "--targets", "v_proj")


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text.txt").write_text("In the beginning was the word.\n" * 40, encoding="utf-8")
    return tmp_path / "text.txt"


def test_inputs_are_measured_and_written(run, tmp_path, text):
    out = tmp_path / "inputs.safetensors"
    done = run("inputs", "--data", text, "-o", out, *_FEW)
    assert done.code == 0, done.err
    assert done.out.splitlines()[0].split()[:5] == ["module", "tokens", "d", "energy", "mean_share"]
    assert "% of the input energy lies along the mean input" in done.out
    assert (
        "8 modules with 4 different inputs, 96 tokens: 2 MB of memory for the sums, and 2 MB in " in done.err
    )
    assert f"wrote {out}" in done.err and out.is_file()
    assert "tokens for the smaller" not in done.err
    again = run("inputs", "--data", text, "-o", out, *_FEW)
    assert again.code == 1 and "exists already; choose another name, or give --overwrite" in again.err
    assert run("inputs", "--data", text, "-o", out, "--overwrite", *_FEW).code == 0


def test_a_dry_run_says_what_it_takes_and_writes_nothing(run, tmp_path, text):
    done = run(
        "inputs",
        "--data",
        text,
        "-o",
        tmp_path / "inputs.safetensors",
        "--dry-run",
        "--full",
        0,
        "--eigenpairs",
        8,
        *_FEW,
    )
    assert done.code == 0 and done.out == ""
    assert "4 of them sketched (more than 0 dimensions)" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_json_has_every_field(run, text):
    found = document(run("inputs", "--data", text, "--json", "--gradients", *_FEW).out.rstrip())
    check(found, INPUTS)
    assert "moments" not in found and found["modules"][0]["gradient_norm"] > 0


def test_errors(run, tmp_path, text):
    done = run("inputs", "--data", text, "-o", tmp_path / "inputs.txt", *_FEW)
    assert done.code == 1 and "Inputs are a .safetensors file; give -o such a name" in done.err
    done = run("inputs", "--data", tmp_path / "no.txt", *_FEW)
    assert done.code == 1 and "No such file" in done.err
    assert run("inputs", "--data", text, "--tokens", 0).code == 2


def test_compare_with_inputs(run, tmp_path, text):
    import numpy as np

    rng = np.random.default_rng(0)
    modules = [f"model.layers.{n}.self_attn.{x}_proj" for n in range(4) for x in "qv"]
    for name in ("one", "other"):
        factors = {m: (rng.standard_normal((2, 256)), rng.standard_normal((256, 2))) for m in modules}
        save_peft(tmp_path / name, factors, alpha=4)
    out = tmp_path / "inputs.safetensors"
    assert run("inputs", "--data", text, "-o", out, *_FEW).code == 0
    pair = ("compare", tmp_path / "one", tmp_path / "other", "--inputs", out)
    done = run(*pair, "--base", "embedded")
    assert done.code == 0, done.err
    assert {"phi_full_inputs", "signs_p", "shared_dim_inputs", "cosine_functional"} <= set(
        done.out.splitlines()[0].split()
    )
    assert "the inputs alone give" in done.out and "% of the output of W" in done.out
    found = document(run(*pair, "--json").out.rstrip())
    assert found["inputs"]["tokens"] == 96 and len(found["modules"][0]["shared_p_inputs"]) == 2
    done = run(*pair[:3], "--inputs", text)
    assert done.code == 1 and "text.txt" in done.err
