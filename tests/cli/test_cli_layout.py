"""--layout: how factors are stored, where their shapes do not say it."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

A, B = np.random.default_rng(3).standard_normal((2, 5, 5))


@pytest.fixture
def square(tmp_path):
    for name, factors in (("plain", (A, B)), ("turned", (A.T, B.T))):
        save_file(
            dict(zip("AB", map(np.ascontiguousarray, factors), strict=True)), tmp_path / f"{name}.safetensors"
        )
    return tmp_path


def test_a_square_pair_is_asked_for(run, square):
    refused = run("inspect", square / "plain.safetensors")
    assert refused.code == 1
    assert "A is [5, 5] and B is [5, 5], which fits BA and AB" in refused.err
    assert "say it with --layout" in refused.err
    assert run("inspect", square / "plain.safetensors", "--layout", "AB").code == 0


def test_a_layout_for_each_side(run, square):
    pair = [square / "plain.safetensors", square / "turned.safetensors"]
    done = run("compare", *pair, "--layout", "BA", "--layout", "AB", "--json")
    assert json.loads(done.out)["modules"][0]["cosine"] == pytest.approx(1)
    once = run("compare", pair[0], pair[0], "--layout", "AB", "--json")
    assert json.loads(once.out)["modules"][0]["cosine"] == pytest.approx(1)


@pytest.mark.parametrize("command", ["convert", "truncate"])
def test_what_is_written_knows_its_layout(run, square, command):
    rank = ["--rank", 2] if command == "truncate" else ["--module", "q"]
    words = [
        square / "turned.safetensors",
        square / "out",
        "--layout",
        "AB",
        "--scale",
        1,
        "--to",
        "peft",
        *rank,
    ]
    done = run(command, *words)
    if command == "truncate":
        assert done.code == 1  # PEFT needs a name for the module
        assert "PEFT cannot hold a module without a name" in done.err
        return
    assert done.code == 0, done.err
    assert json.loads(run("inspect", square / "out", "--json").out)["modules"][0]["r"] == 5


def test_no_such_layout(run, square):
    done = run("inspect", square / "plain.safetensors", "--layout", "XY")
    assert done.code == 2
    assert "'XY' is not one of 'BA', 'AB', 'BAt', 'BtA'" in done.err
