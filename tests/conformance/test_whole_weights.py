"""Dense updates: a full fine-tune with its base, and base weights in an adapter's place (figure 8)."""

from __future__ import annotations

import numpy as np
import oracles
import pytest

import subspace

D, R = 64, 4


@pytest.fixture
def base(rng):
    return {f"model.l.{n}.q.weight": rng.standard_normal((D, D)) for n in range(3)}


@pytest.fixture
def factors(rng):
    return {
        f"model.l.{n}.q": (rng.standard_normal((D, R)), rng.standard_normal((R, D)) / 8) for n in range(3)
    }


def _tuned(base, factors, dtype):
    return {
        f"{module}.weight": (base[f"{module}.weight"] + 2 * B @ A).astype(dtype)
        for module, (B, A) in factors.items()
    }


@pytest.mark.parametrize(("dtype", "atol"), [("float64", 1e-9), ("float32", 1e-5)])
def test_a_fine_tune_compares_as_the_adapter_it_came_from(dtype, atol, base, factors, lora, rng, on_disk):
    base = {key: W.astype(dtype) for key, W in base.items()}
    tuned = on_disk(_tuned(base, factors, dtype), "tuned.safetensors")
    whole = subspace.load_adapter(tuned, base=on_disk(base, "base.safetensors"))
    other = lora({m: (rng.standard_normal((D, 6)), rng.standard_normal((6, D))) for m in factors})
    one = subspace.compare(whole, other, side=("left", "right")).modules
    two = subspace.compare(lora(factors), other, side=("left", "right")).modules
    for row, again in zip(one, two, strict=True):
        assert (row.rank_first, row.shared_dim) == (R, again.shared_dim)
        np.testing.assert_allclose(row.phi, again.phi, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_fine_tune_is_amplified_as_the_adapter_it_came_from(dtype, base, factors, lora):
    base = {key: W.astype(dtype) for key, W in base.items()}
    whole = subspace.amplify(base, _tuned(base, factors, dtype), ranks=[R])
    low = subspace.amplify(base, lora(factors), scale=2.0)
    for module, again in zip(whole.modules, low.modules, strict=True):
        assert "rank_below_wanted" not in module.flags
        one, other = (row.ranks[0].record() for row in (module, again))
        assert (one.pop("null"), other.pop("null")) == ("isotropic", "isotropic")
        assert one == pytest.approx(other, rel=1e-5)
        assert module.norm_delta_W == pytest.approx(again.norm_delta_W, rel=1e-6)


def test_reading_a_fine_tune_twice_gives_the_same_and_leaves_the_arrays(base, factors):
    tuned = _tuned(base, factors, "float64")
    kept = {key: W.copy() for key, W in tuned.items()}
    update = subspace.load_adapter(tuned, base=base)["model.l.1.q"]
    np.testing.assert_array_equal(update.delta_W(), update.delta_W())
    for key, W in tuned.items():
        np.testing.assert_array_equal(W, kept[key])


def test_rounding_of_the_stored_weights_is_no_direction_of_the_change(base, factors):
    """Half precision: the change has rank 4, and the rounding of both weights has every rank."""
    small = {key: W.astype(np.float16) for key, W in base.items()}
    found = subspace.inspect(_tuned(small, factors, "float16"), base=small)
    assert [row.rank for row in found.modules] == [R] * 3


def test_an_unchanged_matrix_is_untrained(base, factors):
    tuned = {**base, **_tuned(base, {"model.l.0.q": factors["model.l.0.q"]}, "float64")}
    found = subspace.inspect(tuned, base=base)
    assert ["untrained" in row.flags for row in found.modules] == [False, True, True]


def test_base_weights_stand_in_for_an_adapter(base, factors, lora):
    result = subspace.compare(base, lora(factors), directions=10)
    assert result.first.format == "base weights"
    for row in result.modules:
        W, (_, A) = base[f"{row.module}.weight"], factors[row.module]
        expected = oracles.phi(W, A)[:10]
        assert row.phi.shape == (10, R) and "base" in row.flags
        np.testing.assert_allclose(row.phi, expected, rtol=0, atol=1e-8)


def test_base_weights_as_the_second_are_the_transpose(base, factors, lora):
    first = subspace.compare(base, lora(factors)).modules
    second = subspace.compare(lora(factors), base).modules
    for row, again in zip(first, second, strict=True):
        assert row.phi.shape == (7, R)  # a tenth of d
        np.testing.assert_allclose(row.phi, again.phi.T, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_base_weights_in_any_precision_have_directions(dtype, base, factors, lora):
    import torch

    small = {key: torch.from_numpy(W).to(getattr(torch, dtype)) for key, W in base.items()}
    result = subspace.compare(small, lora(factors))
    assert [row.phi.shape for row in result.modules] == [(7, R)] * 3
    for row in result.modules:
        expected = oracles.phi(small[f"{row.module}.weight"].double().numpy(), factors[row.module][1])[:7]
        np.testing.assert_allclose(row.phi, expected, rtol=0, atol=1e-5)


def test_the_left_side_of_base_weights_is_their_outputs(base, factors, lora):
    (row, *_) = subspace.compare(base, lora(factors), side="b", directions=5).modules
    W, (B, _) = base[f"{row.module}.weight"], factors[row.module]
    np.testing.assert_allclose(row.phi, oracles.phi(W.T, B.T)[:5], rtol=0, atol=1e-8)


def test_plain_weights_twice_are_no_comparison(base):
    with pytest.raises(subspace.SubspaceError, match="No adapter among the two"):
        subspace.compare(base, base)


def test_a_dense_side_has_no_start(base, factors, lora):
    with pytest.raises(subspace.SubspaceError, match="start"):
        subspace.compare(base, lora(factors), init=(lora(factors), None))
