"""``subspace amplify``: table 7 on the command line."""

from __future__ import annotations

import csv
import io
import json

import contract
import numpy as np
import oracles
import pytest
from safetensors.numpy import load_file, save_file


def _base(made):
    return "--base", made / "base.safetensors"


def test_the_table_has_its_columns(run, made):
    told = run("amplify", *_base(made), "--delta", made / "first")
    assert (told.code, told.err) == (0, "")
    header, *lines = told.out.splitlines()
    assert (
        header.split()
        == (
            "module r norm_W norm_delta_W proj_delta_W proj_W proj_W_error proj_random proj_random_sd over_random "
            "amplification flags"
        ).split()
    )
    assert len([line for line in lines if line.startswith("model.layers.")]) == 6
    assert "At r = 4, the amplification factor is" in told.out


def test_json_follows_the_contract_and_the_dense_definitions(run, made):
    told = run("amplify", *_base(made), "--delta", made / "first", "--ranks", "1,4", "--json")
    found = contract.document(told.out.rstrip("\n"))
    contract.check(found, contract.AMPLIFY)
    tensors, base = (
        load_file(made / "first" / "adapter_model.safetensors"),
        load_file(made / "base.safetensors"),
    )
    for module in found["modules"]:
        A, B = (tensors[f"base_model.model.{module['module']}.lora_{x}.weight"].astype(float) for x in "AB")
        assert [rank["r"] for rank in module["ranks"]] == [1, 4]
        assert (module["scale"], module["scale_source"], module["flags"]) == (2, "config alpha/r", [])
        for rank in module["ranks"]:
            expected = oracles.table_7(base[f"{module['module']}.weight"].astype(float), 2 * B @ A, rank["r"])
            for name, value in expected.items():
                assert {**module, **rank}[name] == pytest.approx(value, rel=1e-6), name


def test_csv_has_a_row_per_module_and_rank(run, made):
    told = run("amplify", *_base(made), "--delta", made / "first", "--ranks", "2,4", "--csv")
    rows = list(csv.DictReader(io.StringIO(told.out)))
    assert len(rows) == 12 and {row["r"] for row in rows} == {"2", "4"}
    assert all(float(row["amplification"]) > 0 for row in rows)


def test_a_matrix_and_a_dense_delta_take_ranks_4_and_64(run, made):
    told = run("amplify", "--base", made / "W.npy", "--delta", made / "dW.npy", "--json")
    (module,) = json.loads(told.out)["modules"]
    assert [rank["r"] for rank in module["ranks"]] == [4]
    assert "rank_below_wanted" in module["flags"] and "lower rank than asked for" in told.err


def test_an_unknown_scale_is_asked_for_and_then_linear(run, made):
    words = ("amplify", "--base", made / "W.npy", "--delta", made / "pair.npz")
    told = run(*words, "--json")
    found = contract.document(told.out.rstrip("\n"))
    contract.check(found, contract.AMPLIFY)
    (module,) = found["modules"]
    contract.nulls_are_flagged(module)
    assert module["ranks"][0]["amplification"] is None and "scale_unknown" in module["flags"]
    assert told.err.count("\n") == 1 and "give --scale (alpha / r" in told.err
    factors = [
        json.loads(run(*words, "--json", "--scale", scale).out)["modules"][0]["ranks"][0]["amplification"]
        for scale in ("1", "-3")
    ]
    assert factors[1] == pytest.approx(3 * factors[0])


def test_a_base_that_lacks_modules_lists_them(run, made, tmp_path):
    base = load_file(made / "base.safetensors")
    kept = {key: W for key, W in base.items() if ".1." in key}
    save_file(kept, tmp_path / "part.safetensors")
    told = run("amplify", "--base", tmp_path / "part.safetensors", "--delta", made / "first", "--json")
    found = json.loads(told.out)
    assert len(found["modules"]) == 2 and len(found["missing"]) == 4
    assert "warning: 4 modules not in the base" in told.err


def test_a_base_without_the_modules_is_inconclusive(run, made, tmp_path):
    rng = np.random.default_rng(0)
    save_file(
        {f"other.{n}.weight": rng.standard_normal((4, 4)) for n in range(2)}, tmp_path / "other.safetensors"
    )
    told = run("amplify", "--base", tmp_path / "other.safetensors", "--delta", made / "first")
    assert told.code == 3 and told.out == "" and "other.safetensors" in told.err


def test_a_base_of_another_shape_is_one_line(run, made, tmp_path):
    base = load_file(made / "base.safetensors")
    save_file({key: W[:8] for key, W in base.items()}, tmp_path / "small.safetensors")
    told = run("amplify", "--base", tmp_path / "small.safetensors", "--delta", made / "first")
    assert told.code == 1 and told.err.count("\n") == 1
    assert "[8, 32]" in told.err and "[32, 32]" in told.err and "small.safetensors" in told.err


def test_a_sharded_model_directory_is_a_base(run, made, tmp_path):
    base = load_file(made / "base.safetensors")
    shards = {}
    for n, (key, W) in enumerate(base.items()):
        shard = f"model-0000{n % 2 + 1}-of-00002.safetensors"
        shards.setdefault(shard, {})[key] = W
    for shard, tensors in shards.items():
        save_file(tensors, tmp_path / shard)
    index = {
        "metadata": {},
        "weight_map": {key: shard for shard, tensors in shards.items() for key in tensors},
    }
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    whole, sharded = (
        json.loads(run("amplify", "--base", path, "--delta", made / "first", "--json").out)
        for path in (made / "base.safetensors", tmp_path)
    )
    for one, other in zip(whole["modules"], sharded["modules"], strict=True):
        assert one["ranks"] == other["ranks"]


def test_a_run_goes_on_from_a_file_and_prints_the_same(run, made, tmp_path):
    words = ("amplify", *_base(made), "--delta", made / "first", "--json")
    plain = run(*words)
    for _ in range(2):
        told = run(*words, "--resume", tmp_path / "kept.jsonl", "--no-cache")
        assert (told.code, told.out) == (0, plain.out)
    told = run(*words, "--resume", tmp_path / "kept.jsonl", "--ranks", "2")
    assert told.code == 1
    assert "error: The earlier results are of another run: not the same settings" in told.err
    assert "another file as --resume" in told.err


def test_jobs_that_do_not_pay_are_a_note_in_the_words_of_the_command(run, made):
    told = run("amplify", *_base(made), "--delta", made / "first", "--jobs", "2")
    assert told.code == 0
    assert "takes less time than starting several --jobs" in told.err


def test_a_device_that_is_not_there_is_one_line(run, made):
    told = run("amplify", *_base(made), "--delta", made / "first", "--device", "gpu")
    assert (told.code, told.out) == (1, "")
    assert told.err.startswith("error: No device 'gpu'") and "leave --device out" in told.err
    assert len(told.err.splitlines()) == 1


def test_no_cache_keeps_nothing(run, made, tmp_path, monkeypatch):
    from subspace.analysis import known_directions

    monkeypatch.setattr(known_directions, "_SMALLEST", 0)
    monkeypatch.setenv("SUBSPACE_CACHE", str(tmp_path / "kept"))
    words = ("amplify", *_base(made), "--delta", made / "first", "--json")
    without = run(*words, "--no-cache")
    assert not (tmp_path / "kept").exists()
    assert run(*words).out == run(*words).out == without.out
    assert len(list((tmp_path / "kept" / "directions").glob("*.directions"))) == 6
