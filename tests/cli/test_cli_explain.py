"""``subspace explain`` on the command line."""

from __future__ import annotations

import csv
import io

import contract


def test_the_table_has_chance_beside_its_numbers(run, made):
    done = run(
        "explain", made / "first", "--base", made / "base.safetensors", "--heads", "2", "--directions", "2"
    )
    assert done.code == 0, done.err
    header, *lines = done.out.splitlines()
    columns = header.split()
    for name in ("W_share", "head_share"):
        assert columns[columns.index(name) + 1] == f"{name.removesuffix('_share')}_isotropic"
    assert "mean_share" not in columns and "token" not in columns
    assert len([line for line in lines if line.startswith("model.layers.")]) == 12
    assert "takes --inputs" in done.out and "||delta_W||^2" in done.out


def test_json_follows_the_contract_and_csv_has_a_line_for_each_direction(run, made):
    words = "explain", made / "first", "--heads", "4", "--directions", "3"
    found = contract.document(run(*words, "--json").out.rstrip("\n"))
    contract.check(found, contract.EXPLAIN)
    assert len(found["modules"]) == 18
    assert all(abs(sum(each["share"]) - 1) < 1e-9 for each in found["heads"])
    rows = list(csv.DictReader(io.StringIO(run(*words, "--csv").out)))
    assert [(row["module"], row["k"]) for row in rows] == [
        (row["module"], str(row["k"])) for row in found["modules"]
    ]


def test_what_cannot_be_explained_is_one_line(run, made, tmp_path):
    done = run("explain", made / "start")
    assert (
        done.code == 3
        and done.err.startswith("error: No module has a direction: ")
        and done.err.count("\n") == 1
    )
    (tmp_path / "x.safetensors").write_bytes(b"")
    assert run("explain", made / "first", "--inputs", tmp_path / "x.safetensors").code == 1
    assert run("explain", made / "first", "--directions", "0").code == 2
