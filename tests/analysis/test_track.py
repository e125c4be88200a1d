"""`track` against `compare`, `intruders` and dense products of the same checkpoints; births that were planted."""

from __future__ import annotations

import numpy as np
import pytest
import step_runs
from step_runs import MODULES, run, write_peft, write_run

import subspace

STEPS = (0, 100, 200, 300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "one", run(0), STEPS)


@pytest.fixture(scope="module")
def found(folder):
    return subspace.track(str(folder), directions=2)


def _path(folder, step):
    return str(folder / f"checkpoint-{step}")


def _trajectory(found, module, side, init="kept", number=0):
    return next(
        each
        for each in found.runs[number].modules
        if (each.module, each.side, each.init) == (module, side, init)
    )


@pytest.mark.parametrize("side", ["a", "b", "left", "right"])
def test_phi_is_that_of_compare_of_the_same_pairs(side, found, folder):
    for n, step in enumerate(STEPS[:-1]):
        if step == 0 and side != "a":
            continue
        for other, name in ((STEPS[-1], "to_final"), (STEPS[n + 1], "to_next")):
            if step == 0:
                continue  # untrained: compare gives no score
            pair = subspace.compare(_path(folder, step), _path(folder, other), side=side)
            for row in pair.modules:
                value = getattr(_trajectory(found, row.module, side), name)[n]
                assert value == pytest.approx(row.phi[1, 1], abs=1e-9)


def test_whole_spans_are_compared_on_a_and_b_without_a_number_of_directions(folder):
    whole = subspace.track(str(folder), side=("a", "b"), controls="none")
    for side in "ab":
        pair = subspace.compare(_path(folder, 100), _path(folder, 300), side=side)
        for row in pair.modules:
            own = _trajectory(whole, row.module, side)
            assert own.to_final[1] == pytest.approx(row.phi_full, abs=1e-9)
            assert own.to_final_isotropic[1] == pytest.approx(row.chance_full)
            assert own.directions == step_runs.R


def test_the_start_removed_is_that_of_compare(folder):
    whole = subspace.track(str(folder), side="a", controls="none")
    start = _path(folder, 0)
    pair = subspace.compare(_path(folder, 100), _path(folder, 300), side="a", init=(start, start))
    for row in pair.modules:
        own = _trajectory(whole, row.module, "a", row.init)
        assert own.to_final[1] == pytest.approx(row.phi_full, abs=1e-9)
    assert {each.init for each in whole.runs[0].modules} == {"kept", "removed"}


def test_cosines_norms_and_ways_are_those_of_dense_updates(found):
    states = run(0)
    for module in MODULES:
        deltas = [2.0 * state[f"{module}.B"] @ state[f"{module}.A"] for state in states]
        own = _trajectory(found, module, "left")
        assert own.norm == pytest.approx([np.linalg.norm(delta) for delta in deltas], rel=1e-5)
        cosines = [
            np.vdot(d, deltas[-1]) / np.linalg.norm(d) / np.linalg.norm(deltas[-1]) for d in deltas[1:]
        ]
        assert own.cosine[0] is None and own.cosine[1:] == pytest.approx(cosines, rel=1e-5)
        A = [state[f"{module}.A"] for state in states]
        moved = [np.linalg.norm(a - A[0]) / np.linalg.norm(A[0]) for a in A]
        assert _trajectory(found, module, "a").moved == pytest.approx(moved, abs=1e-5)
        assert _trajectory(found, module, "b").moved == (None,) * 4  # B begins at zero
    whole = [np.concatenate([(s[f"{m}.B"] @ s[f"{m}.A"]).ravel() for m in MODULES]) for s in states]
    total = found.runs[0].side("left")
    for n in (1, 2):
        expected = whole[n] @ whole[-1] / np.linalg.norm(whole[n]) / np.linalg.norm(whole[-1])
        assert total.cosine[n] == pytest.approx(expected, rel=1e-5)


def test_the_total_is_the_mean_over_modules(found):
    for total in found.runs[0].total:
        own = [e for e in found.runs[0].modules if (e.side, e.init) == (total.side, total.init)]
        for name in ("to_final", "to_next", "from_start", "to_final_isotropic", "to_final_control"):
            for n in range(4):
                values = [getattr(e, name)[n] for e in own if getattr(e, name)[n] is not None]
                expected = None if not values else pytest.approx(np.mean(values))
                assert getattr(total, name)[n] == expected
        assert total.directions == sum(e.directions for e in own)
        assert total.born == tuple(sum(e.born[n] for e in own) for n in range(4))


def _frame(M, k):
    return np.linalg.svd(M, full_matrices=False)[2][:k]


def test_controls_are_means_over_modules_of_another_job(found):
    states = run(0)
    q, v = MODULES[2], MODULES[3]
    # the same input: q against v of one layer, in both directions
    A = [[_frame(state[f"{m}.A"], 2) for state in states] for m in (q, v)]
    phi = [np.sum((A[0][1] @ A[1][3].T) ** 2) / 2, np.sum((A[1][1] @ A[0][3].T) ** 2) / 2]
    for module in (q, v):
        own = _trajectory(found, module, "a")
        assert own.control == "same_input" and own.to_final_control[1] == pytest.approx(
            np.mean(phi), abs=1e-5
        )
    # the layers before and after, where no other module writes the same output
    B = [[_frame(state[f"{m}.B"].T, 2) for state in states] for m in (MODULES[0], q, MODULES[4])]
    phi = [np.sum((B[i][1] @ B[j][3].T) ** 2) / 2 for i, j in ((0, 1), (1, 0), (1, 2), (2, 1))]
    own = _trajectory(found, q, "b")
    assert own.control == "layers" and own.to_final_control[1] == pytest.approx(np.mean(phi), abs=1e-5)
    none = subspace.track({1: _state(states[1]), 2: _state(states[3])}, controls="none")
    assert all(each.control is None for each in none.runs[0].modules)


def _state(state):
    return {f"{key[:-2]}.lora_{key[-1]}": value for key, value in state.items()}


def test_births_and_strengths_are_where_they_were_planted():
    rng = np.random.default_rng(5)
    U, V = (np.linalg.qr(rng.standard_normal((60, 3)))[0] for _ in range(2))
    noise = [np.linalg.qr(rng.standard_normal((60, 3)))[0] for _ in range(4)]
    # the k-th direction has no part of delta_W, then a tenth, then all of it
    parts = [(1, 0, 0), (1, 0.1, 0), (1, 1, 0.1), (1, 1, 1)]
    sigma = np.array([3.0, 2.0, 1.0])
    steps = {}
    for n, part in enumerate(parts):
        there = np.array(part) > 0
        left = np.where(there, U, noise[n])
        weights = np.where(there, np.array(part) * sigma, 0.01)
        steps[n] = {"q.lora_A": (V * weights).T, "q.lora_B": left}
    found = subspace.track(steps, side="left", directions=3)
    births = found.runs[0].modules[0].births
    assert [birth.born for birth in births] == [0, 1, 2]
    assert [birth.half for birth in births] == [0, 2, 3]
    assert [birth.energy for birth in births] == pytest.approx(sigma**2 / np.sum(sigma**2))
    assert found.runs[0].modules[0].born == (1, 2, 3, 3)


def test_left_and_right_are_of_the_directions_with_most_of_the_energy():
    A, B = np.eye(3, 20), np.eye(18, 3) * [10.0, 5.0, 0.1]
    found = subspace.track({1: {"A": A, "B": B}, 2: {"A": A, "B": B}})
    assert {each.side: each.directions for each in found.runs[0].modules} == {
        "a": 3, "b": 3, "left": 2, "right": 2,
    }  # fmt: skip


@pytest.mark.parametrize("transposed", [False, True])
def test_intruders_are_those_of_the_question_of_that_name(folder, transposed):
    rng = np.random.default_rng(7)
    base = {f"{module}.weight": 0.2 * rng.standard_normal((32, 40)) for module in MODULES[:-1]}
    if transposed:
        base = {key: W.T.copy() for key, W in base.items()}
    found = subspace.track(str(folder), base=base, side="b", k=5, epsilon=0.7, controls="none")
    assert found.epsilon == 0.7 and found.k == 5
    for n, step in enumerate(STEPS[1:], 1):
        rows = subspace.intruders(base, _path(folder, step), k=5, epsilon=0.7, up_to=0).modules
        assert sum(row.intruders for row in rows) > 0
        for row in rows:
            assert _trajectory(found, row.module, "b").intruders[n] == row.intruders
        assert found.runs[0].total[0].intruders[n] == sum(row.intruders for row in rows)
    assert _trajectory(found, MODULES[0], "b").intruders[0] == 0
    assert _trajectory(found, MODULES[-1], "b").intruders == ()  # not in the base


def test_delta_w_is_followed_whatever_its_factors_are():
    G = np.random.default_rng(9).standard_normal((4, 4)) + 3 * np.eye(4)
    states = [_state(state) for state in run(0)[1:]]
    turned = [
        {key: G @ value if key.endswith("A") else value @ np.linalg.inv(G) for key, value in state.items()}
        for state in states
    ]
    one, other = (
        subspace.track(dict(enumerate(each)), side=("left", "right"), controls="none").runs[0].modules
        for each in (states, turned)
    )
    assert len(one) == len(other) == 2 * len(MODULES)
    for each, twin in zip(one, other, strict=True):
        assert twin.to_final == pytest.approx(each.to_final, abs=1e-8)
        assert [birth.born for birth in twin.births] == [birth.born for birth in each.births]


def test_a_module_that_is_not_finite_is_flagged_and_the_others_stay(tmp_path):
    states = run(0)[1:]
    states[1][f"{MODULES[0]}.A"][0, 0] = np.nan
    found = subspace.track(str(write_run(tmp_path / "run", states, (1, 2, 3))))
    odd, good = _trajectory(found, MODULES[0], "a"), _trajectory(found, MODULES[1], "a")
    assert odd.to_final[1] is None and odd.flags == (subspace.Flag.NOT_FINITE,)
    assert good.to_final[1] is not None and not good.flags
    assert any("checkpoint-2" in note and "not all finite" in note for note in found.notes)


def test_a_start_that_is_given_is_removed(tmp_path):
    states = run(0)
    folder = write_run(tmp_path / "run", states[1:], STEPS[1:])
    start = write_peft(tmp_path / "start", states[0])
    found = subspace.track(str(folder), init=str(start), side="a", controls="none")
    assert found.runs[0].start == "given" and len(found.runs[0].steps) == 3
    pair = subspace.compare(_path(folder, 100), _path(folder, 300), side="a", init=(str(start), str(start)))
    for row in pair.modules:
        assert _trajectory(found, row.module, "a", row.init).to_final[0] == pytest.approx(row.phi_full)
    other = write_peft(tmp_path / "other", run(1, r=2)[0], r=2)
    told = subspace.track(str(folder), init=str(other), side="a", controls="none")
    assert told.runs[0].start == "first_checkpoint"
    assert any("modules and ranks of no run" in note for note in told.notes)


def test_full_updates_are_followed_too():
    rng = np.random.default_rng(11)
    U, V = (np.linalg.qr(rng.standard_normal((30, 3)))[0] for _ in range(2))
    end = (U * [5.0, 3.0, 2.0]) @ V.T
    steps = {n: {"q.delta": share * end} for n, share in ((1, 0.5), (2, 1.0))}
    found = subspace.track(steps, side="left")
    assert found.runs[0].modules[0].cosine[0] == pytest.approx(1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"side": "c"}, "Unknown side 'c': `side` is one of a, b, left, right or all"),
        ({"directions": 0}, "0 directions are too few"),
        ({"by": "layer"}, "Unknown rows 'layer'"),
        ({"controls": "some"}, "Unknown controls 'some'"),
        ({"epsilon": 0.0}, "Invalid threshold 0.0"),
        ({"k": 0}, "k = 0 is too small"),
    ],
)
def test_options_out_of_range_say_what_must_hold(options, message, folder):
    with pytest.raises(subspace.SubspaceError, match=message):
        subspace.track(str(folder), **options)


def test_nothing_trained_is_inconclusive(tmp_path):
    write_run(tmp_path / "run", run(0, (0.0, 0.0)), (0, 10))
    with pytest.raises(subspace.InconclusiveError, match="No checkpoint has a direction to follow"):
        subspace.track(str(tmp_path / "run"))
