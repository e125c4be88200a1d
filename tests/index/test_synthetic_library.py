import hashlib

import numpy as np
from synthetic_library import MODULES, plant_library

from subspace.adapters import load_adapter
from subspace.geometry.canonical import canonical


def _weights(path):
    return (path / "adapter_model.safetensors").read_bytes()


def test_a_library_is_seeded_and_its_copies_are_copies(tmp_path):
    first, again, other = (
        plant_library(tmp_path / name, 60, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert len(first.paths) == 60
    assert [_weights(p) for p in first.paths] == [_weights(p) for p in again.paths]
    assert first.clusters == again.clusters and first.lineage == again.lineage
    assert _weights(first.paths[0]) != _weights(other.paths[0])
    hashes = [hashlib.sha256(_weights(p)).hexdigest() for p in first.paths]
    same = {tuple(n for n, h in enumerate(hashes) if h == each) for each in hashes if hashes.count(each) > 1}
    assert same == {tuple(group) for group in first.duplicates}
    for one, other in first.near_duplicates:
        assert hashes[one] != hashes[other]
        pair = [load_adapter(first.paths[n])["model.layers.0.self_attn.q_proj"].A for n in (one, other)]
        assert np.abs(pair[0] - pair[1]).max() < 0.01 * np.abs(pair[0]).max()


def test_what_is_planted_is_there_and_strangers_are_strangers(tmp_path):
    planted = plant_library(tmp_path / "l", 60)
    module = next(iter(MODULES))
    updates = [load_adapter(path)[module] for path in planted.paths]
    deltas = [(u.B @ u.A).ravel() for u in updates]
    cosine = np.corrcoef(deltas)
    for cluster in planted.clusters:
        assert cosine[np.ix_(cluster, cluster)].min() > 0.2
    alone = planted.strangers
    assert len(alone) > 20
    assert np.abs(cosine[np.ix_(alone, range(60))] - np.eye(60)[alone]).max() < 0.2
    spans = [canonical(u.B, u.A).right for u in updates]
    overlap = np.array([[((X @ Y.T) ** 2).mean() * 8 for X in spans] for Y in spans])
    group = planted.shared_start
    assert overlap[np.ix_(group, group)].min() > 0.6  # chance 8 / 64
    assert np.abs(cosine[np.ix_(group, group)] - np.eye(len(group))).max() < 0.2  # different tasks
    assert sorted(kind for _, _, kind in planted.lineage) == ["branch"] + 7 * ["continued"]
    assert all(planted.steps[one] < planted.steps[other] for one, other, _ in planted.lineage)
