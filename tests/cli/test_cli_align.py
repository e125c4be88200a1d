"""``subspace align``: delta_W in the directions of W on the command line."""

from __future__ import annotations

import csv
import io

import contract
import oracles_of_alignment as dense
import pytest
from safetensors.numpy import load_file


def _words(made, *more):
    return "align", "--base", made / "base.safetensors", "--delta", made / "first", *more


def test_the_table_has_chance_beside_its_numbers(run, made):
    done = run(*_words(made, "--k", "4"))
    assert done.code == 0
    # the weights are random, so that no direction of theirs stands out
    assert [line[:9] for line in done.err.splitlines()] == ["warning: "] and "30 degrees or more" in done.err
    header, *lines = done.out.splitlines()
    columns = header.split()
    for name in ("input_share", "output_share", "reweighting", "input_rotation", "output_rotation"):
        at = columns.index(name)
        assert columns[at + 1] == f"{name.removesuffix('_share')}_isotropic"
    assert columns[columns.index("mask_overlap") + 1] == "mask_gaussian"
    assert len([line for line in lines if line.startswith("model.layers.")]) == 6
    facts = [line for line in lines if line.startswith("In the median of 6 modules, ")]
    assert len(facts) == 4 and "4 leading input directions (isotropic: " in facts[0]
    assert not any(word in done.out for word in ("RL", "SFT"))


def test_json_follows_the_contract_and_the_dense_definitions(run, made):
    found = contract.document(
        run(*_words(made, "--k", "4", "--mask-share", "0.25", "--json")).out.rstrip("\n")
    )
    contract.check(found, contract.ALIGN)
    tensors, base = (
        load_file(made / "first" / "adapter_model.safetensors"),
        load_file(made / "base.safetensors"),
    )
    for module in found["modules"]:
        A, B = (tensors[f"base_model.model.{module['module']}.lora_{x}.weight"].astype(float) for x in "AB")
        expected = dense.alignment(base[f"{module['module']}.weight"].astype(float), 2 * B @ A, 4, share=0.25)
        for name, value in expected.items():
            assert module[name] == pytest.approx(value, rel=1e-6), name


def test_csv_has_a_row_per_module(run, made):
    rows = list(csv.DictReader(io.StringIO(run(*_words(made, "--csv")).out)))
    assert len(rows) == 6 and all(0 < float(row["input_share"]) <= 1 for row in rows)
    assert "curves" not in rows[0] and "input_sd" in rows[0]


def test_layers_and_modules_choose_what_is_measured(run, made):
    chosen = run(*_words(made, "--layers", "1", "--modules", "*q_proj", "--csv"))
    assert [row["module"] for row in csv.DictReader(io.StringIO(chosen.out))] == [
        "model.layers.1.self_attn.q_proj"
    ]


def test_the_scale_is_asked_for_in_the_options_of_the_command(run, tmp_path):
    import numpy as np

    rng = np.random.default_rng(0)
    np.savez(tmp_path / "a.npz", A=rng.standard_normal((2, 12)), B=rng.standard_normal((10, 2)))
    np.save(tmp_path / "W.npy", rng.standard_normal((10, 12)))
    done = run("align", "--base", tmp_path / "W.npy", "--delta", tmp_path / "a.npz", "--k", "2")
    assert done.code == 0 and "give --scale" in done.err and "`" not in done.err
    header, line = done.out.splitlines()[:2]
    assert dict(zip(header.split(), line.split(), strict=False))["spectral_shift"] == "-"
