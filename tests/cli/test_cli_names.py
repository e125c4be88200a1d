"""--map, --adapter-name and folders of several adapters, through the command line and in Python."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from subspace import compare, inspect, load_adapter, load_base
from subspace.adapters.naming.rename import new_names, renamed_base
from subspace.errors import FormatError
from subspace.training import save_peft

MODULES = [f"model.layers.{n}.self_attn.q_proj" for n in range(2)]


def factors(names, seed, r=2):
    rng = np.random.default_rng(seed)
    return {name: (rng.standard_normal((r, 6)), rng.standard_normal((6, r))) for name in names}


@pytest.fixture
def two(tmp_path):
    """A folder with two adapters below, as PEFT saves a model with "default" and "ranking" (here neither on top)."""
    save_peft(tmp_path / "two" / "default", factors(MODULES, 1), alpha=4)
    save_peft(tmp_path / "two" / "ranking", factors(MODULES, 2, r=3), alpha=4)
    return tmp_path / "two"


def ranks(done):
    return {row["r"] for row in json.loads(done.out)["modules"]}


def test_adapters_of_a_folder(run, two):
    done = run("inspect", two)
    assert done.code == 1
    assert "default, ranking; choose one with --adapter-name" in done.err
    assert ranks(run("inspect", "--json", "--adapter-name", "ranking", two)) == {3}
    assert ranks(run("inspect", "--json", "--adapter-name", "default", two)) == {2}
    done = run("inspect", "--adapter-name", "nothing", two)
    assert done.code == 1
    assert "No adapter 'nothing' in" in done.err and "which holds default, ranking;" in done.err


def test_the_default_adapter_on_top(run, two):
    for file in (two / "default").iterdir():
        file.rename(two / file.name)
    (two / "default").rmdir()
    assert ranks(run("inspect", "--json", two)) == {2}
    assert ranks(run("inspect", "--json", "--adapter-name", "default", two)) == {2}
    assert ranks(run("inspect", "--json", "--adapter-name", "ranking", two)) == {3}
    assert (
        "which holds default, ranking; choose one of them with --adapter-name"
        in run("inspect", "--adapter-name", "other", two).err
    )


def test_one_adapter_below_is_the_one(run, two):
    (two / "default").rename(two.parent / "elsewhere")
    assert ranks(run("inspect", "--json", two)) == {3}


def test_either_side_has_its_name(run, two):
    once = json.loads(run("compare", "--json", "--adapter-name", "ranking", two, two).out)["modules"][0]
    assert (once["r_first"], once["r_second"], round(once["phi_full"], 6)) == (3, 3, 1)
    twice = run("compare", "--json", "--adapter-name", "default", "--adapter-name", "ranking", two, two)
    assert [json.loads(twice.out)["modules"][0][key] for key in ("r_first", "r_second")] == [2, 3]
    assert run("compare", *["--adapter-name", "x"] * 3, two, two).code == 2


def test_several_adapters_of_one_file(run, tmp_path):
    dump = {}
    for name, seed in (("default", 1), ("ranking", 2)):
        for module, (A, B) in factors(MODULES, seed).items():
            dump |= {f"base_model.model.{module}.lora_A.{name}.weight": A}
            dump |= {f"base_model.model.{module}.lora_B.{name}.weight": B}
    np.savez(tmp_path / "dump.npz", **dump)
    done = run("inspect", tmp_path / "dump.npz")
    assert "default, ranking; choose one with --adapter-name" in done.err
    wanted = factors(MODULES, 2)[MODULES[0]][0]
    assert np.array_equal(load_adapter(dump, adapter_name="ranking")[MODULES[0]].A, wanted)
    done = run(
        "compare", "--adapter-name", "default", "--adapter-name", "ranking", *[tmp_path / "dump.npz"] * 2
    )
    assert done.code == 0


@pytest.mark.parametrize("name", ["lit_model.pth.lora", "my.GGUF"])
def test_a_directory_with_one_file_of_weights(tmp_path, name):
    from subspace.adapters.directory import located_weights

    (tmp_path / name).write_bytes(b"")
    (tmp_path / "hyperparameters.yaml").write_bytes(b"")
    assert located_weights(os.fspath(tmp_path)) == os.fspath(tmp_path / name)


OTHER = ["blocks.0.query", "blocks.1.query"]


@pytest.fixture
def pair(tmp_path):
    """One adapter under two lists of names that nothing can match."""
    made = factors(MODULES, 5)
    save_peft(tmp_path / "first", made, alpha=4)
    save_peft(tmp_path / "second", dict(zip(OTHER, made.values(), strict=True)), alpha=4)
    return tmp_path / "first", tmp_path / "second"


def test_a_map_of_the_second_adapter(run, pair):
    assert run("compare", *pair).code == 3
    rules = [word for old, new in zip(OTHER, MODULES, strict=True) for word in ("--map", f"{old}={new}")]
    done = run("compare", "--json", *rules, *pair)
    assert [round(row["phi_full"], 6) for row in json.loads(done.out)["modules"]] == [1, 1]
    assert "only in" not in done.err


def test_a_map_of_prefixes(run, pair):
    done = run("inspect", "--json", "--map", "blocks=model.layers", pair[1])
    assert [row["module"] for row in json.loads(done.out)["modules"]] == [
        "model.layers.0.query",
        "model.layers.1.query",
    ]


def test_a_map_of_the_adapter_in_amplify(run, pair, tmp_path):
    np.savez(tmp_path / "base.npz", **{f"{name}.weight": np.eye(6) for name in MODULES})
    rules = [word for old, new in zip(OTHER, MODULES, strict=True) for word in ("--map", f"{old}={new}")]
    done = run("amplify", "--base", tmp_path / "base.npz", "--delta", pair[1], "--json", *rules)
    assert [row["base_key"] for row in json.loads(done.out)["modules"]] == [
        f"{name}.weight" for name in MODULES
    ]


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        (["nothing=x"], "No module to rename: none is called 'nothing'"),
        (["block=x"], "No module to rename: none is called 'block'"),
        (
            ["blocks.0=x", "blocks.1=x"],
            "would have the name 'x.query': blocks.0.query and blocks.1.query",
        ),
        (["blocks.0.query=blocks.1.query"], "Two modules would have the name 'blocks.1.query'"),
    ],
)
def test_a_map_that_cannot_be(run, pair, rules, told):
    done = run("inspect", *[word for rule in rules for word in ("--map", rule)], pair[1])
    assert done.code == 1
    assert told in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("rules", [["x"], ["a=a"], ["a=b", "a=c"]])
def test_a_map_that_is_no_map(run, pair, rules):
    assert run("inspect", *[word for rule in rules for word in ("--map", rule)], pair[1]).code == 2


def test_rules_of_a_map():
    names = ["a.b.c", "a.d", "a.b[q]"]
    assert list(new_names(names, {"a": "x", "a.b": "y"}, "").values()) == ["y.c", "x.d", "y[q]"]
    assert list(new_names(names, {"a.": ""}, "").values()) == ["b.c", "d", "b[q]"]
    assert list(new_names(names, {"": "m"}, "").values()) == ["m.a.b.c", "m.a.d", "m.a.b[q]"]
    with pytest.raises(FormatError):
        new_names([], {"a": "b"}, "")


def test_maps_in_python(pair):
    rename = dict(zip(OTHER, MODULES, strict=True))
    adapter = load_adapter(pair[1], rename=rename)
    assert list(adapter) == MODULES == [update.module for update in adapter.values()]
    assert compare(pair[0], adapter).modules[1].phi_full == pytest.approx(1)
    assert inspect(load_adapter(pair[1]), rename={"blocks": "b"}).modules[0].module == "b.0.query"
    base = renamed_base(load_base({"x.q.weight": np.eye(3), "x.k.weight": np.eye(3)}), {"x": "h"})
    assert dict(base.modules) == {"h.q": "x.q.weight", "h.k": "x.k.weight"}
