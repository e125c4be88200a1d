"""``subspace convert`` and ``subspace truncate``: files, documents, refusals."""

from __future__ import annotations

import json
import os

import contract
import numpy as np
import pytest
from contract import COUNT, MAYBE, NUMBER, TEXT
from safetensors.numpy import load_file

from subspace.adapters import load_adapter
from subspace.training import save_peft

_CONVERT = {
    "schema": "subspace.convert/1",
    "path": TEXT,
    "out": TEXT,
    "source_format": TEXT,
    "format": TEXT,
    "headline": TEXT,
    "modules": [
        {
            "module": TEXT,
            "of": [TEXT],
            "r": COUNT,
            "d_in": COUNT,
            "d_out": COUNT,
            "scale": MAYBE,
            "alpha": MAYBE,
            "dtype": TEXT,
            "error": NUMBER,
        }
    ],
    "notes": [TEXT],
}
_TRUNCATE = {
    "schema": "subspace.truncate/1",
    "path": TEXT,
    "out": TEXT,
    "format": TEXT,
    "headline": TEXT,
    "modules": [
        {
            "module": TEXT,
            "r_before": COUNT,
            "r_after": COUNT,
            "energy": MAYBE,
            "error": MAYBE,
            "error_absolute": MAYBE,
            "rounding": NUMBER,
            "flags": [TEXT],
        }
    ],
    "notes": [TEXT],
}


def snapshot(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("to", "name"),
    [("peft", "x"), ("loralib", "x.pt"), ("kohya", "x.safetensors"), ("diffusers", "x.safetensors")],
)
def test_convert_writes_and_says_what(to, name, run, made, tmp_path):
    before = snapshot(made / "first")
    # diffusers has no language model
    there = "unet.mid_block.attentions.*.transformer_blocks.0.attn1.to_*"
    names = ("--map", f"model.layers.*.self_attn.*_proj={there}") if to == "diffusers" else ()
    told = run("convert", made / "first", tmp_path / name, "--to", to, "--json", *names)
    assert told.code == 0 and f"wrote {tmp_path / name}" in told.err
    found = contract.document(told.out.rstrip("\n"))
    contract.check(found, _CONVERT)
    assert (found["source_format"], found["format"], len(found["modules"])) == ("peft", to, 6)
    read = load_adapter(tmp_path / name, scale=2.0 if to == "loralib" else None)
    whole = list(load_adapter(made / "first").values())
    for one, other in zip(whole, read.values(), strict=True):
        np.testing.assert_allclose(one.delta_W(), other.delta_W(), rtol=1e-6, atol=1e-9)
    assert snapshot(made / "first") == before


def test_convert_table_csv_and_dtype(run, made, tmp_path):
    told = run("convert", made / "first", tmp_path / "a", "--to", "peft", "--dtype", "bfloat16")
    assert told.out.splitlines()[0].split() == "module r d_in d_out alpha scale dtype error".split()
    assert "from peft to peft: 6 modules with a delta_W that differs by at most 0.00" in told.out
    assert load_adapter(tmp_path / "a")["model.layers.0.self_attn.q_proj"].A_factor.dtype == "bfloat16"
    rows = run("convert", made / "first", tmp_path / "b", "--to", "peft", "--csv").out.splitlines()
    assert len(rows) == 7 and rows[0].startswith("module,of,r,")


def test_truncate_writes_patterns_and_states_the_loss(run, made, tmp_path):
    (tmp_path / "ranks.json").write_text('{"q_proj": 1, "layers.0.self_attn.v_proj": 2}')
    told = run(
        "truncate", made / "second", tmp_path / "x", "--rank-pattern", tmp_path / "ranks.json", "--json"
    )
    found = contract.document(told.out.rstrip("\n"))
    contract.check(found, _TRUNCATE)
    assert [row["r_after"] for row in found["modules"]] == [1, 2, 1, 6, 1, 6]
    config = json.loads((tmp_path / "x" / "adapter_config.json").read_text())
    assert config["rank_pattern"].keys() >= {"model.layers.0.self_attn.v_proj"} or config["r"] == 2
    read, whole = load_adapter(tmp_path / "x"), load_adapter(made / "second")
    for row in found["modules"]:
        W, cut = whole[row["module"]].delta_W(), read[row["module"]].delta_W()
        assert np.linalg.norm(W - cut) == pytest.approx(row["error_absolute"], rel=1e-5, abs=1e-4)
        assert row["rounding"] < 1e-6


def test_truncate_to_one_rank_is_a_plain_r(run, made, tmp_path):
    assert run("truncate", made / "first", tmp_path / "x", "--rank", "2").code == 0
    config = json.loads((tmp_path / "x" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["rank_pattern"], config["alpha_pattern"]) == (
        2,
        4,
        {},
        {},
    )
    tensors = load_file(tmp_path / "x" / "adapter_model.safetensors")
    assert {tensor.shape for tensor in tensors.values()} == {(2, 32), (32, 2)}
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"float32"}


def test_truncate_keeps_the_format_and_takes_dense_deltas(run, made, tmp_path):
    run("convert", made / "first", tmp_path / "k.safetensors", "--to", "kohya")
    told = run(
        "truncate", tmp_path / "k.safetensors", tmp_path / "small.safetensors", "--energy", "0.5", "--json"
    )
    assert json.loads(told.out)["format"] == "kohya"
    told = run("truncate", made / "dW.npy", tmp_path / "d", "--rank", "4", "--module", "q", "--json")
    assert told.code == 0
    (row,) = json.loads(told.out)["modules"]
    assert row["r_after"] == 4 and row["error"] < 1e-6
    assert set(load_adapter(tmp_path / "d")) == {"q"}


@pytest.mark.parametrize(
    "words",
    [
        ("convert", "{in}", "{out}"),
        ("convert", "{in}", "{out}", "--to", "mlx"),
        ("convert", "{in}", "{out}", "--to", "peft", "--dtype", "int8"),
        ("convert", "{in}", "{out}", "--to", "peft", "--allow", "all"),
        ("truncate", "{in}", "{out}"),
        ("truncate", "{in}", "{out}", "--rank", "0"),
        ("truncate", "{in}", "{out}", "--energy", "0"),
        ("truncate", "{in}", "{out}", "--rank", "2", "--energy", "0.5"),
    ],
)
def test_usage(words, run, made, tmp_path):
    told = run(*(word.format(**{"in": made / "first", "out": tmp_path / "x"}) for word in words))
    assert told.code == 2 and told.out == "" and not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("convert", "{made}/pair.npz", "{out}", "--to", "peft", "--module", "q"), 3, "--scale"),
        (
            ("convert", "{made}/dW.npy", "{out}", "--to", "peft"),
            1,
            "cut it to factors of a rank first, by subspace truncate",
        ),
        (
            ("convert", "{made}/first", "{made}/first", "--to", "peft", "--overwrite"),
            1,
            "it is the input, or lies in its directory",
        ),
        (("convert", "{made}/first", "{out}.safetensors", "--to", "loralib"), 1, "does not end in .pt"),
        (("convert", "{made}/first", "{out}.xyz", "--to", "kohya"), 1, "does not end in .safetensors"),
        (("convert", "{made}/first", "{out}", "--to", "diffusers"), 1, "does not end in .safetensors"),
        (("convert", "{made}/first", "{out}.pt", "--to", "peft"), 1, "named like a file of weights"),
        (("convert", "{made}/first", "{out}.pt", "--to", "kohya"), 1, "does not end in .safetensors"),
        (("truncate", "{made}/first", "{out}", "--rank-pattern", "{made}/none.json"), 1, "No such file"),
        (
            ("truncate", "{made}/first", "{out}", "--rank-pattern", "{made}/ranks.json"),
            1,
            "Invalid rank 'eight'",
        ),
        (("convert", "{made}/none", "{out}", "--to", "peft"), 1, "No such file"),
    ],
)
def test_refusals_are_one_line_and_write_nothing(words, code, told, run, made, tmp_path):
    (made / "ranks.json").write_text('{"q_proj": "eight"}')
    got = run(*(word.format(made=made, out=tmp_path / "x") for word in words))
    assert got.code == code and got.out == ""
    assert got.err.count("\n") == 1 and told in got.err
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_exists_needs_overwrite(run, made, tmp_path):
    out = tmp_path / "x"
    assert run("convert", made / "first", out, "--to", "peft").code == 0
    before = snapshot(out)
    again = run("convert", made / "second", out, "--to", "peft")
    assert again.code == 1 and "--overwrite" in again.err and snapshot(out) == before
    assert run("convert", made / "second", out, "--to", "peft", "--overwrite").code == 0
    assert load_adapter(out)["model.layers.0.self_attn.q_proj"].r == 6


def test_a_full_disk_leaves_nothing(run, made, tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    told = run("convert", made / "first", tmp_path / "x", "--to", "peft")
    assert told.code == 1 and "No space left" in told.err and told.out == ""
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_neither_torch_nor_scipy_is_imported_for_safetensors(run_apart, made, tmp_path):
    told = run_apart(
        "convert", made / "first", "x", "--to", "peft", env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    )
    assert told.code == 0
    assert not {line.rpartition("|")[2].strip() for line in told.err.splitlines()} & {
        "torch",
        "scipy",
        "matplotlib",
    }


def test_a_scale_given_for_unequal_ranks_is_each_modules_scale(run, tmp_path):
    rng = np.random.default_rng(0)
    factors = {"h.0.q": (rng.standard_normal((2, 8)), rng.standard_normal((8, 2)))}
    save_peft(tmp_path / "in", factors, alpha=2)
    told = run("convert", tmp_path / "in", tmp_path / "out", "--to", "peft", "--scale", "3")
    assert told.code == 0
    assert load_adapter(tmp_path / "out")["h.0.q"].scale.value == 3


@pytest.mark.parametrize("words", [("--dtype", "float16"), ("--dtype", "bfloat16", "--to", "diffusers")])
def test_truncate_keeps_the_energy_that_was_asked_for_in_the_written_file(run, tmp_path, words):
    """The scale of 3 / 4 is multiplied into B for diffusers, which rounds it anew."""
    rng = np.random.default_rng(0)
    B, A = rng.standard_normal((24, 4)) * [8, 4, 2, 1], rng.standard_normal((4, 20))
    save_peft(tmp_path / "in", {"unet.mid_block.attentions.0.proj_in": (A, B)}, alpha=3)
    place = tmp_path / ("out.safetensors" if "--to" in words else "out")
    done = run("truncate", tmp_path / "in", place, "--energy", "0.95", *words, "--json")
    assert done.code == 0, done.err
    (row,) = json.loads(done.out)["modules"]
    (update,) = load_adapter(place).values()
    whole = 0.75 * B.astype(np.float32).astype(float) @ A.astype(np.float32).astype(float)
    kept = 1 - (np.linalg.norm(whole - update.delta_W()) / np.linalg.norm(whole)) ** 2
    assert row["energy"] == pytest.approx(kept, abs=1e-6)
    assert kept >= 0.95
