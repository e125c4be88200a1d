"""``subspace library``: many adapters at once, on the command line."""

from __future__ import annotations

import csv
import io
import json

import contract
import pytest


@pytest.fixture
def several(made):
    return [made / name for name in ("first", "second", "start")]


def test_the_table_has_pairs_facts_and_adapters(run, several):
    told = run("library", *several)
    assert told.code == 0
    header, *lines = told.out.splitlines()
    assert header.split()[:5] == ["first_name", "second_name", "side", "modules", "cosine"]
    assert len([line for line in lines if line.startswith("first ")]) == 3  # sides a and b, and the adapter
    assert "1 adapter is untrained and in no pair: start." in told.out
    assert "Adapters (clusters and starts are numbered; - is none):" in told.out


def test_json_keeps_its_contract(run, several):
    told = run("library", *several, "--json", "--side", "all", "--leading", "1,2")
    found = contract.document(told.out.rstrip("\n"))
    contract.check(found, contract.LIBRARY)
    assert found["headline"].startswith("3 adapters with ") and len(found["pairs"]) == 4
    assert {pair["side"] for pair in found["pairs"]} == {"a", "b", "left", "right"}
    assert all(pair["phi_leading"] is not None for pair in found["pairs"])
    assert [each["flags"] for each in found["adapters"] if each["path"].endswith("start")] == [["untrained"]]


def test_csv_has_a_line_for_each_pair_and_side(run, several):
    rows = list(csv.DictReader(io.StringIO(run("library", *several, "--csv", "--by", "layer").out)))
    assert [row["side"] for row in rows].count("a") == 3 and {row["part"] for row in rows} == {"0", "1", "2"}


def test_rows_are_chosen_by_the_name_of_an_adapter(run, several):
    told = run("library", *several, "--rows", "fir*", "--sort", "phi_full", "--top", "1", "--json")
    assert len(json.loads(told.out)["pairs"]) == 1
    told = run("library", *several, "--rows", "nobody")
    assert told.code == 1 and "No adapter matches nobody" in told.err


def test_an_index_is_kept_and_used_without_paths(run, several, tmp_path):
    told = run("library", *several[:2], "--index", tmp_path / "index")
    assert told.code == 0 and "2 adapters added" in told.err
    again = run("library", "--index", tmp_path / "index", "--json")
    first = run("library", *several[:2], "--json")
    one, two = (json.loads(each.out)["pairs"] for each in (again, first))
    assert [pair["phi_full"] for pair in one] == pytest.approx([pair["phi_full"] for pair in two], abs=2e-6)


def test_figures_and_parquet_are_written(run, several, tmp_path):
    pytest.importorskip("pyarrow")
    words = ["library", *several, "--plot", "heatmap", "--plot", "layers", "-o", tmp_path / "figures"]
    told = run(*words, "--parquet", tmp_path / "pairs.parquet")
    assert told.code == 0 and told.err.count("wrote ") == 5
    assert (tmp_path / "figures" / "library-heatmap.png").read_bytes().startswith(b"\x89PNG")
    told = run("library", *several, "--parquet", tmp_path / "pairs.parquet")
    assert told.code == 1 and "give another name, or --overwrite" in told.err and told.out == ""


def test_a_lineage_that_is_not_there_is_no_figure(run, several):
    told = run("library", *several, "--plot", "lineage")
    assert told.code == 3 and told.out == ""


def test_one_adapter_is_too_few(run, made):
    told = run("library", made / "first", "no/such/file")
    assert told.code == 1 and told.out == ""
    assert told.err.startswith("error: Too few adapters: 1 can be read, 1 path cannot be read: ")


def test_what_cannot_be_read_is_a_warning(run, several, tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"bad")
    told = run("library", *several, tmp_path / "bad.safetensors")
    assert told.code == 0 and "warning: 1 path not read: " in told.err and "bad.safetensors" in told.err


@pytest.mark.parametrize(
    "words",
    [
        ("library",),
        ("library", "a", "--side", "c"),
        ("library", "a", "--leading", "1"),
        ("library", "a", "-o", "figures"),
        ("library", "a", "--plot", "pie"),
        ("library", "a", "--least", "0"),
        ("library", "a", "--jobs", "0"),
        ("library", "a", "--shared", "-1"),
    ],
)
def test_bad_usage_is_exit_2(run, words):
    told = run(*words)
    assert told.code == 2 and told.out == "" and told.err.startswith("Usage: subspace")
