"""``subspace intruders``: its table, its document, and the adapter that it writes."""

from __future__ import annotations

import csv
import io

import contract
import intruder_cases as cases
import numpy as np
import pytest
from safetensors.numpy import load_file

from subspace import load_adapter


def _asked(made, *more):
    return "intruders", "--base", made / "base.safetensors", "--delta", made / "first", *more


def _dense(made, module):
    """W and delta_W of a module of the made adapter, whose scale is 2."""
    tensors = load_file(made / "first" / "adapter_model.safetensors")
    A, B = (tensors[f"base_model.model.{module}.lora_{x}.weight"].astype(float) for x in "AB")
    return load_file(made / "base.safetensors")[f"{module}.weight"].astype(float), 2 * B @ A


def test_the_table_says_what_was_compared(run, made):
    told = run(*_asked(made))
    assert told.code == 0
    header, *lines = told.out.splitlines()
    assert header.split()[0] == "module" and {"intruders", "chance_max_cos", "s_star", "s_star_law"} < set(
        header.split()
    )
    assert len([line for line in lines if line.startswith("model.layers.")]) == 6
    assert "leading left singular directions of W + delta_W" in told.out
    assert "An intruder is one of the 10 leading singular vectors of W + delta_W (not of delta_W)" in told.out


@pytest.mark.parametrize("route", ["--exact", "--fast"])
def test_json_follows_the_contract_and_the_definition(run, made, route):
    told = run(*_asked(made, "--json", "--side", "both", "-k", "4", route))
    found = contract.document(told.out.rstrip("\n"))
    contract.check(found, contract.INTRUDERS)
    assert {row["route"] for row in found["modules"]} == {route.removeprefix("--")}
    for row in found["modules"]:
        truth = cases.cosines(*_dense(made, row["module"]), 4, row["side"])
        assert np.all(np.array(row["max_cos_least"]) <= truth + 2e-3)
        assert np.all(truth <= np.array(row["max_cos"]) + 2e-3)
        assert row["intruders"] == (truth < 0.5).sum()
    assert found["sweep"]["counts_k"][-1] == sum(row["intruders"] for row in found["modules"])


def test_csv_has_a_row_per_module_and_side(run, made):
    told = run(*_asked(made, "--csv", "--side", "both", "--up-to", "0"))
    rows = list(csv.DictReader(io.StringIO(told.out)))
    assert len(rows) == 12 and {row["side"] for row in rows} == {"left", "right"}
    assert all(len(row["max_cos"].split(";")) == 10 and row["s_star"] == "" for row in rows)


def test_an_adapter_with_milder_intruders(run, made, tmp_path):
    """delta_W as written is delta_W and (lambda - 1) sigma u v^T of the first intruder, by dense decompositions."""
    told = run(*_asked(made, "--epsilon", "0.9", "--mitigate", "0.25", "-o", tmp_path / "out", "--json"))
    assert told.code == 0, told.err
    found = contract.document(told.out.rstrip("\n"))
    assert found["out"] == str(tmp_path / "out") and found["lambda"] == 0.25
    assert "Multiplied by 0.25 in" in told.err and "by rounding" in told.err and "wrote" in told.err
    out = load_adapter(tmp_path / "out")
    changed = 0
    for row in found["modules"]:
        W, delta_W = _dense(made, row["module"])
        U, S, Vh = np.linalg.svd(W + delta_W)
        hits = np.flatnonzero(cases.cosines(W, delta_W, 10) < 0.9)
        if hits.size:
            n = hits[0]
            delta_W = delta_W - 0.75 * S[n] * np.outer(U[:, n], Vh[n])
            assert row["mitigated_r"] == out[row["module"]].r
            changed += 1
        else:
            assert "mitigated_r" not in row
        np.testing.assert_allclose(out[row["module"]].delta_W(), delta_W, atol=1e-5 * S[0])
    assert changed


def test_a_limited_rank_is_written_and_its_error_said(run, made, tmp_path):
    told = run(*_asked(made, "--epsilon", "1", "--mitigate", "0", "-o", tmp_path / "out", "--rank", "2"))
    assert told.code == 0, told.err
    assert {update.r for update in load_adapter(tmp_path / "out").values()} == {2}
    assert "by its rank" in told.err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--mitigate", "0.5"], "--mitigate LAMBDA and -o OUT go together"),
        (["-o", "out"], "--mitigate LAMBDA and -o OUT go together"),
        (["--rank", "2"], "--rank is for what --mitigate writes"),
        (["--overwrite"], "--overwrite is for what --mitigate writes"),
        (["--dtype", "float16"], "--dtype is for what --mitigate writes"),
        (["--epsilon", "0"], "--epsilon"),
        (["-k", "0"], "-k"),
    ],
)
def test_usage(run, made, more, message):
    told = run(*_asked(made, *more))
    assert told.code == 2 and message in told.err


def test_an_output_that_is_there_stays(run, made, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "adapter_model.safetensors").write_bytes(b"mine")
    told = run(*_asked(made, "--mitigate", "0.5", "-o", tmp_path / "out"))
    assert told.code == 1 and "holds something other than an adapter" in told.err
    assert (tmp_path / "out" / "adapter_model.safetensors").read_bytes() == b"mine"


def test_an_unknown_scale_is_asked_for_by_its_option(run, made, tmp_path):
    np.savez(tmp_path / "pair.npz", **{"q.lora_A": np.ones((1, 8)), "q.lora_B": np.ones((8, 1))})
    np.save(tmp_path / "W.npy", np.eye(8))
    told = run("intruders", "--base", tmp_path / "W.npy", "--delta", tmp_path / "pair.npz")
    assert told.code == 3 and "give --scale" in told.err


def test_an_adapter_without_intruders_is_written_as_it_was(run, made, tmp_path):
    told = run(*_asked(made, "--epsilon", "1e-6", "--mitigate", "0", "-o", tmp_path / "out"))
    assert told.code == 0 and "No intruder was scaled" in told.err
    for module, update in load_adapter(made / "first").items():
        assert np.array_equal(load_adapter(tmp_path / "out")[module].delta_W(), update.delta_W())
