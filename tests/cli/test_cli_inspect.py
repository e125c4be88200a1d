"""``subspace inspect``: table, JSON, CSV, what was ignored."""

from __future__ import annotations

import csv
import io
import json

import contract
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from subspace.training import save_peft


def test_the_table_has_its_columns_and_accounts_for_every_tensor(run, made):
    told = run("inspect", made / "first")
    assert (told.code, told.err) == (0, "")
    header, *lines = told.out.splitlines()
    assert (
        header.split()
        == (
            "module r d_in d_out scale scale_source norm_A norm_B norm_delta_W rank stable_rank effective_rank flags"
        ).split()
    )
    assert len([line for line in lines if line.startswith("model.layers.")]) == 6
    assert lines[0].split()[:5] == ["model.layers.0.self_attn.q_proj", "4", "32", "32", "2"]
    assert "with 6 linear modules, r = 4, and 1,536 parameters." in told.out
    assert told.out.endswith("Other tensors: 0 ignored, 0 unknown.\n")


def test_json_follows_the_contract_and_the_definitions(run, made):
    told = run("inspect", made / "first", "--json")
    found = contract.document(told.out.rstrip("\n"))
    contract.check(found, contract.INSPECT)
    tensors = load_file(made / "first" / "adapter_model.safetensors")
    for module in found["modules"]:
        A, B = (tensors[f"base_model.model.{module['module']}.lora_{x}.weight"].astype(float) for x in "AB")
        S = np.linalg.svd(B @ A, compute_uv=False)[:4]
        assert (module["r"], module["alpha"], module["scale"], module["rank"]) == (4, 8, 2, 4)
        assert module["scale_source"] == "config alpha/r"
        assert module["norm_A"] == pytest.approx(np.linalg.norm(A))
        assert module["norm_B"] == pytest.approx(np.linalg.norm(B))
        assert module["norm_delta_W"] == pytest.approx(2 * np.linalg.norm(S))
        assert module["stable_rank"] == pytest.approx(np.sum(S**2) / S[0] ** 2)
        p = S / S.sum()
        assert module["effective_rank"] == pytest.approx(np.exp(-np.sum(p * np.log(p))))


def test_several_files_are_one_object_a_line(run, made):
    told = run("inspect", "--json", made / "first", made / "second", made / "pair.npz")
    found = [contract.document(line) for line in told.out.splitlines()]
    assert [document["format"] for document in found] == ["peft", "peft", "pair"]
    for document in found:
        contract.check(document, contract.INSPECT)
        for module in document["modules"]:
            contract.nulls_are_flagged(module)


def test_a_bad_file_after_a_good_one_keeps_what_was_printed(run, made):
    told = run("inspect", "--json", made / "first", "nowhere")
    assert told.code == 1 and len(told.out.splitlines()) == 1
    assert told.err.startswith("error: ") and "nowhere" in told.err


def test_every_value_that_does_not_exist_is_null_with_a_flag(run, made, tmp_path):
    tensors = load_file(made / "first" / "adapter_model.safetensors")
    names = sorted(name for name in tensors if "lora_B" in name)
    tensors[names[0]] = 0 * tensors[names[0]]
    tensors[names[1]][0, 0] = np.inf
    save_file(tensors, tmp_path / "odd.safetensors")
    told = run("inspect", "--json", tmp_path / "odd.safetensors")
    found = contract.document(told.out.rstrip("\n"))
    contract.check(found, contract.INSPECT)
    for module in found["modules"]:
        contract.nulls_are_flagged(module)
    flags = [flag for module in found["modules"] for flag in module["flags"]]
    assert {"untrained", "not_finite", "scale_unknown"} <= set(flags)
    assert (
        "warning: In 1 of 6 modules (model.layers.0.self_attn.q_proj) delta_W is exactly zero (untrained)"
        in told.err
    )
    assert (
        "In 1 of 6 modules (model.layers.0.self_attn.v_proj) a factor or a weight holds values that are not finite"
        in told.err
    )
    assert "The scale is unknown" in told.err


@pytest.mark.parametrize("flag", ["--table", "--csv", "--json"])
def test_data_alone_goes_to_standard_output(flag, run, made):
    told = run("inspect", flag, made / "pair.npz")
    assert told.code == 0 and "warning" not in told.out and "warning: The scale is unknown" in told.err


def test_scale_fills_in_what_the_file_does_not_say(run, made):
    told = run("inspect", "--json", made / "pair.npz", "--scale", "0.5")
    (module,) = json.loads(told.out)["modules"]
    assert (module["scale"], module["scale_source"]) == (0.5, "given by the user")
    assert module["norm_delta_W"] > 0 and module["flags"] == [] and told.err == ""


def test_csv_has_a_header_and_a_row_per_module(run, made):
    rows = list(csv.DictReader(io.StringIO(run("inspect", "--csv", made / "first").out)))
    assert len(rows) == 6
    assert {"path", "module", "r", "d_in", "d_out", "scale", "norm_delta_W", "rank", "flags"} <= set(rows[0])
    assert float(rows[0]["scale"]) == 2


def test_csv_of_several_files_has_one_header(run, made):
    rows = list(csv.DictReader(io.StringIO(run("inspect", "--csv", made / "first", made / "second").out)))
    assert len(rows) == 12 and {row["r"] for row in rows} == {"4", "6"}


def test_names_of_a_stranger_neither_run_nor_colour(run, tmp_path):
    rng = np.random.default_rng(0)
    names = ["=cmd|' /C calc'!A0", "@SUM(A1)", "evil\x1b[31m.q", "$\\frac{1}{2}$.q", "模块.🙂.q", "a\nb.q"]
    save_peft(
        tmp_path / "odd",
        {n: (rng.standard_normal((2, 8)), rng.standard_normal((8, 2))) for n in names},
        alpha=2,
    )
    table, rows = run("inspect", tmp_path / "odd"), run("inspect", "--csv", tmp_path / "odd")
    assert "\x1b" not in table.out + rows.out
    assert "evil\\x1b[31m.q" in table.out and "模块" in table.out and "a\\nb.q" in table.out
    cells = [row["module"] for row in csv.DictReader(io.StringIO(rows.out))]
    assert len(cells) == 6 and not any(cell.startswith(("=", "@", "+", "-")) for cell in cells)
    found = contract.document(run("inspect", "--json", tmp_path / "odd").out.rstrip("\n"))
    assert {module["module"] for module in found["modules"]} == set(names)


def test_verbose_lists_what_was_ignored_and_what_is_unknown(run, made, tmp_path):
    tensors = load_file(made / "first" / "adapter_model.safetensors")
    tensors["base_model.model.lm_head.bias"] = np.zeros(3, np.float32)
    tensors["base_model.model.classifier.modules_to_save.weight"] = np.zeros((3, 3), np.float32)
    save_file(tensors, tmp_path / "more.safetensors")
    quiet, told = (run("inspect", tmp_path / "more.safetensors", *flag) for flag in ([], ["-v"]))
    counts = [line for line in quiet.out.splitlines() if line.startswith("Other tensors")]
    assert len(counts) == 1 and "0 ignored, 0 unknown" not in counts[0]
    assert "modules_to_save" in told.out and "modules_to_save" not in quiet.out


def test_entries_that_are_no_tensors_are_accounted_for(run, tmp_path):
    import torch

    state = {"q.lora_A": torch.ones(2, 4), "q.lora_B": torch.ones(3, 2), "epoch": 7}
    torch.save(state, tmp_path / "state.pt")
    told = run("inspect", "--json", tmp_path / "state.pt")
    assert "epoch" in {item["key"] for item in json.loads(told.out)["ignored"]}


def test_a_fused_layer_takes_enable_lora(run, tmp_path):
    import torch

    torch.save({"attn.lora_A": torch.ones(4, 8), "attn.lora_B": torch.ones(16, 2)}, tmp_path / "fused.pt")
    told = run("inspect", "--json", tmp_path / "fused.pt", "--enable-lora", "1,0,1")
    assert [module["module"] for module in json.loads(told.out)["modules"]] == ["attn[q]", "attn[v]"]
    told = run("inspect", tmp_path / "fused.pt", "--enable-lora", "1,1,1")
    assert (
        told.code == 1 and "--enable-lora than in the factors: 3 and 2" in told.err and "fused.pt" in told.err
    )


def test_one_adapter_of_several_is_chosen_by_name(run, tmp_path):
    arrays = {
        f"base_model.model.q.lora_{x}.{name}.weight": np.full(
            (2, 8) if x == "A" else (8, 2), value, np.float32
        )
        for name, value in (("one", 1), ("two", 3))
        for x in "AB"
    }
    save_file(arrays, tmp_path / "two.safetensors")
    told = run("inspect", tmp_path / "two.safetensors")
    assert told.code == 1 and "one" in told.err and "two" in told.err and "--adapter-name" in told.err
    norms = {}
    for name in ("one", "two"):
        told = run("inspect", "--json", tmp_path / "two.safetensors", "--adapter-name", name)
        norms[name] = json.loads(told.out)["modules"][0]["norm_A"]
    assert norms["two"] == pytest.approx(3 * norms["one"])


def test_a_fine_tune_needs_its_base(run, made, tmp_path):
    base = load_file(made / "base.safetensors")
    changed = {key: W + np.outer(np.ones(32), np.ones(32)).astype(np.float32) for key, W in base.items()}
    save_file(changed, tmp_path / "tuned.safetensors")
    assert "--base" in run("inspect", tmp_path / "tuned.safetensors").err
    told = run("inspect", "--json", tmp_path / "tuned.safetensors", "--base", made / "base.safetensors")
    found = json.loads(told.out)
    assert found["format"] == "full fine-tune"
    assert [module["rank"] for module in found["modules"]] == [1] * 6
