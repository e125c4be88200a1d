"""Matched controls: which pairs they are, and that they say what the inputs alone explain."""

from __future__ import annotations

import numpy as np
import oracles
import pytest

import subspace
from subspace.analysis.controls import Controls, kinds_of

D, R, LAYERS = 96, 6, 4
KINDS = ("q_proj", "k_proj", "v_proj", "o_proj")


def _names():
    return [f"layers.{n}.self_attn.{kind}" for n in range(LAYERS) for kind in KINDS]


def _adapter(rng, *, inputs=None, strength=6.0, learned=None, r=R):
    """A random start, and one direction in the span of the layer's input, learned in every module.

    inputs : layer -> direction of R^D that all modules of the layer but o_proj read
    learned : module -> direction that this task adds on the output side
    """
    tensors = {}
    for name in _names():
        layer, kind = int(name.split(".")[1]), name.split(".")[-1]
        A = rng.standard_normal((r, D)) / np.sqrt(D)
        if inputs is not None and kind != "o_proj":
            A += strength * np.outer(rng.standard_normal(r), inputs[layer]) / np.sqrt(r)
        B = 0.1 * rng.standard_normal((D, r))
        if learned is not None:
            B += np.outer(learned[name], rng.standard_normal(r))
        tensors |= {f"{name}.lora_A.weight": A, f"{name}.lora_B.weight": B}
    return tensors


def _inputs(rng):
    return {n: oracles.haar(D, 1, rng)[:, 0] for n in range(LAYERS)}


@pytest.fixture
def rng():
    return np.random.default_rng(20211016)


def _phi(first, second, one, other, key="lora_A.weight"):
    return oracles.phi(first[f"{one}.{key}"], second[f"{other}.{key}"])


def test_the_same_input_control_is_the_mean_over_both_pairs_of_each_other_reader(rng):
    first, second = _adapter(rng), _adapter(rng, r=3)
    row = subspace.compare(first, second)["layers.1.self_attn.q_proj"]
    q, k, v = (f"layers.1.self_attn.{kind}" for kind in KINDS[:3])
    pairs = [_phi(first, second, *names) for names in ((q, k), (q, v), (k, q), (v, q))]
    assert (row.control_kind, row.control_pairs) == ("same_input", 4)
    assert row.control == {"kind": "same_input", "pairs": 4}
    assert row.phi_control == pytest.approx(np.mean([phi[0, 0] for phi in pairs]), abs=1e-6)
    assert row.phi_full_control == pytest.approx(np.mean([phi[-1, -1] for phi in pairs]), abs=1e-6)
    np.testing.assert_allclose(row.phi_control_grid, np.mean(pairs, axis=0), atol=1e-6)
    assert row.excess == row.phi_11 - row.phi_control


@pytest.mark.parametrize("side", ["a", "b"])
def test_the_layers_control_is_over_all_other_layers(rng, side):
    first, second = _adapter(rng), _adapter(rng)
    result = subspace.compare(first, second, side=side, controls="layers")
    row = result["layers.2.self_attn.v_proj"]
    key = f"lora_{side.upper()}.weight"
    T = (lambda M: M) if side == "a" else (lambda M: M.T)
    name = "layers.{}.self_attn.v_proj.{}".format
    other = [
        oracles.phi(T(first[name(k, key)]), T(second[name(m, key)]))[0, 0]
        for n in (0, 1, 3)
        for k, m in ((2, n), (n, 2))
    ]
    assert (row.control_kind, row.control_pairs) == ("layers", 6)
    assert row.phi_control == pytest.approx(np.mean(other), abs=1e-6)


def test_modules_without_another_reader_have_the_layers_control(rng):
    row = subspace.compare(_adapter(rng), _adapter(rng))["layers.0.self_attn.o_proj"]
    assert row.control_kind == "layers" and [each["kind"] for each in row.controls] == ["layers"]


def test_each_word_asks_for_its_controls(rng):
    first, second = _adapter(rng), _adapter(rng)
    kinds = {
        word: {
            each["kind"] for row in subspace.compare(first, second, controls=word) for each in row.controls
        }
        for word in ("none", "same-input", "layers", "all")
    }
    assert kinds == {
        "none": set(),
        "same-input": {"same_input"},
        "layers": {"layers"},
        "all": {"same_input", "layers"},
    }
    with pytest.raises(
        subspace.SubspaceError, match="Unknown controls 'both': `controls` is one of none, same-input"
    ):
        subspace.compare(first, second, controls="both")


def test_the_numbers_of_a_comparison_do_not_depend_on_its_controls(rng):
    first, second = _adapter(rng), _adapter(rng)
    plain, controlled = (subspace.compare(first, second, controls=word) for word in ("none", "all"))
    for one, other in zip(plain, controlled, strict=True):
        assert one.module == other.module and one.shared_dim == other.shared_dim
        np.testing.assert_array_equal(one.phi, other.phi)


def test_what_the_inputs_alone_explain_is_in_the_control_and_not_in_the_excess(rng):
    """Two tasks that share nothing but what their modules read: isotropic chance rejects, the control does not."""
    inputs = _inputs(rng)
    result = subspace.compare(_adapter(rng, inputs=inputs), _adapter(rng, inputs=inputs))
    readers = [row for row in result if not row.module.endswith("o_proj")]
    assert all(row.shared_dim == 1 for row in readers)
    assert np.median([row.phi_11 for row in readers]) > 0.7
    assert np.median([row.phi_control for row in readers]) > 0.7
    assert abs(np.median([row.excess for row in readers])) < 0.1
    assert np.mean([row.shared_dim_control for row in readers]) > 0.9
    assert abs(result.cosine) < 0.1
    assert "nothing here shows that the two learned the same" in result.headline()
    assert "modules with the same input share 1 in the mean" in result.headline()


def test_a_common_lesson_is_in_the_excess_and_in_the_cosine(rng):
    inputs, lesson = _inputs(rng), {name: oracles.haar(D, 1, rng)[:, 0] for name in _names()}
    reads = {name: oracles.haar(D, 1, rng)[:, 0] for name in _names()}

    def adapter():
        tensors = _adapter(rng, inputs=inputs, strength=1.0)
        for name in _names():
            weights = rng.standard_normal(R)
            tensors[f"{name}.lora_A.weight"] += 4 * np.outer(weights, reads[name]) / np.linalg.norm(weights)
            tensors[f"{name}.lora_B.weight"] += 4 * np.outer(lesson[name], weights) / np.linalg.norm(weights)
        return tensors

    result = subspace.compare(adapter(), adapter())
    assert result.cosine > 0.5
    assert np.median([row.excess for row in result]) > 0.4
    assert "The two learned much of the same." in result.headline()


def test_layers_that_are_alike_give_no_small_p_value_and_layers_that_differ_do(rng):
    inputs = _inputs(rng)
    one = subspace.compare(*(_adapter(rng, inputs=inputs) for _ in range(2)))
    same = dict.fromkeys(range(LAYERS), inputs[0])
    alike = subspace.compare(*(_adapter(rng, inputs=same) for _ in range(2)))
    assert one.sides["a"].layers_p == pytest.approx(one.sides["a"].layers_p_floor)
    assert alike.sides["a"].layers_p > 2 * alike.sides["a"].layers_p_floor


def test_the_rows_keep_their_order_when_readers_of_one_input_lie_apart(rng):
    names = [f"layers.{n}.{kind}_proj" for kind in "qkv" for n in range(2)]
    order = [names[n] for n in Controls(names, kinds_of("all")).in_order()]
    assert order == [f"layers.{n}.{kind}_proj" for n in range(2) for kind in "qkv"]
    first, second = (dict(reversed(_adapter(rng).items())) for _ in range(2))
    result = subspace.compare(first, second)
    assert [row.module for row in result] == list(subspace.load_adapter(first))


def test_thousands_of_layers_are_summed_without_all_pairs(rng, monkeypatch):
    """The experts of a large model: sums over all pairs in linear time, permutations over some of the layers."""
    from subspace.analysis import layers

    units = {f"experts.{n}": tuple(rng.standard_normal((2, D)).astype(np.float32)) for n in range(40)}
    units = {name: tuple(u / np.linalg.norm(u) for u in pair) for name, pair in units.items()}
    expected = layers._sums(units)
    monkeypatch.setattr(layers, "_MOST", 16)
    np.testing.assert_allclose(layers._sums(units), expected, rtol=1e-5)
    kept = list(layers._spaced(units))
    assert len(kept) == 16
    assert (kept[0], kept[-1]) == ("experts.0", "experts.39")
