"""The forecast of a merge: totals and pairs against dense matrices, controls, scales that are unknown, refusals."""

import itertools

import numpy as np
import pytest

from subspace.adapters import load_adapter
from subspace.analysis.forecast import forecast
from subspace.analysis.held_adapters import HeldAdapters
from subspace.errors import InconclusiveError, ValueRangeError
from subspace.flags import Flag

D = 24
MODULES = [f"model.layers.{n}.self_attn.{kind}_proj" for n in range(3) for kind in "qkv"]
SCALES = (2.0, 0.5, 1.0)


def factors(seed, r, modules=MODULES):
    rng = np.random.default_rng(seed)
    common = np.random.default_rng(99)
    found = {}
    for module in modules:
        u, v = common.standard_normal((D, 1)), common.standard_normal((1, D))
        found[module] = rng.standard_normal((D, r)) + u, rng.standard_normal((r, D)) + 0.5 * v
    return found


def adapter(layers, scale):
    tensors = {}
    for module, (B, A) in layers.items():
        tensors |= {f"{module}.lora_A.weight": A, f"{module}.lora_B.weight": B}
    return load_adapter(tensors, scale=scale)


LAYERS = [factors(0, 2), factors(1, 3), factors(2, 2, MODULES[:6])]


@pytest.fixture(scope="module")
def held():
    return HeldAdapters(
        {name: adapter(layers, scale) for name, layers, scale in zip("abc", LAYERS, SCALES, strict=True)}
    )


WEIGHTS = (1.0, -1.0, 0.5)


def dense(n, module, weights=WEIGHTS):
    B, A = LAYERS[n].get(module, (np.zeros((D, 1)), np.zeros((1, D))))
    return weights[n] * SCALES[n] * B @ A


def test_the_total_is_that_of_dense_matrices_of_all_modules(held):
    found = forecast(held, WEIGHTS)
    whole = [np.concatenate([dense(n, module).ravel() for module in MODULES]) for n in range(3)]
    norms = [np.linalg.norm(each) for each in whole]
    ratio = np.linalg.norm(sum(whole)) ** 2 / sum(norm**2 for norm in norms)
    assert found.total.energy_ratio == pytest.approx(ratio)
    assert found.total.norm_ratio == pytest.approx(max(norms) / min(norms))
    cosines = {}
    for pair in found.pairs:
        i, j = pair.first, pair.second
        cosines[i, j] = whole[i] @ whole[j] / norms[i] / norms[j]
        assert pair.cosine == pytest.approx(cosines[i, j])
        assert pair.norm_ratio == pytest.approx(norms[j] / norms[i])
        own = np.linalg.norm(whole[i] + whole[j]) ** 2 / (norms[i] ** 2 + norms[j] ** 2)
        assert pair.energy_ratio == pytest.approx(own)
    assert found.total.cosine == pytest.approx(np.mean(list(cosines.values())))
    assert abs(found.total.cosine_strongest) == pytest.approx(max(map(abs, cosines.values())))
    assert found.total.sti == pytest.approx(sum(row.sti for row in found.modules))
    assert {row.module for row in found.modules} == set(MODULES)


def test_each_module_is_that_of_its_dense_matrices(held):
    found = {row.module: row for row in forecast(held, WEIGHTS).modules}
    for module in MODULES:
        there = [n for n in range(3) if module in LAYERS[n]]
        own = [dense(n, module) for n in there]
        pairs = list(itertools.combinations(own, 2))
        row = found[module]
        assert row.adapters == len(there)
        expected = [np.vdot(X, Y) / np.linalg.norm(X) / np.linalg.norm(Y) for X, Y in pairs]
        assert row.cosine == pytest.approx(np.mean(expected))
        energy = np.linalg.norm(sum(own)) ** 2 / sum(np.linalg.norm(X) ** 2 for X in own)
        assert row.energy_ratio == pytest.approx(energy)
        left = [_phi(X, Y) for X, Y in pairs]
        right = [_phi(X.T, Y.T) for X, Y in pairs]
        assert row.overlap_left == pytest.approx(np.mean(left))
        assert row.overlap_left_most == pytest.approx(max(left))
        assert row.overlap_right == pytest.approx(np.mean(right))
        assert row.overlap == pytest.approx((np.mean(left) + np.mean(right)) / 2)


def _phi(X, Y):
    frames = []
    for M in (X, Y):
        U, S, _ = np.linalg.svd(M)
        frames.append(U[:, : int(np.sum(1e-9 * S[0] < S))])
    return np.linalg.norm(frames[0].T @ frames[1]) ** 2 / min(frame.shape[1] for frame in frames)


def test_controls_are_of_modules_that_read_the_same_input_and_of_other_layers(held):
    two = forecast(held, members=(0, 1))
    row = {row.module: row for row in two.modules}[MODULES[0]]
    assert (row.control_left, row.control_right) == ("layers", "same_input")
    q, k, v = MODULES[:3]
    right = [_phi(dense(i, q).T, dense(j, other).T) for other in (k, v) for i, j in ((0, 1), (1, 0))]
    assert row.overlap_right_control == pytest.approx(np.mean(right))
    next_q = MODULES[3]
    left = [_phi(dense(i, q), dense(j, next_q)) for i, j in ((0, 1), (1, 0))]
    assert row.overlap_left_control == pytest.approx(np.mean(left))
    assert row.overlap_right_chance == pytest.approx(3 / D)


def test_modules_that_read_nothing_in_common_are_held_against_other_layers():
    modules = [f"layers.{n}.o_proj" for n in range(3)]
    held = HeldAdapters({str(n): adapter(factors(n, 2, modules), 1.0) for n in range(2)})
    found = forecast(held)
    assert {row.control_right for row in found.modules} == {"layers"} == {found.total.control_right}
    lone = HeldAdapters({str(n): adapter(factors(n, 2, modules[:1]), 1.0) for n in range(2)})
    (row,) = forecast(lone).modules
    assert row.overlap_left_control is None and row.control_left is None and row.overlap_left is not None


def test_planted_agreement_stands_above_its_levels_and_unrelated_updates_do_not():
    unrelated = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        unrelated.append({m: (rng.standard_normal((D, 2)), rng.standard_normal((2, D))) for m in MODULES})
    found = forecast(HeldAdapters({str(n): adapter(each, 1.0) for n, each in enumerate(unrelated)})).total
    assert abs(found.cosine) < 4 * found.cosine_sd
    assert abs(found.energy_ratio - 1) < 4 * found.energy_ratio_sd
    assert abs(found.sti - found.sti_random) < 5 * found.sti_random_sd
    planted = forecast(HeldAdapters({str(n): adapter(LAYERS[n], 1.0) for n in range(2)})).total
    assert planted.cosine > 5 * planted.cosine_sd
    assert planted.overlap_left > planted.overlap_left_control > 0
    assert planted.sti > planted.sti_random + 5 * planted.sti_random_sd


def test_a_module_of_one_adapter_and_an_untrained_one_say_so():
    layers = [dict(LAYERS[0]), dict(LAYERS[1])]
    layers[0][MODULES[0]] = np.zeros((D, 2)), LAYERS[0][MODULES[0]][1]
    del layers[1][MODULES[1]]
    held = HeldAdapters({str(n): adapter(each, 1.0) for n, each in enumerate(layers)})
    found = {row.module: row for row in forecast(held).modules}
    assert found[MODULES[0]].flags == (Flag.UNTRAINED,) and found[MODULES[0]].cosine is None
    assert found[MODULES[0]].overlap_left is None and found[MODULES[0]].energy_ratio == 1.0
    assert found[MODULES[1]].flags == (Flag.ONE_ADAPTER,) and found[MODULES[1]].energy_ratio is None
    assert found[MODULES[2]].flags == ()


def test_outputs_are_those_that_compare_measures_on_the_same_inputs(held):
    import torch

    from subspace.analysis.compare import compare
    from subspace.analysis.inputs import inputs

    layer = torch.nn.Module()
    layer.q_proj, layer.k_proj = torch.nn.Linear(D, D), torch.nn.Linear(D, D)
    layer.forward = lambda x: layer.q_proj(x) + layer.k_proj(x * torch.arange(D))
    read = inputs(layer, [torch.randn(60, D, generator=torch.Generator().manual_seed(0)) + 1])
    names = {MODULES[0]: "q_proj", MODULES[1]: "k_proj"}
    pair = [adapter({names[m]: LAYERS[n][m] for m in names}, SCALES[n]) for n in (0, 1)]
    found = forecast(HeldAdapters(dict(zip("ab", pair, strict=True))), inputs=read)
    direct = compare(*pair, side="left", inputs=read)
    assert direct.modules
    for row in direct:
        own = next(each for each in found.modules if each.module == row.module)
        assert own.cosine_functional == pytest.approx(row.cosine_functional)
        sizes = row.output_change_first, row.output_change_second
        assert own.output_ratio == pytest.approx(max(sizes) / min(sizes))
        ratio = 1 + 2 * row.cosine_functional * sizes[0] * sizes[1] / (sizes[0] ** 2 + sizes[1] ** 2)
        assert own.energy_ratio_functional == pytest.approx(ratio)
    assert found.pairs[0].cosine_functional == pytest.approx(found.total.cosine_functional)
    whole = [
        np.hypot(*(getattr(row, f"output_change_{which}") for row in direct)) for which in ("first", "second")
    ]
    assert found.pairs[0].output_ratio == pytest.approx(whole[1] / whole[0])
    assert found.document()["cosine_functional"] == found.total.cosine_functional
    assert forecast(held).total.cosine_functional is None


def test_without_scales_only_what_does_not_need_them_has_a_number():
    tensors = [
        {f"{m}.lora_{x}.weight": M for m, (B, A) in layers.items() for x, M in (("A", A), ("B", B))}
        for layers in LAYERS[:2]
    ]
    held = HeldAdapters({"a": load_adapter(tensors[0]), "b": load_adapter(tensors[1], scale=1.0)})
    found = forecast(held)
    row = found.modules[0]
    assert Flag.SCALE_UNKNOWN in row.flags and row.cosine is not None and row.overlap_left is not None
    assert row.energy_ratio is row.norm_ratio is row.sti is row.sti_random is None
    assert found.total.energy_ratio is found.total.cosine is found.total.sti is None
    assert found.total.overlap_left is not None and any("scale" in note for note in found.notes)


def test_two_equal_adapters_double_and_opposite_ones_cancel():
    one = adapter(LAYERS[0], 1.0)
    held = HeldAdapters({"a": one, "b": one})
    assert forecast(held).total.energy_ratio == pytest.approx(2.0)
    opposite = forecast(held, (1.0, -1.0)).total
    assert opposite.energy_ratio == pytest.approx(0.0, abs=1e-12) and opposite.cosine == pytest.approx(-1.0)


def test_the_document_names_the_adapters(held):
    document = forecast(held, members=(2, 0)).document()
    assert document["pairs"][0]["first"] == "c" and document["pairs"][0]["second"] == "a"
    assert document["overlap_left_control"] is not None and "cosine_functional" not in document


@pytest.mark.parametrize(
    ("weights", "members", "message"),
    [
        (None, (1,), "Nothing to add: 1 adapter; give two different ones or more"),
        (None, (1, 1), "Nothing to add: 1 adapter"),
        (None, (0, 7), "No such adapter: number 7 of 3"),
        ((1.0,), (0, 1), "1 weight for 2 adapters"),
        ((1.0, float("nan")), (0, 1), "A weight that is not finite: nan"),
    ],
)
def test_what_cannot_be_added_is_refused(held, weights, members, message):
    with pytest.raises(ValueRangeError, match=message):
        forecast(held, weights, members=members)


def test_adapters_without_a_common_module_are_inconclusive():
    held = HeldAdapters({str(n): adapter(factors(n, 2, [MODULES[n]]), 1.0) for n in range(2)})
    with pytest.raises(InconclusiveError, match="No module in common: no two of the 2 adapters"):
        forecast(held)
