"""All pairs of a collection are what `compare` says of every pair, however the work is divided."""

import dataclasses

import numpy as np
import pytest
from joblib import parallel_config
from made_collections import Made, random_adapters

import subspace
from subspace.analysis.all_pairs import all_pairs
from subspace.errors import ValueRangeError

MODULES = tuple(f"layers.{layer}.self_attn.{kind}_proj" for layer in (0, 1) for kind in "qvo")
EVERYTHING = {
    "sides": ("a", "b", "left", "right"),
    "leading": [(1, 2), (1, 1)],
    "geodesic": True,
    "precision": "float64",
}


def adapters(n=6):
    """Mixed ranks and scales; the last has fewer modules, and another a zero B and a B of lower rank."""
    found = random_adapters(n, MODULES, ranks=(4, 2, 5), d_out=24, d_in=20)
    rng = np.random.default_rng(5)
    for adapter in found:
        scale = float(rng.uniform(0.5, 2))
        for name, (B, A, _) in adapter.items():
            adapter[name] = B, A, scale if name != MODULES[0] else -scale
    found[1][MODULES[2]][0][:] = 0
    found[2][MODULES[3]][0][:, 1:] = 0
    for name in (MODULES[0], MODULES[4]):
        del found[-1][name]
    return found


def arrays(result, name=""):
    """Every array of a result by its name."""
    if dataclasses.is_dataclass(result):
        for field in dataclasses.fields(result):
            yield from arrays(getattr(result, field.name), f"{name}.{field.name}")
    elif isinstance(result, dict):
        for key, value in result.items():
            yield from arrays(value, f"{name}.{key}")
    elif isinstance(result, np.ndarray):
        yield name, result


def same(one, other, *, tolerance=0.0, chosen=slice(None)):
    first, second = dict(arrays(one)), dict(arrays(other))
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_allclose(values[..., chosen], second[name], rtol=0, atol=tolerance, err_msg=name)


def tensors(adapter):
    named = {}
    for name, (B, A, *_) in adapter.items():
        named |= {f"{name}.lora_A.weight": A, f"{name}.lora_B.weight": B}
    return named


def compared(one, other, controls="none"):
    """`compare` of two members, which has no scales: a negative one of some modules is put into B."""
    signed = [{name: (B * s, A) for name, (B, A, s) in each.items()} for each in (one, other)]
    return subspace.compare(*map(tensors, signed), side="all", scale=1.0, controls=controls)


@pytest.fixture(scope="module")
def made():
    return adapters()


def test_every_module_of_every_pair_is_as_compare_has_it(made):
    found = all_pairs(Made(made), by="module", controls="none", **EVERYTHING)
    assert found.groups == MODULES
    for n, (first, second) in enumerate(zip(found.first, found.second, strict=True)):
        rows = {(row.module, row.side): row for row in compared(made[first], made[second]).modules}
        for (module, side), row in rows.items():
            at = found.group_of[module], n
            mine = found.sides[side]
            assert found.modules[at] == 1
            assert mine.modules[at] == bool(row.phi.size)
            if not row.phi.size:
                assert np.isnan(
                    [mine.phi_full[at], mine.chordal[at], mine.geodesic[at], found.cosine[at]]
                ).all()
                continue
            assert mine.phi_full[at] == pytest.approx(row.phi[-1, -1], abs=1e-12)
            assert mine.chance[at] == pytest.approx(max(row.phi.shape) / row.d)
            assert mine.chordal[at] == pytest.approx(np.linalg.norm(np.sin(row.theta)), abs=1e-7)
            assert mine.geodesic[at] == pytest.approx(np.linalg.norm(row.theta), abs=1e-7)
            for (i, j), phi in mine.phi.items():
                enough = row.phi.shape[0] >= i and row.phi.shape[1] >= j
                expected = row.phi[i - 1, j - 1] if enough else np.nan
                assert phi[at] == pytest.approx(expected, abs=1e-12, nan_ok=True)
        for module in {module for module, _ in rows}:
            row, at = rows[module, "a"], (found.group_of[module], n)
            if row.cosine is not None:
                assert found.cosine[at] == pytest.approx(row.cosine, abs=1e-12)
                assert found.cosine_isotropic_sd[at] == pytest.approx(row.cosine_isotropic_sd)


def test_the_whole_is_as_compare_has_it(made):
    found = all_pairs(Made(made), controls="none", **EVERYTHING)
    for n, (first, second) in enumerate(zip(found.first, found.second, strict=True)):
        comparison = compared(made[first], made[second])
        assert found.cosine[0, n] == pytest.approx(comparison.whole.cosine, abs=1e-12)
        assert found.cosine_isotropic_sd[0, n] == pytest.approx(comparison.whole.cosine_isotropic_sd)
        assert found.z[0, n] == pytest.approx(comparison.sides["a"].start_z, abs=1e-9)
        assert found.modules[0, n] == len({row.module for row in comparison.modules})
        for side, mine in found.sides.items():
            rows = [row for row in comparison.modules if row.side == side and row.phi.size]
            assert mine.modules[0, n] == len(rows)
            assert mine.phi_full[0, n] == pytest.approx(np.mean([row.phi[-1, -1] for row in rows]), abs=1e-12)
            square = np.mean([np.sum(row.theta**2) for row in rows])
            assert mine.geodesic[0, n] == pytest.approx(np.sqrt(square), abs=1e-7)


def test_a_layer_is_the_mean_of_its_modules(made):
    by_module = all_pairs(Made(made), by="module", **EVERYTHING)
    found = all_pairs(Made([*made[:-1], {**made[-1], "head": made[0][MODULES[0]]}]), by="layer", **EVERYTHING)
    assert found.groups == ("", "0", "1")
    np.testing.assert_allclose(
        found.sides["b"].phi_full[2], np.nanmean(by_module.sides["b"].phi_full[3:], axis=0), atol=1e-12
    )
    np.testing.assert_array_equal(found.modules[1], by_module.modules[:3].sum(axis=0))
    assert not found.modules[0].any()  # one member alone has the head
    assert np.isnan(found.cosine[0]).all()


@pytest.mark.parametrize("controls", ["same-input", "layers", "all"])
def test_the_controls_are_those_of_compare(made, controls):
    members = [made[n] for n in (0, 2, 3, 4)]  # with all modules, and none of them zero
    found = all_pairs(Made(members), by="module", controls=controls, **EVERYTHING)
    for n, (first, second) in enumerate(zip(found.first, found.second, strict=True)):
        for row in compared(members[first], members[second], controls).modules:
            at = found.group_of[row.module], n
            expected = np.nan if row.phi_full_control is None or not row.phi.size else row.phi_full_control
            mine = found.sides[row.side].phi_control[at]
            if row.phi.size and min(
                k.size for k in (members[first][row.module][0], members[second][row.module][0])
            ):
                assert mine == pytest.approx(expected, abs=1e-6, nan_ok=True), (row.module, row.side)


def test_a_module_without_a_module_of_the_same_input_in_some_member_has_the_neighbouring_layer(made):
    found = all_pairs(Made(made), by="module")
    kinds = {module: found.control_kinds[module] for module in MODULES}
    assert set(kinds.values()) == {"same_input", "layers"}
    # the last member has no q in layer 0 and no v in layer 1, and so no q without a v but a v and a q alone
    assert kinds[MODULES[0]] == kinds[MODULES[4]] == "same_input"
    assert kinds[MODULES[1]] == kinds[MODULES[3]] == kinds[MODULES[2]] == "layers"


def test_pairs_with_a_new_member_are_those_rows_of_all_and_cost_one_reading(made):
    whole = all_pairs(Made(made), **EVERYTHING)
    collection = Made(made)
    part = all_pairs(collection, new=[2], **EVERYTHING)
    assert len(part) == len(made) - 1
    same(whole, part, tolerance=1e-7, chosen=(whole.first == 2) | (whole.second == 2))
    asked = [n for _, numbers in collection.asked for n in numbers]
    assert len(asked) <= len(MODULES) * (len(made) + 2)
    several = all_pairs(Made(made), new=[4, 0], panel=2, **EVERYTHING)
    same(whole, several, tolerance=1e-7, chosen=np.isin(whole.first, [0, 4]) | np.isin(whole.second, [0, 4]))


@pytest.mark.parametrize("panel", [1, 2, 5])
def test_panels_are_the_whole_in_parts(made, panel):
    same(
        all_pairs(Made(made), **EVERYTHING), all_pairs(Made(made), panel=panel, **EVERYTHING), tolerance=1e-7
    )


def test_float32_is_float64_to_six_digits(made):
    single = {**EVERYTHING, "precision": "float32", "geodesic": False}
    one, other = all_pairs(Made(made), **single), all_pairs(Made(made), **{**single, "precision": "float64"})
    for side in EVERYTHING["sides"]:
        np.testing.assert_allclose(one.sides[side].phi_full, other.sides[side].phi_full, atol=1e-6)
        np.testing.assert_allclose(one.sides[side].phi_control, other.sides[side].phi_control, atol=1e-6)
    np.testing.assert_allclose(one.cosine, other.cosine, atol=2e-6)
    np.testing.assert_allclose(one.z, other.z, atol=1e-4)


def test_an_a_that_modules_of_one_input_share_counts_once(made):
    q, v = MODULES[:2]
    shared = [{q: (B, A, s), v: (np.roll(B, 1, axis=0), A, s)} for B, A, s in (each[q] for each in made[:4])]
    alone = [{q: each[q]} for each in shared]
    one, other = all_pairs(Made(shared), controls="none"), all_pairs(Made(alone), controls="none")
    np.testing.assert_allclose(one.z, other.z, atol=1e-4)
    np.testing.assert_array_equal(one.z_r, other.z_r)
    shared[0][v] = (
        shared[0][v][0],
        np.roll(shared[0][v][1], 1, axis=0),
        1.0,
    )  # one of the two has an A of its own
    apart = all_pairs(Made(shared), controls="none")
    first = apart.first == 0
    assert (apart.z_r[0] == np.where(first, 2, 1) * other.z_r[0]).all()
    modules = all_pairs(Made(shared), controls="none", by="module")
    assert not np.isnan(modules.z).any()


def test_a_scale_that_is_known_nowhere_counts_as_one_and_in_part_as_unknown(made):
    def scaled(values):
        first = {m: (*made[0][m][:2], s) for m, s in zip(MODULES[3:5], values, strict=True)}
        return all_pairs(Made([first, {m: made[3][m] for m in MODULES[3:5]}]), controls="none").cosine[0, 0]

    assert scaled([np.nan, np.nan]) == pytest.approx(scaled([3.0, 3.0]), abs=1e-12)
    assert np.isnan(scaled([1.0, np.nan]))
    assert abs(scaled([1.0, -9.0]) - scaled([1.0, 9.0])) > 1e-3


def test_as_matrices(made):
    found = all_pairs(Made(made), **EVERYTHING)
    matrix = found.square(found.cosine, diagonal=1.0)
    assert matrix.shape == (1, 6, 6)
    np.testing.assert_array_equal(matrix, matrix.swapaxes(1, 2))
    assert matrix[0, 1, 3] == found.cosine[0, (found.first == 1) & (found.second == 3)]
    part = all_pairs(Made(made), new=[0], **EVERYTHING)
    assert np.isnan(part.square(part.cosine[0])[1:, 1:]).all()


def test_what_is_asked_wrongly_is_one_line(made):
    collection = Made(made)
    for wrong, message in (
        ({"by": "row"}, "Cannot reduce by 'row': `by` is one of total, layer, module"),
        ({"sides": ["c"]}, "Unknown side 'c': `sides` are some of a, b, left, right"),
        ({"sides": []}, "No side to compare"),
        ({"controls": "some"}, "Unknown controls 'some'"),
        ({"leading": [(0, 1)]}, "No leading directions: i=0, j=1"),
        ({"new": [6]}, "No such member: 6 of 6"),
        ({"jobs": 0}, "Too few processes: 0; give `jobs` of at least 1"),
        ({"panel": 0}, "Too few members in a panel: 0"),
        ({"precision": "half"}, "Unknown precision 'half'"),
    ):
        with pytest.raises(ValueRangeError, match=message):
            all_pairs(collection, **wrong)


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_members_are_no_pairs(made, n):
    found = all_pairs(Made(made[:n]))
    assert len(found) == 0
    assert found.sides["a"].phi_full.shape == (1, 0)


def test_threads_and_the_order_that_tasks_end_in_change_no_bit(made):
    with parallel_config("threading"):
        same(all_pairs(Made(made), panel=2), all_pairs(Made(made), panel=2, jobs=3))


@pytest.mark.slow
def test_one_two_and_four_processes_find_the_same_bits(made):
    one = all_pairs(Made(made), panel=3, **EVERYTHING)
    for jobs in (2, 4):
        same(one, all_pairs(Made(made), panel=3, jobs=jobs, **EVERYTHING))
