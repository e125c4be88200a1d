"""A module with NaN or Inf has no score and a flag; every other module is measured as if it were not there."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

import subspace
from subspace import plots
from subspace.errors import InconclusiveError
from subspace.flags import Flag

NAMES = [f"layers.{n}.self_attn.{part}_proj" for n in range(3) for part in "qv"]
BAD = "layers.1.self_attn.q_proj"


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def save_safetensors():
    def save(path, tensors):
        save_file(tensors, path)
        return path

    return save


@pytest.fixture
def tensors(rng):
    def of(bad=(), value=np.nan, factor="lora_A"):
        found = {}
        for name in NAMES:
            found[f"{name}.lora_A"] = rng.standard_normal((3, 24))
            found[f"{name}.lora_B"] = rng.standard_normal((20, 3))
        for name in bad:
            found[f"{name}.{factor}"][1, 2] = value
        return found

    return of


def without(tensors, module):
    return {key: value for key, value in tensors.items() if not key.startswith(module)}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("factor", ["lora_A", "lora_B"])
@pytest.mark.parametrize("side", ["a", "all"])
def test_one_bad_module_leaves_the_numbers_of_the_others_alone(tensors, value, factor, side):
    one, other = tensors(), tensors([BAD], value, factor)
    result = subspace.compare(one, other, side=side)
    expected = subspace.compare(without(one, BAD), without(other, BAD), side=side)
    bad = [row for row in result.modules if row.module == BAD]
    good = [row for row in result.modules if row.module != BAD]
    assert all(row.flags == (Flag.NOT_FINITE,) and not row.phi.size and row.cosine is None for row in bad)
    for row, wanted in zip(good, expected.modules, strict=True):
        np.testing.assert_array_equal(row.phi, wanted.phi)
        assert row.cosine == wanted.cosine
    assert result.whole == expected.whole


def test_the_headline_the_notes_and_the_json_say_so(tensors, tmp_path, save_safetensors):
    first = save_safetensors(tmp_path / "one.safetensors", tensors())
    second = save_safetensors(tmp_path / "other.safetensors", tensors([BAD]))
    result = subspace.compare(first, second)
    assert result.headline().startswith(
        "Over the 5 of 6 modules with finite numbers, the updates have the cosine"
    )
    (note,) = [note for note in result.notes if "finite" in note]
    assert BAD in note
    assert "other.safetensors" in note
    assert "one.safetensors" not in note
    assert "the cosine of the whole updates is of the other modules" in note
    document = json.loads(result.to_json())
    row = next(row for row in document["modules"] if row["module"] == BAD)
    assert row["flags"] == ["not_finite"]
    assert row["cosine"] is row["phi_full"] is None
    assert note in document["notes"]


def test_a_comparison_without_bad_modules_says_nothing(tensors):
    result = subspace.compare(tensors(), tensors())
    assert "finite" not in result.headline() + " ".join(result.notes)


def test_only_bad_modules_have_no_answer(tensors):
    with pytest.raises(
        InconclusiveError, match=r"No common module has a score.*6 modules .*not all finite \(NaN or Inf\)"
    ):
        subspace.compare(tensors(), tensors(NAMES))


def test_a_bad_start_takes_the_numbers_of_its_module(tensors):
    first, start = tensors(), tensors([BAD])
    result = subspace.compare(first, tensors(), init=(start, None))
    flagged = {row.module for row in result.modules if Flag.NOT_FINITE in row.flags}
    assert flagged == {BAD}
    assert {row.init for row in result.modules if row.module == BAD} == {"kept", "removed"}


def test_a_dense_update_beside_a_bad_pair(rng, tensors):
    dense = {f"{name}.delta_W": rng.standard_normal((20, 24)) for name in NAMES}
    for factor in ("lora_A", "lora_B"):
        result = subspace.compare(dense, tensors([BAD], np.inf, factor))
        assert [row.module for row in result.modules if Flag.NOT_FINITE in row.flags] == [BAD]
        assert np.isfinite(result.cosine)


def test_a_bad_base_weight_in_the_place_of_an_adapter(rng, tensors):
    base = {f"{name}.weight": rng.standard_normal((20, 24)) for name in NAMES}
    base[f"{BAD}.weight"][0, 0] = np.inf
    result = subspace.compare(base, tensors())
    assert [row.module for row in result.modules if Flag.NOT_FINITE in row.flags] == [BAD]


def test_a_bad_module_of_a_reference_adapter_is_named(tensors, tmp_path, save_safetensors):
    controls = [save_safetensors(tmp_path / "control.safetensors", tensors([BAD])), tensors()]
    result = subspace.compare(tensors(), tensors(), control=controls)
    assert {test.measure for test in result.references} == {"cosine", "phi_11_a", "phi_11_b"}
    assert not any(Flag.NOT_FINITE in row.flags for row in result.modules)
    (note,) = [note for note in result.notes if "finite" in note]
    assert "control.safetensors" in note
    assert BAD in note


def test_a_reference_adapter_of_only_bad_modules_leaves_no_test(tensors, tmp_path, save_safetensors):
    control = save_safetensors(tmp_path / "control.safetensors", tensors(NAMES))
    result = subspace.compare(tensors(), tensors(), control=[control])
    assert result.references == ()
    assert any("6 modules" in note and "control.safetensors" in note for note in result.notes)
    assert any("No test against the reference adapters" in note for note in result.notes)


def test_the_figures_of_the_others_are_drawn(tensors):
    result = subspace.compare(tensors(), tensors([BAD]), side=("a", "b"))
    assert result.plot(module=NAMES[0], side="a") is not None
    assert plots.figures(result, "grid", side="a")


@pytest.mark.parametrize("where", ["adapter", "base"])
def test_amplify_goes_on_after_a_bad_module(rng, tensors, where):
    adapter = tensors([BAD] if where == "adapter" else [])
    base = {f"{name}.weight": rng.standard_normal((20, 24)) for name in NAMES}
    sound = subspace.amplify(base, without(adapter, BAD), scale=1.0)
    if where == "base":
        base[f"{BAD}.weight"][3, 3] = np.nan
    result = subspace.amplify(base, adapter, scale=1.0)
    bad = result[BAD]
    assert Flag.NOT_FINITE in bad.flags
    assert bad.ranks == ()
    assert bad.norm_W is bad.norm_delta_W is None
    assert result.records() == sound.records()
    assert any(BAD in note and "finite" in note for note in result.notes)
    assert json.loads(result.to_json())["modules"][2]["norm_W"] is None


def test_amplify_of_only_bad_modules_has_no_answer(rng, tensors):
    base = {f"{name}.weight": rng.standard_normal((20, 24)) for name in NAMES}
    with pytest.raises(InconclusiveError, match=r"No module has an amplification factor: 6 modules .*finite"):
        subspace.amplify(base, tensors(NAMES), scale=1.0)


def test_inspect_describes_the_others(tensors):
    result = subspace.inspect(tensors([BAD]), scale=1.0)
    assert [row.module for row in result.modules if Flag.NOT_FINITE in row.flags] == [BAD]


def test_what_would_be_written_is_refused_by_name(tensors):
    with pytest.raises(subspace.SubspaceError, match=rf"[Nn]ot .*finite.*{BAD}"):
        subspace.truncate(tensors([BAD]), rank=2)
    with pytest.raises(subspace.SubspaceError, match=rf"[Nn]ot .*finite.*{BAD}"):
        subspace.convert(tensors([BAD]), to="peft", scale=1.0)
