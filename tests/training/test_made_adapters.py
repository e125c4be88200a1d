"""The smallest training: what is taught is learned, and files are in the layouts that others read."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from safetensors.numpy import load_file

import subspace
from subspace.training import Lesson, demo, save_base, save_peft, trained


@pytest.fixture(scope="module")
def lesson():
    return Lesson.planted(48, 40, strengths=(6.0, 3.0), seed=3)


def test_a_lesson_strengthens_directions_that_w_has(lesson):
    U, S, Vh = np.linalg.svd(lesson.target)
    np.testing.assert_allclose(S[:3], [6, 3, 0], atol=1e-10)
    # the target's directions are singular directions of W, and not its leading ones
    cores = U[:, :2].T @ lesson.W @ Vh[:2].T
    np.testing.assert_allclose(cores, np.diag(np.diag(cores)), atol=1e-10)
    own = np.linalg.svd(lesson.W, compute_uv=False)
    assert all(np.isclose(own, abs(value)).any() for value in np.diag(cores))
    assert np.abs(np.diag(cores)).max() < own[5]


@pytest.mark.parametrize("r", [2, 8])
def test_what_is_taught_is_learned(r, lesson):
    A, B, A_0 = trained(lesson, r, alpha=16.0, seed=1)
    assert (A.shape, B.shape, A_0.shape) == ((r, 40), (48, r), (r, 40))
    learned = 16 / r * B @ A
    assert np.linalg.norm(learned - lesson.target) < 0.35 * np.linalg.norm(lesson.target)


def test_no_more_ranks_than_taught_where_there_are_fewer(lesson):
    A, _, _ = trained(lesson, 1, seed=1)
    Vh = np.linalg.svd(lesson.target)[2]
    cosine = abs(A[0] @ Vh[0]) / np.linalg.norm(A)
    assert cosine > 0.95


def test_a_seed_repeats_and_another_does_not(lesson):
    one, again, other = (trained(lesson, 4, seed=seed, steps=20) for seed in (5, 5, 6))
    for left, right in zip(one, again, strict=True):
        np.testing.assert_array_equal(left, right)
    assert not np.allclose(one[0], other[0])
    assert not np.allclose(one[0], one[2])  # A has left its start


def test_the_start_is_gaussian_with_zero_b(lesson):
    A, B, A_0 = trained(lesson, 4, steps=0)
    np.testing.assert_array_equal(A, A_0)
    assert not B.any()
    assert A_0.std() == pytest.approx(1 / np.sqrt(40), rel=0.2)


def test_a_saved_adapter_reads_back(tmp_path):
    rng = np.random.default_rng(0)
    factors = {
        f"model.layers.{n}.q_proj": (rng.standard_normal((3, 10)), rng.standard_normal((12, 3)))
        for n in (0, 1)
    }
    path = save_peft(tmp_path / "adapter", factors, alpha=6)
    adapter = subspace.load_adapter(path)
    assert adapter.format == "peft" and list(adapter) == list(factors)
    for module, (A, B) in factors.items():
        assert adapter[module].scale.value == 2
        np.testing.assert_array_equal(adapter[module].A, A.astype(np.float32))
        np.testing.assert_array_equal(adapter[module].B, B.astype(np.float32))
    config = json.loads((path / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 3, 6)
    assert config["target_modules"] == ["q_proj"]


def test_peft_reads_a_saved_adapter(tmp_path):
    peft = pytest.importorskip("peft")
    rng = np.random.default_rng(0)
    save_peft(
        tmp_path, {"layers.0.q_proj": (rng.standard_normal((2, 5)), rng.standard_normal((6, 2)))}, alpha=4
    )
    config = peft.LoraConfig.from_pretrained(tmp_path)
    assert (config.r, config.lora_alpha, set(config.target_modules)) == (2, 4, {"q_proj"})


def test_files_are_written_whole_or_not_at_all(tmp_path):
    save_base(tmp_path / "base.safetensors", {"q.weight": np.ones((2, 3))})
    assert os.listdir(tmp_path) == ["base.safetensors"]
    assert load_file(tmp_path / "base.safetensors")["q.weight"].dtype == np.float32
    (tmp_path / "file").write_text("")
    with pytest.raises(subspace.SubspaceError, match="file"):
        save_base(tmp_path / "file" / "base.safetensors", {"q.weight": np.ones((2, 3))})
    assert sorted(os.listdir(tmp_path)) == ["base.safetensors", "file"]


def test_the_demo_has_its_adapters_their_starts_and_their_base(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "_WIDTH", 32)
    monkeypatch.setattr(demo, "_LAYERS", 1)
    monkeypatch.setattr(demo, "ADAPTERS", {"a": (2, 1), "b": (4, 2)})
    steps = []
    made = demo.make(tmp_path, progress=lambda done, total: steps.append((done, total)))
    assert set(made) == {"base", "a", "b"} and steps == [(n, 4) for n in (1, 2, 3, 4)]
    assert [update.r for update in subspace.load_adapter(made["b"]).values()] == [4, 4]
    start = subspace.load_adapter(tmp_path / "b-start")
    assert all(not update.B.any() and update.A.any() for update in start.values())
    assert all(subspace.load_base(made["base"]).find(module) for module in start)
