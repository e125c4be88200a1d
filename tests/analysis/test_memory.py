"""Memory stays at one module: what was read is given back, and base weights are opened one at a time."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

import subspace
from subspace.checkpoints.safetensors import SafetensorsFile
from subspace.checkpoints.sharded import ShardedFile

D = 16


@pytest.fixture
def files(tmp_path):
    """An adapter, and base weights in two shards."""
    rng = np.random.default_rng(0)
    names = [f"l.{n}.q" for n in range(4)]
    tensors = {
        f"{n}.lora_{x}": rng.standard_normal((2, D) if x == "A" else (D, 2)) for n in names for x in "AB"
    }
    save_file(tensors, tmp_path / "adapter.safetensors")
    weight_map = {}
    for n, name in enumerate(names):
        shard = f"model-0000{n + 1}-of-00004.safetensors"
        save_file({f"{name}.weight": rng.standard_normal((D, D))}, tmp_path / shard)
        weight_map[f"{name}.weight"] = shard
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return tmp_path / "adapter.safetensors", index


@pytest.fixture
def released(monkeypatch):
    """How often each kind of file gave its memory back."""
    counts = {"safetensors": 0, "sharded": 0}
    for name, kind in (("safetensors", SafetensorsFile), ("sharded", ShardedFile)):

        def counted(self, name=name, release=kind.release):
            counts[name] += 1
            release(self)

        monkeypatch.setattr(kind, "release", counted)
    return counts


def test_amplify_gives_the_memory_of_every_module_back(files, released):
    adapter, index = files
    result = subspace.amplify(index, adapter, scale=1.0)
    assert len(result.modules) == 4
    assert released["sharded"] == 4 and released["safetensors"] >= 4


def test_compare_with_base_weights_gives_the_memory_of_every_module_back(files, released):
    adapter, index = files
    assert len(subspace.compare(index, adapter).modules) == 4
    assert released["sharded"] == 4


def test_inspect_gives_the_memory_of_every_module_back(files, released):
    subspace.inspect(files[0], scale=1.0)
    assert released["safetensors"] == 4


def test_no_shard_is_held_while_the_next_is_read(files, monkeypatch):
    adapter, index = files
    whole = subspace.load_adapter(adapter)
    base = subspace.load_base(index)
    from subspace.analysis.resolve import base_as_adapter

    weights = base_as_adapter(base, whole)
    for module in weights:
        assert weights[module].matrix.load().shape == (D, D)
    base.tensors.release()
    assert base.tensors._open is None
