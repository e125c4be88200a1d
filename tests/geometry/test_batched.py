"""Stacks of small products against a dense SVD of each, and against the routine for one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subspace import inspect
from subspace.errors import ValueRangeError
from subspace.geometry.batched import norms, singular_values
from subspace.geometry.frame import product_frame

sizes = st.integers(1, 6)


@given(sizes, sizes, sizes, sizes, st.integers(0, 2**32 - 1))
def test_each_is_that_of_the_dense_product(n, d_out, r, d_in, seed):
    rng = np.random.default_rng(seed)
    B, A = rng.standard_normal((n, d_out, r)), rng.standard_normal((n, r, d_in))
    for found, b, a in zip(singular_values(B, A), B, A, strict=True):
        wanted = np.linalg.svd(b @ a, compute_uv=False)[: min(d_out, r, d_in)]
        assert len(found) == len(wanted) == product_frame(b, a).k
        assert np.allclose(found, wanted, rtol=1e-9, atol=1e-13 * wanted[0])
    assert np.allclose(norms(A), [np.linalg.norm(a) for a in A])


def test_degenerate_products():
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, 5)), rng.standard_normal((4, 2))
    cases = [(b, a), (0 * b, a), (b, np.vstack([a[:1], a[:1]])), (b * 1e-300, a * 1e-20), (b * 1e200, a)]
    cases += [(np.hstack([b[:, :1], -b[:, :1]]), np.vstack([a[:1], a[:1]]))]  # the columns cancel
    found = singular_values(np.stack([c[0] for c in cases]), np.stack([c[1] for c in cases]))
    for S, (B, A) in zip(found, cases, strict=True):
        assert np.allclose(S, product_frame(B, A).S, rtol=1e-12, atol=0)
    assert [len(S) for S in found] == [2, 0, 1, 2, 2, 0]


def test_what_is_not_finite_or_too_large():
    with pytest.raises(ValueRangeError):
        singular_values(np.array([[[np.nan]]]), np.ones((1, 1, 1)))
    assert np.isinf(singular_values(np.full((1, 1, 1), 1e300), np.full((1, 1, 1), 1e300))[0]).all()


def test_inspect_keeps_small_and_large_modules_in_order():
    rng = np.random.default_rng(2)
    shapes = [(3, 2, 4), (5000, 2, 4), (3, 2, 4), (4, 3, 3), (3, 2, 4), (3, 1, 4)] * 200
    file = {}
    for n, (d_out, r, d_in) in enumerate(shapes):
        file |= {
            f"m.{n}.lora_A": rng.standard_normal((r, d_in)),
            f"m.{n}.lora_B": rng.standard_normal((d_out, r)),
        }
    file["m.2.lora_A"][0, 0] = np.inf
    file["m.4.lora_B"][:] = 0
    rows = inspect(file, scale=2.0).modules
    assert [row.module for row in rows] == [f"m.{n}" for n in range(len(shapes))]
    assert rows[2].flags == ("not_finite",)
    assert rows[4].flags == ("untrained",)
    for n in (0, 1, 3, 5, 1194, 1195):
        delta_W = 2 * file[f"m.{n}.lora_B"] @ file[f"m.{n}.lora_A"]
        assert rows[n].norm_delta_W == pytest.approx(np.linalg.norm(delta_W), rel=1e-12)
        assert rows[n].norm_A == pytest.approx(np.linalg.norm(file[f"m.{n}.lora_A"]), rel=1e-12)
        S = np.linalg.svd(delta_W, compute_uv=False)
        S = S[1e-10 * S[0] < S]
        share = S / S.sum()
        assert rows[n].rank == len(S)
        assert rows[n].stable_rank == pytest.approx((S**2).sum() / S[0] ** 2)
        assert rows[n].effective_rank == pytest.approx(np.exp(-(share * np.log(share)).sum()))
