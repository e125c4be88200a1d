"""``compare`` with inputs: against the outputs of the adapters themselves, and what it says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from second_moments import covariance, moment

import subspace
from subspace.errors import FormatError, InconclusiveError, ValueRangeError
from subspace.flags import Flag
from subspace.results.inputs import Inputs, ModuleInputs
from subspace.training import embedded

MODULES = [
    "model.layers.1.self_attn.q_proj",
    "model.layers.1.self_attn.v_proj",
    "model.layers.2.mlp.down_proj",
]


def _adapter(seed, *, r=4, alpha=8.0, modules=MODULES):
    """Random factors for modules of the embedded base, their alpha beside them."""
    rng = np.random.default_rng(seed)
    model, found = embedded.load(), {}
    for name in modules:
        d_out, d_in = model.get_submodule(name).weight.shape
        found[f"{name}.lora_A.weight"] = 0.1 * rng.standard_normal((r, d_in))
        found[f"{name}.lora_B.weight"] = 0.1 * rng.standard_normal((d_out, r))
        found[f"{name}.alpha"] = np.array(alpha)
    return found


@pytest.fixture(scope="module")
def ids():
    return torch.randint(0, 256, (6, 40), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def inputs(ids):
    return subspace.inputs(embedded.load(), [ids[:3], ids[3:]], targets=MODULES)


@pytest.fixture(scope="module")
def tokens(ids):
    """What each module is given, in float64."""
    model, found = embedded.load(), {}
    for name in MODULES:
        model.get_submodule(name).register_forward_pre_hook(
            lambda module, args, name=name: found.__setitem__(
                name, args[0].detach().double().flatten(0, 1).numpy()
            )
        )
    model(ids)
    return found


def _outputs(adapter, tokens, scale):
    return {
        name: scale * (x @ adapter[f"{name}.lora_A.weight"].T) @ adapter[f"{name}.lora_B.weight"].T
        for name, x in tokens.items()
    }


def test_functional_cosine_and_norms_are_those_of_the_outputs(inputs, tokens):
    one, other = _adapter(0), _adapter(1, r=2)
    other[f"{MODULES[1]}.lora_A.weight"][:1] = one[f"{MODULES[1]}.lora_A.weight"][:1]
    result = subspace.compare(one, other, inputs=inputs, scale=(2.0, -4.0), base=embedded.load())
    outputs = _outputs(one, tokens, 2.0), _outputs(other, tokens, -4.0)
    inner, squares = 0.0, np.zeros(2)
    for name in MODULES:
        y, y_ = (each[name] for each in outputs)
        row = result[name]
        cosine = np.vdot(y, y_) / np.linalg.norm(y) / np.linalg.norm(y_)
        assert row.cosine_functional == pytest.approx(cosine, abs=1e-6)
        changes = [np.sqrt(np.mean(np.sum(each**2, axis=1))) for each in (y, y_)]
        assert row.output_change_first == pytest.approx(changes[0], rel=1e-6)
        assert row.output_change_second == pytest.approx(changes[1], rel=1e-6)
        W = embedded.load().get_submodule(name).weight.detach().double().numpy()
        own = np.sqrt(np.mean(np.sum((tokens[name] @ W.T) ** 2, axis=1)))
        assert row.output_share_first == pytest.approx(changes[0] / own, rel=1e-5)
        assert row.output_share_second == pytest.approx(changes[1] / own, rel=1e-5)
        inner += np.vdot(y, y_)
        squares += [np.sum(y**2), np.sum(y_**2)]
    assert result.whole.cosine_functional == pytest.approx(inner / np.sqrt(squares.prod()), abs=1e-6)
    assert "On the inputs the outputs of the two updates have the cosine" in result.headline()
    assert "% of the output of W" in result.headline()


def test_dense_updates_too(inputs, tokens):
    rng = np.random.default_rng(0)
    W = {f"{name}.weight": rng.standard_normal((256, 256)) for name in MODULES[:2]}
    tuned, other = ({key: M + 0.1 * rng.standard_normal(M.shape) for key, M in W.items()} for _ in range(2))
    result = subspace.compare(tuned, other, base=W, inputs=inputs, side="right")
    x = tokens[MODULES[0]]
    y, y_ = ((x @ (each[f"{MODULES[0]}.weight"] - W[f"{MODULES[0]}.weight"]).T) for each in (tuned, other))
    cosine = np.vdot(y, y_) / np.linalg.norm(y) / np.linalg.norm(y_)
    assert result[MODULES[0]].cosine_functional == pytest.approx(cosine, abs=1e-6)
    assert result[MODULES[0]].phi_full_inputs is not None


def _of_moments(moments, *, tokens=1000):
    rows = [
        ModuleInputs(
            module=name, read_with=name, tokens=tokens, d=each.d, energy=each.trace, mean_share=None,
            top_share=None, effective_dimension=None, decay=None, eigenpairs=each.k, rest_share=None,
            error_share=None, gradient_norm=None, gradient_top_share=None, eigenvalues=each.values,
        )
        for name, each in moments.items()
    ]  # fmt: skip
    return Inputs("a model", "some data", "", "", tokens, tuple(rows), moments)


def _pair(d=24, names=("h.0.q", "h.1.q")):
    rng = np.random.default_rng(3)
    return [
        {
            f"{name}.lora_{x}": rng.standard_normal((4, d) if x == "A" else (d, 4))
            for name in names
            for x in "AB"
        }
        for _ in range(2)
    ]


def test_with_isotropic_inputs_everything_is_as_without():
    one, other = _pair()
    known = _of_moments({name: moment(np.eye(24), 24) for name in ("h.0.q", "h.1.q")})
    result = subspace.compare(one, other, inputs=known, side="all")
    plain = subspace.compare(one, other, side="all")
    for row, without in zip(result, plain, strict=True):
        assert row.cosine_functional == pytest.approx(row.cosine)
        np.testing.assert_array_equal(row.phi, without.phi)  # which stays raw
        if row.side in ("a", "right"):
            np.testing.assert_allclose(row.shared_p_inputs, row.shared_p, rtol=1e-6)
            assert row.shared_dim_inputs == row.shared_dim == without.shared_dim
        else:
            assert row.phi_full_inputs is row.signs_p is row.shared_dim_inputs is None


def test_what_is_shared_through_the_inputs_is_explained_by_them():
    """Both learned along the leading direction of the inputs, and nothing else in common."""
    C, rng = covariance(64, 2), np.random.default_rng(0)
    Q = np.linalg.eigh(C)[1][:, ::-1]
    pair = [
        {
            "h.0.q.lora_A": rng.standard_normal((4, 64)) / 8
            + rng.standard_normal((4, 6)) @ (Q[:, :6] / np.arange(1, 7.0)).T,
            "h.0.q.lora_B": rng.standard_normal((64, 4)),
        }
        for _ in range(2)
    ]
    (row,) = subspace.compare(*pair, inputs=_of_moments({"h.0.q": moment(C, 64)}))
    assert row.shared_dim >= 1 and row.shared_dim_inputs == 0 and row.signs_p > 0.05
    assert row.phi_full_inputs > 3 * row.chance_full
    assert row.phi_full_inputs == pytest.approx(row.phi_full, rel=0.6)


def test_without_inputs_nothing_of_them_is_in_the_result():
    result = subspace.compare(*_pair())
    document = result.document()
    assert document["inputs"] is None and document["whole"]["cosine_functional"] is None
    assert not any("inputs" in key or "functional" in key for key in document["modules"][0])
    assert not any("inputs" in key or "functional" in key for key in result.records()[0])
    assert not any("inputs" in name or name == "signs_p" for name in result.columns())
    assert "inputs alone" not in result.headline()


def test_modules_without_inputs_are_said():
    one, other = _pair()
    result = subspace.compare(
        one, other, inputs=_of_moments({"model.h.1.q": moment(covariance(24), 24), "x": moment(np.eye(9), 9)})
    )
    assert Flag.NO_INPUTS in result["h.0.q"].flags and result["h.0.q"].phi_full_inputs is None
    assert Flag.NO_INPUTS not in result["h.1.q"].flags and result["h.1.q"].phi_full_inputs is not None
    assert any("(h.0.q) the inputs of the module were not measured" in note for note in result.notes)
    assert list(result.records()[0]) == list(result.records()[1])
    assert json.loads(result.to_json())["modules"][0]["cosine_functional"] is None


def test_a_group_of_a_fused_layer_has_the_inputs_of_the_layer():
    rng = np.random.default_rng(0)
    fused = [
        {"h.0.attn.lora_A": rng.standard_normal((8, 24)), "h.0.attn.lora_B": rng.standard_normal((48, 4))}
        for _ in range(2)
    ]
    known = _of_moments({"h.0.attn": moment(covariance(24), 24), "h.1.attn": moment(covariance(24), 24)})
    result = subspace.compare(*fused, inputs=known, enable_lora=(True, True), scale=1.0)
    assert len(result) == 2 and all(row.phi_full_inputs is not None for row in result)


def test_much_outside_the_eigenpairs_is_said():
    one, other = _pair(names=("h.0.q",))
    result = subspace.compare(one, other, inputs=_of_moments({"h.0.q": moment(covariance(24, 0.5), 3)}))
    assert result[0].inputs_outside > 0.2
    assert any(
        "of the input energy (h.0.q) lies outside the stored eigenpairs" in note for note in result.notes
    )


def test_what_are_no_inputs_is_an_error(tmp_path, inputs):
    one, other = _pair()
    with pytest.raises(ValueRangeError, match="Not inputs: int"):
        subspace.compare(one, other, inputs=5)
    with pytest.raises(InconclusiveError, match="No module of the comparison is in the file of inputs"):
        subspace.compare(one, other, inputs=inputs)
    np.savez(tmp_path / "one.npz", **one)
    with pytest.raises(FormatError, match="Not a file of inputs"):
        subspace.compare(one, other, inputs=tmp_path / "one.npz")


def test_a_file_gives_the_same_as_the_result(tmp_path, inputs):
    inputs.save(tmp_path / "inputs.safetensors")
    one, other = _adapter(0), _adapter(1)
    results = [
        subspace.compare(one, other, inputs=each) for each in (inputs, tmp_path / "inputs.safetensors")
    ]
    for row, again in zip(*results, strict=True):
        assert again.cosine_functional == pytest.approx(row.cosine_functional, abs=1e-6)
        assert again.phi_full_inputs == pytest.approx(row.phi_full_inputs, abs=1e-6)
        assert again.signs_p == row.signs_p
    assert results[1].inputs["model_sha256"] == inputs.model_sha256
    assert results[1].inputs["path"].endswith("inputs.safetensors") and results[0].inputs["path"] is None
