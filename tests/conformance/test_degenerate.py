"""Where there is no number none is given, and the flag says why."""

from __future__ import annotations

import numpy as np
import oracles
import pytest

import subspace

SIDES = ("a", "b", "left", "right")


def _adapter(rng, lora, modules=("l.0.q", "l.1.q", "l.2.q"), r=4, d=48):
    return lora({m: (rng.standard_normal((d, r)), rng.standard_normal((r, d))) for m in modules})


def test_beyond_the_numerical_rank_there_is_no_number(rng, lora):
    A = rng.standard_normal((8, 5)) @ rng.standard_normal((5, 60))
    A2 = rng.standard_normal((6, 60))
    result = subspace.compare(
        lora(q=(rng.standard_normal((50, 8)), A)), lora(q=(rng.standard_normal((50, 6)), A2)), side="all"
    )
    for row in result.modules:
        if row.side == "b":
            assert (row.rank_first, row.phi.shape) == (8, (8, 6))
            continue
        assert (row.r_first, row.rank_first, row.phi.shape) == (8, 5, (5, 6))
        assert "rank_below_r_first" in row.flags
        assert row.theta.shape == (5,)
    np.testing.assert_allclose(result.modules[0].phi, oracles.phi(A, A2), rtol=0, atol=1e-10)


def test_columns_of_b_that_cancel_leave_no_direction_in_delta_w(rng, lora):
    b, a = rng.standard_normal((40, 1)), rng.standard_normal((1, 40))
    cancels = lora(q=(np.hstack([b, b]), np.vstack([a, -a])))
    with pytest.raises(
        subspace.InconclusiveError, match="no direction of the first adapter stands above the rounding"
    ):
        subspace.compare(cancels, _adapter(rng, lora, ["q"], d=40), side="right")


def test_a_rank_above_the_dimension_is_cut_to_it_and_tests_nothing(rng, lora):
    wide = lora(q=(rng.standard_normal((20, 10)), rng.standard_normal((10, 6))))
    other = lora(q=(rng.standard_normal((20, 2)), rng.standard_normal((2, 6))))
    (row,) = subspace.compare(wide, other).modules
    assert (row.rank_first, row.phi.shape) == (6, (6, 2))
    assert {"whole_space", "rank_below_r_first"} <= set(row.flags)
    assert row.phi_full == pytest.approx(1)
    assert row.shared_dim is None and np.isnan(row.shared_p).all() and np.isnan(row.z_full)
    record = row.record()
    assert record["shared_dim"] is None and record["z_full"] is None


def test_the_headline_says_that_a_whole_space_is_not_tested(rng, lora):
    wide = lora(q=(rng.standard_normal((20, 10)), rng.standard_normal((10, 6))))
    assert (
        "; nothing can be tested, since one of the spans is the whole space."
        in subspace.compare(wide, wide).headline()
    )


def test_spans_that_must_overlap_share_only_what_is_beyond_that(rng, lora):
    d, X = 64, rng.standard_normal((14, 64))
    one, other = (lora(q=(np.eye(d, n), np.vstack([X, rng.standard_normal((n - 14, d))]))) for n in (40, 30))
    (row,) = subspace.compare(one, other).modules
    assert "forced_overlap" in row.flags and row.forced == 6
    np.testing.assert_array_equal(row.shared_p[:6], 1)
    assert row.shared_dim == 14 - 6
    unrelated = [lora(q=(np.eye(d, n), rng.standard_normal((n, d)))) for n in (40, 30)]
    assert subspace.compare(*unrelated).modules[0].shared_dim == 0


def test_two_untrained_adapters_agree_in_nothing(rng, lora):
    """A trap that was measured: QR of zeros has identity columns, so that two zero B agree perfectly."""
    A = rng.standard_normal((4, 48))
    zero = lora(q=(np.zeros((48, 4)), A))
    with pytest.raises(subspace.InconclusiveError, match=r"exactly zero .untrained.") as told:
        subspace.compare(zero, zero, side="all")
    assert told.value.exit_code == 3


def test_one_untrained_module_of_many_is_flagged_and_the_others_scored(rng, lora):
    one, other = _adapter(rng, lora), _adapter(rng, lora)
    one["l.1.q.lora_B.weight"] = np.zeros((48, 4))
    result = subspace.compare(one, other, side="all")
    for row in result.modules:
        if row.module == "l.1.q":
            assert row.flags == ("untrained_first",) and not row.phi.size
            record = row.record()
            assert [record[k] for k in ("phi_11", "phi_full", "chance_full", "z_full", "shared_dim")] == [
                None
            ] * 5
        else:
            assert row.phi.shape == (4, 4) and row.shared_dim is not None
    assert any("untrained" in note for note in result.notes)


def test_an_adapter_whose_a_is_zero_is_untrained_too(rng, lora):
    zero = lora(q=(rng.standard_normal((48, 4)), np.zeros((4, 48))))
    with pytest.raises(subspace.InconclusiveError, match="untrained"):
        subspace.compare(zero, _adapter(rng, lora, ["q"]))


def test_modules_in_one_file_only_are_listed(rng, lora):
    one, other = _adapter(rng, lora, ["l.0.q", "l.1.q", "l.0.v"]), _adapter(rng, lora, ["l.0.q", "l.9.q"])
    result = subspace.compare(one, other)
    assert [row.module for row in result.modules] == ["l.0.q"]
    assert set(result.only_first) == {"l.1.q", "l.0.v"} and result.only_second == ("l.9.q",)
    assert any("2 modules only in the first" in note for note in result.notes)


def test_nothing_in_common_is_inconclusive(rng, lora):
    with pytest.raises(
        subspace.InconclusiveError,
        match=r"No module in common between .*: the first has l.0.q, the second has l.7.q",
    ):
        subspace.compare(_adapter(rng, lora, ["l.0.q", "l.1.q"]), _adapter(rng, lora, ["l.7.q", "l.8.q"]))


def test_another_shape_is_flagged_and_not_compared(rng, lora):
    one = _adapter(rng, lora, ["l.0.q"]) | _adapter(rng, lora, ["l.1.q"], d=32)
    result = subspace.compare(one, _adapter(rng, lora, ["l.0.q", "l.1.q"]))
    assert [row.flags for row in result.modules] == [(), ("shape_differs",)]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("factor", "side"), [("A", "a"), ("A", "right"), ("B", "b"), ("B", "left")])
def test_a_number_that_is_not_finite_is_a_flag_and_a_note_with_module_and_file(
    value, factor, side, rng, lora, on_disk
):
    good, bad = _adapter(rng, lora), _adapter(rng, lora)
    bad[f"l.1.q.lora_{factor}.weight"][2, 3] = value
    files = on_disk(good, "good.safetensors"), on_disk(bad, "bad.safetensors")
    for pair in (files, files[::-1]):
        result = subspace.compare(*pair, side=side)
        assert [row.flags == ("not_finite",) for row in result.modules] == [False, True, False]
        (note,) = [note for note in result.notes if "not all finite (NaN or Inf)" in note]
        assert "l.1.q" in note and "bad.safetensors" in note and "good.safetensors" not in note


def test_inspect_describes_the_rest_of_a_damaged_adapter(rng, lora):
    bad = _adapter(rng, lora)
    bad["l.1.q.lora_A.weight"][0, 0] = np.nan
    found = subspace.inspect(bad, scale=1.0)
    flags = {row.module: row.flags for row in found.modules}
    assert flags == {"l.0.q": (), "l.1.q": ("not_finite",), "l.2.q": ()}
    assert found.modules[1].norm_delta_W is None and found.modules[1].rank is None
    assert found.modules[0].rank == 4
    assert found.totals()["norm_delta_W"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"side": ()}, "No side to compare: `side` is one of a, b, left, right or all"),
        ({"directions": 0}, "0 directions are too few"),
        ({"level": 0}, "Level 0 is not between 0 and 1"),
        ({"init": ({},)}, "1 starts for two adapters"),
    ],
)
def test_options_out_of_range_say_what_must_hold(options, message, rng, lora):
    adapter = _adapter(rng, lora, ["q"])
    with pytest.raises(subspace.SubspaceError, match=message):
        subspace.compare(adapter, adapter, **options)


def test_a_side_named_twice_is_one_row(rng, lora):
    adapter = _adapter(rng, lora, ["q"])
    assert [row.side for row in subspace.compare(adapter, adapter, side=("b", "a", "b")).modules] == [
        "b",
        "a",
    ]


def test_a_near_tie_is_flagged_at_its_i(rng, lora):
    A = (np.diag([5.0, 3.0, 3.0, 1.0]) @ oracles.haar(48, 4, rng).T).astype(np.float32)
    tied = lora(q=(oracles.haar(48, 4, rng), A))
    (row,) = subspace.compare(tied, _adapter(rng, lora, ["q"])).modules
    assert row.ties_first == (2,) and row.ties_second == ()
    assert "near_tie_first" in row.flags and "near_tie_second" not in row.flags


def test_a_gap_that_the_stored_type_resolves_is_no_tie(rng, lora):
    A = np.diag([3.0, 2.0003, 2.0]) @ oracles.haar(48, 3, rng).T
    other = _adapter(rng, lora, ["q"])
    for dtype, ties in (("float64", ()), ("float32", ()), ("float16", (2,))):
        (row,) = subspace.compare(lora(q=(np.eye(48, 3), A.astype(dtype))), other).modules
        assert row.ties_first == ties, dtype


@pytest.mark.parametrize("factor", [1e-150, 1e-30, 1e30, 1e150])
@pytest.mark.parametrize("side", SIDES)
def test_the_size_of_the_numbers_does_not_matter(factor, side, rng, lora):
    B, A = rng.standard_normal((48, 4)), rng.standard_normal((4, 48))
    other = _adapter(rng, lora, ["q"])
    (row,) = subspace.compare(lora(q=(B, A)), other, side=side).modules
    (again,) = subspace.compare(lora(q=(factor * B, factor * A)), other, side=side).modules
    np.testing.assert_allclose(row.phi, again.phi, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_healthy_file_has_no_near_ties(dtype, rng, lora):
    """Of 16 bits too: its rounding turns directions by hundredths of a radian at most."""
    one, other = ({key: M.astype(dtype) for key, M in _adapter(rng, lora, d=384).items()} for _ in range(2))
    for row in subspace.compare(one, other, side="all").modules:
        assert row.ties_first == row.ties_second == (), row.side


@pytest.mark.parametrize(("dtype", "tied"), [("float16", True), ("float32", False)])
def test_the_rounding_of_a_start_stays_when_it_is_removed(dtype, tied, rng, lora):
    """What is left of A is small, and its rounding is still that of the stored numbers."""
    B, start = rng.standard_normal((48, 3)), rng.standard_normal((3, 48)).astype(dtype)
    change = np.diag([3e-3, 2.5e-3, 2e-3]) @ oracles.haar(48, 3, rng).T
    trained = lora(q=(B, (start + change).astype(dtype)))
    begun = lora(q=(np.zeros((48, 3)), start))
    kept, removed = subspace.compare(trained, trained, init=(begun, begun)).modules
    assert (kept.init, removed.init, kept.ties_first) == ("kept", "removed", ())
    assert bool(removed.ties_first) == tied


def test_small_numbers_of_float16_are_spaced_evenly(rng, lora):
    """Below 6e-5 the rounding does not shrink with the numbers, and near ties become more."""
    A = np.diag([3.0, 2.98, 1.0]) @ oracles.haar(48, 3, rng).T
    for size, ties in ((1.0, ()), (3e-6, (1,))):
        small = lora(q=(np.eye(48, 3), (size * A).astype(np.float16)))
        (row,) = subspace.compare(small, _adapter(rng, lora, ["q"])).modules
        assert row.ties_first == ties, size
