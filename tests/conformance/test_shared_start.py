"""Two runs from one random start: A looks alike whatever was learned, and that is said."""

from __future__ import annotations

import numpy as np
import pytest

import subspace

D, R = 768, 8


@pytest.fixture
def runs(lora):
    """A start and two adapters trained from it on unrelated things: small changes of A, B from zero."""
    rng = np.random.default_rng(5)
    A_0 = rng.standard_normal((R, D)) / np.sqrt(D)
    start = lora(q=(np.zeros((D, R)), A_0))

    def trained():
        change = 0.05 * rng.standard_normal((R, D)) / np.sqrt(D)
        return lora(q=(0.01 * rng.standard_normal((D, R)), A_0 + change))

    return start, trained(), trained()


def _by_init(result, side):
    return {row.init: row for row in result.modules if row.side == side}


def test_a_is_near_1_and_b_at_chance_and_that_is_flagged(runs):
    _, one, other = runs
    a, b = subspace.compare(one, other, side=("a", "b")).modules
    assert a.phi_full == pytest.approx(0.995, abs=0.003)
    assert b.phi_full < 2 * b.chance_full
    assert "shared_start" in a.flags and "shared_start" not in b.flags


def test_the_note_says_what_to_do(runs):
    _, one, other = runs
    found = subspace.compare(one, other)
    assert any("`init`" in note and "one random start" in note for note in found.notes)
    assert found.sides["a"].start == "common" and found.sides["a"].start_z > 6.5


@pytest.mark.parametrize("given", ["one", "both"])
def test_with_the_start_removed_nothing_is_left_but_chance(runs, given):
    start, one, other = runs
    result = subspace.compare(one, other, init=start if given == "one" else (start, start))
    rows = _by_init(result, "a")
    assert rows["kept"].phi_full == pytest.approx(0.995, abs=0.003)
    assert rows["removed"].phi_full == pytest.approx(0.0104, abs=0.006)
    assert abs(rows["removed"].z_full) < 4
    assert rows["removed"].shared_dim == 0 < rows["kept"].shared_dim
    assert "init" in result.columns() and "with the start removed" in result.headline()


def test_removing_the_start_equals_subtracting_it_beforehand(runs, lora):
    start, one, other = runs

    def without(tensors):
        A = tensors["q.lora_A.weight"] - start["q.lora_A.weight"]
        return lora(q=(tensors["q.lora_B.weight"], A))

    removed = _by_init(subspace.compare(one, other, init=start), "a")["removed"]
    (direct,) = subspace.compare(without(one), without(other)).modules
    np.testing.assert_allclose(removed.phi, direct.phi, rtol=0, atol=1e-10)


def test_delta_w_needs_no_start_where_b_began_at_zero(runs):
    start, one, other = runs
    rows = _by_init(subspace.compare(one, other, init=start, side="right"), "right")
    np.testing.assert_allclose(rows["kept"].phi, rows["removed"].phi, rtol=0, atol=1e-9)


def test_the_start_of_one_adapter_only(runs, lora):
    start, one, _ = runs
    rng = np.random.default_rng(6)
    other = lora(q=(rng.standard_normal((D, 4)), rng.standard_normal((4, D))))
    rows = _by_init(subspace.compare(one, other, init=(start, None)), "a")
    assert set(rows) == {"kept", "removed"}


def test_one_adapter_twice_is_not_called_a_shared_start(runs):
    _, one, _ = runs
    (row,) = subspace.compare(one, one).modules
    assert "shared_start" not in row.flags and "start_or_input" not in row.flags
    assert subspace.compare(one, one).relation == "same_adapter"


def test_a_start_that_fits_neither_is_refused(runs, lora):
    _, one, other = runs
    wrong = lora(q=(np.zeros((D, 3)), np.ones((3, D))))
    with pytest.raises(
        subspace.SubspaceError, match="The start has the modules and ranks of neither adapter"
    ):
        subspace.compare(one, other, init=wrong)
    with pytest.raises(
        subspace.SubspaceError,
        match=r"The start has other shapes than the adapter, r = 3 and 8, in module q of",
    ):
        subspace.compare(one, other, init=(wrong, None))


def _run(rng, lora, A_0, moved, modules=2):
    """An adapter whose A moved from A_0 by so much of its norm, along three directions of its own."""
    factors = {}
    for name, start in A_0.items():
        r, d = start.shape
        change = rng.standard_normal((r, 3)) @ rng.standard_normal((3, d))
        change *= moved * np.linalg.norm(start) / np.linalg.norm(change)
        factors[name] = 0.01 * rng.standard_normal((d, r)), start + change
    return lora(factors)


def _start(rng, r, d=D):
    return {f"l.{n}.q": rng.standard_normal((r, d)) / np.sqrt(d) for n in range(2)}


@pytest.mark.parametrize("r", [8, 64])
@pytest.mark.parametrize("moved", [0.35, 1.04, 1.73])
def test_a_start_in_common_is_flagged_however_far_training_moved_from_it(r, moved, lora):
    """A threshold on phi(r, r), which is 0.8 to 0.2 here, would miss it."""
    rng = np.random.default_rng(8)
    A_0 = _start(rng, r)
    found = subspace.compare(*(_run(rng, lora, A_0, moved) for _ in range(2)))
    assert found.sides["a"].start == "common" and found.relation == "common_start"
    assert all("shared_start" in row.flags for row in found)
    assert "A: the starts are common (row alignment z = " in found.headline()
    assert "The common start explains agreement of A" in found.headline()


@pytest.mark.parametrize("r", [8, 64])
def test_other_starts_are_called_different(r, lora):
    rng = np.random.default_rng(9)
    found = subspace.compare(*(_run(rng, lora, _start(rng, r), 1.0) for _ in range(2)))
    assert found.sides["a"].start == "different" and found.relation is None
    assert not any({"shared_start", "start_or_input"} & set(row.flags) for row in found)


def test_the_first_rows_of_a_larger_start_are_a_start_in_common(lora):
    rng = np.random.default_rng(10)
    large = _start(rng, 64)
    small = {name: A[:8] for name, A in large.items()}
    found = subspace.compare(_run(rng, lora, small, 0.5), _run(rng, lora, large, 0.5))
    assert found.sides["a"].start == "common"


def test_at_rank_1_nothing_can_be_permuted_and_that_is_said(lora):
    rng = np.random.default_rng(11)
    A_0 = _start(rng, 1)
    found = subspace.compare(*(_run(rng, lora, A_0, 0.1) for _ in range(2)))
    assert (found.sides["a"].start, found.sides["a"].start_z) == ("cannot_tell", None)
    assert "a common start cannot be tested at r = 1" in found.headline()
    assert all("start_or_input" in row.flags for row in found)
    assert any("cannot be told apart at this rank" in note for note in found.notes)


def test_neighbouring_checkpoints_are_called_one_run(lora):
    rng = np.random.default_rng(12)
    A_0 = _start(rng, 8)
    first = _run(rng, lora, A_0, 0.5)
    second = {
        key: M + 0.05 * np.linalg.norm(M) / np.sqrt(M.size) * rng.standard_normal(M.shape)
        for key, M in first.items()
    }
    found = subspace.compare(first, second)
    assert found.relation == "same_run"
    assert "checkpoints of one run, or one continues the other" in found.headline()
