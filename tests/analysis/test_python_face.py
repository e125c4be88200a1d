"""What Python users meet: one way of loading everywhere, results as containers, the embedded base, directions."""

from __future__ import annotations

import csv
import inspect
import io
import json
import re

import numpy as np
import pytest

import subspace
from subspace.embedded_base import EMBEDDED

LOADING = {"base": None, "scale": None, "adapter_name": None, "enable_lora": None, "rename": None}
D = 12


def _pairs(names, r=3, seed=0, d=D):
    rng = np.random.default_rng(seed)
    return {f"{n}.lora_{x}": rng.standard_normal((r, d) if x == "A" else (d, r)) for n in names for x in "AB"}


# one signature


@pytest.mark.parametrize(
    "name",
    [
        "load_adapter",
        "inspect",
        "convert",
        "truncate",
        "directions",
        "compare",
        "explain",
        "library",
        "spectrum",
        "align",
        "amplify",
        "intruders",
        "mitigate",
        "merge",
        "visibility",
    ],
)
def test_every_function_takes_the_same_loading_keywords(name):
    parameters = inspect.signature(getattr(subspace, name)).parameters
    assert not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    for keyword, default in LOADING.items():
        # what they are asked about, and so their first argument
        if keyword == "base" and name in {"align", "amplify", "intruders", "mitigate", "visibility"}:
            continue
        assert parameters[keyword].kind is inspect.Parameter.KEYWORD_ONLY, keyword
        assert parameters[keyword].default is default, keyword


def test_adapter_names_are_per_side(tmp_path):
    torch = pytest.importorskip("torch")
    names = [
        f"base_model.model.h.{n}.q.lora_{x}.{who}.weight"
        for n in (0, 1)
        for x in "AB"
        for who in ("de", "fr")
    ]
    rng = np.random.default_rng(3)
    state = {
        name: torch.tensor(rng.standard_normal((3, D) if "lora_A" in name else (D, 3))) for name in names
    }
    torch.save(state, tmp_path / "two.pt")
    both = subspace.compare(tmp_path / "two.pt", tmp_path / "two.pt", adapter_name=("de", "fr"))
    same = subspace.compare(tmp_path / "two.pt", tmp_path / "two.pt", adapter_name="de")
    assert all(row.phi_full == pytest.approx(1) for row in same)
    assert not any(row.phi_full == pytest.approx(1) for row in both)


def test_names_are_mapped_per_side():
    one, other = _pairs(["h.0.q", "h.0.v"]), _pairs(["x.q", "x.v"], seed=1)
    with pytest.raises(subspace.InconclusiveError, match="No module in common"):
        subspace.compare(one, other)
    result = subspace.compare(one, other, rename=({"h.0": "l"}, {"x": "l"}))
    assert [row.module for row in result] == ["l.q", "l.v"]
    assert result["q"].second_module == "x.q"  # as the file has it


def test_a_scale_may_be_given_per_side_and_changes_nothing():
    one, other = _pairs(["q"]), _pairs(["q"], seed=1)
    plain = subspace.compare(one, other, side="all")
    scaled = subspace.compare(one, other, side="all", scale=(2.0, None))
    assert [row.phi_full for row in scaled] == pytest.approx([row.phi_full for row in plain], rel=1e-12)


@pytest.mark.parametrize("groups", [((1, 0, 1), None), (None, (1, 0, 1)), ((1, 0, 1), [1, 0, 1])])
def test_groups_are_per_side(groups):
    rng = np.random.default_rng(0)
    fused = {"attn.lora_A": rng.standard_normal((4, D)), "attn.lora_B": rng.standard_normal((2 * D, 2))}
    plain = _pairs(["attn[q]", "attn[v]"], r=2)
    pair = tuple(fused if each else plain for each in groups)
    result = subspace.compare(*pair, enable_lora=groups)
    assert [row.module for row in result] == ["attn[q]", "attn[v]"]


def test_one_list_of_groups_is_for_both():
    rng = np.random.default_rng(0)
    fused = {"attn.lora_A": rng.standard_normal((4, D)), "attn.lora_B": rng.standard_normal((2 * D, 2))}
    result = subspace.compare(fused, fused, enable_lora=(True, False, True))
    assert [row.module for row in result] == ["attn[q]", "attn[v]"]


def test_bases_are_per_side():
    rng = np.random.default_rng(0)
    bases = [{"q.weight": rng.standard_normal((D, D))} for _ in range(2)]
    change = rng.standard_normal((D, 1)) @ rng.standard_normal((1, D))
    tuned = [{"q.weight": base["q.weight"] + change} for base in bases]
    result = subspace.compare(*tuned, base=tuple(bases), directions=1)
    assert result["q"].phi_full == pytest.approx(1)


def test_three_values_for_two_adapters():
    with pytest.raises(subspace.SubspaceError, match="3 values for two adapters"):
        subspace.compare(_pairs(["q"]), _pairs(["q"]), adapter_name=("a", "b", "c"))


# results


@pytest.fixture(scope="module")
def comparison():
    names = ["h.0.q", "h.0.v", "h.1.q"]
    return subspace.compare(_pairs(names), _pairs(names, seed=1))


def test_a_result_has_a_length_and_is_iterated(comparison):
    assert len(comparison) == 3 and list(comparison) == list(comparison.modules)
    assert comparison


def test_rows_by_name_end_of_name_and_number(comparison):
    assert comparison["h.0.q"] is comparison.modules[0]
    assert comparison["1.q"] is comparison.modules[2] is comparison[-1]
    assert comparison["v"].module == "h.0.v"
    assert comparison[:2] == comparison.modules[:2]


@pytest.mark.parametrize(
    ("asked", "message"),
    [("q", "2 rows match 'q'.*h.0.q.*h.1.q"), ("k", "no module is called 'k'; the result has h.0.q")],
)
def test_a_name_that_is_none_or_several(comparison, asked, message):
    with pytest.raises(KeyError, match=message):
        comparison[asked]


def test_rows_by_module_side_and_start():
    one, start = _pairs(["q"]), _pairs(["q"], seed=2)
    start["q.lora_B"] *= 0
    result = subspace.compare(one, _pairs(["q"], seed=1), side=("a", "b"), init=(start, None))
    assert result["q", "b", "removed"].side == "b" and result["q", "b", "removed"].init == "removed"
    with pytest.raises(KeyError, match=r"2 rows match .*'kept'.*'removed'"):
        result["q", "a"]


def test_json_and_csv_of_a_result(comparison):
    document = json.loads(comparison.to_json())
    assert document["schema"] == "subspace.compare/1" and len(document["modules"]) == 3
    rows = list(csv.DictReader(io.StringIO(comparison.to_csv())))
    assert [row["module"] for row in rows] == ["h.0.q", "h.0.v", "h.1.q"]
    assert {"first", "second"} <= set(rows[0])


@pytest.mark.parametrize("kind", ["compare", "align", "amplify", "inspect"])
def test_a_result_is_saved_by_the_ending_of_the_name(kind, tmp_path):
    one = _pairs(["q", "v"])
    base = {"q.weight": np.eye(D), "v.weight": np.eye(D)}
    result = {
        "compare": lambda: subspace.compare(one, one),
        "align": lambda: subspace.align(base, one, scale=1.0),
        "amplify": lambda: subspace.amplify(base, one, scale=1.0),
        "inspect": lambda: subspace.inspect(one),
    }[kind]()
    assert result.save(tmp_path / "r.json") == [tmp_path / "r.json"]
    assert json.loads((tmp_path / "r.json").read_text())["schema"] == f"subspace.{kind}/1"
    result.save(tmp_path / "r.csv")
    assert (tmp_path / "r.csv").read_text() == result.to_csv()
    with pytest.raises(
        subspace.SubspaceError, match=r"r\.csv exists already; give another name, or `overwrite`"
    ):
        result.save(tmp_path / "r.csv")
    result.save(tmp_path / "r.csv", overwrite=True)
    with pytest.raises(
        subspace.SubspaceError, match=r"Cannot tell how to save .*r\.txt; name a \.json or a \.csv"
    ):
        result.save(tmp_path / "r.txt")
    (tmp_path / "file").touch()
    with pytest.raises(subspace.SubspaceError, match="a part of the path is a file, not a directory"):
        result.save(tmp_path / "file" / "r.json")


def test_a_notebook_shows_a_dozen_rows_and_how_many_more():
    names = [f"h.{n}.q" for n in range(30)]
    markup = subspace.inspect(_pairs(names, r=1))._repr_html_()
    assert markup.count("<tr>") == 13 and "and 18 rows more" in markup
    assert "more" not in subspace.inspect(_pairs(names[:12], r=1))._repr_html_()


def test_selected_rows(comparison):
    assert [row.module for row in comparison.selected(modules=["*.q"])] == ["h.0.q", "h.1.q"]
    by_phi = comparison.selected(sort="phi_full")
    phi = [row.phi_full for row in by_phi]
    assert phi == sorted(phi, reverse=True)
    assert [row.module for row in comparison.selected(sort="-module", top=1)] == ["h.1.q"]
    assert comparison.headline() == comparison.selected().headline()
    assert len(comparison.selected(sort="distance_geodesic", top=2)) == 2


@pytest.mark.parametrize("column", ["nope", "plot", "document", "COLUMNS", "phi", ""])
def test_only_columns_are_sorted_by(comparison, column):
    with pytest.raises(
        subspace.SubspaceError, match=f"No column '{column}' to sort by; there are first, second"
    ):
        comparison.selected(sort=column)


def test_values_that_do_not_exist_come_last_either_way():
    names = ["a", "b", "c"]
    state = _pairs(names)
    state["b.lora_B"] *= 0
    result = subspace.inspect(state, scale=1.0)
    for sort in ("stable_rank", "-stable_rank"):
        ordered = result.selected(sort=sort)
        assert ordered[-1].module == "b" and ordered[-1].stable_rank is None
    first, second, _ = (row.stable_rank for row in result.selected(sort="-stable_rank"))
    assert first <= second


# the base inside the package


def test_embedded_is_a_base_in_python(tmp_path, monkeypatch):
    base = subspace.load_base(EMBEDDED)
    assert "model.layers.0.self_attn.q_proj" in base.modules
    module = "model.layers.0.self_attn.q_proj"
    d = base.tensors.layout[base.modules[module]].shape[0]
    delta = _pairs([module], d=d)
    (row,) = subspace.amplify(EMBEDDED, delta, scale=1.0)
    assert row.base_key == f"{module}.weight"
    result = subspace.compare(EMBEDDED, delta, directions=2)
    assert result.first.format == "base weights"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "embedded").mkdir()
    np.savez(tmp_path / "embedded" / "own.npz", **{"x.weight": np.eye(3)})
    assert list(subspace.load_base(EMBEDDED).modules) == ["x"]


# directions


@pytest.mark.parametrize("side", ["a", "b", "left", "right"])
@pytest.mark.parametrize(("d_out", "d_in", "r"), [(9, 14, 4), (14, 9, 4), (5, 5, 5), (7, 11, 1)])
def test_directions_are_those_of_a_dense_svd(side, d_out, d_in, r):
    rng = np.random.default_rng(r)
    A, B = rng.standard_normal((r, d_in)), rng.standard_normal((d_out, r))
    M = {"a": A, "b": B}.get(side, B @ A)
    U, S, Vh = np.linalg.svd(M, full_matrices=False)
    frame = subspace.directions({"h.q.lora_A": A, "h.q.lora_B": B}, "q", side=side, layout="BA")
    expected = (U if side in ("b", "left") else Vh.T)[:, :r]
    found = frame.vectors()
    np.testing.assert_allclose(found.T @ found, np.eye(r), atol=1e-12)
    np.testing.assert_allclose(frame.S, S[:r], rtol=1e-10)
    np.testing.assert_allclose(np.abs(np.sum(found * expected, axis=0)), np.ones(r), atol=1e-10)


def test_directions_of_an_adapter_with_one_module_need_no_name():
    assert subspace.directions(_pairs(["q"])).vectors().shape == (D, 3)


@pytest.mark.parametrize(
    ("module", "side", "message"),
    [
        (None, "a", "2 modules in the state dict in memory; name one as `module`: h.0.q, h.1.q"),
        ("q", "a", "2 modules called 'q' in the state dict in memory"),
        ("k", "a", "No module called 'k' in the state dict in memory"),
        ("0.q", "c", "Unknown side 'c': `side` is one of a, b, left, right"),
    ],
)
def test_directions_that_do_not_exist(module, side, message):
    with pytest.raises(subspace.SubspaceError, match=re.escape(message)):
        subspace.directions(_pairs(["h.0.q", "h.1.q"]), module, side=side)


def test_an_untrained_module_has_no_directions():
    state = _pairs(["q"])
    state["q.lora_B"] *= 0
    with pytest.raises(
        subspace.InconclusiveError, match=r"^An untrained module .*, in module q of the state"
    ):
        subspace.directions(state)


# tensors in memory


def _asked(one):
    yield lambda: subspace.compare(one, _pairs(["x.y"]))
    yield lambda: subspace.compare({key: np.full(M.shape, np.nan) for key, M in one.items()}, one)
    yield lambda: subspace.amplify({"k.weight": np.eye(D)}, one)
    yield lambda: subspace.truncate({**one, "q.lora_A": np.full((3, D), np.nan)}, rank=1)
    yield lambda: subspace.convert(one, to="peft")
    yield lambda: subspace.convert(one, to="peft", module="x", scale=1.0)
    yield lambda: subspace.load_adapter({"q.lora_A": one["q.lora_A"]})


def test_errors_of_tensors_in_memory_are_english():
    for call in _asked(_pairs(["q", "v"])):
        with pytest.raises(subspace.SubspaceError) as error:
            call()
        message = str(error.value)
        assert "the state dict in memory" in message and "in in" not in message, message
        assert not re.search("(in|of) in memory", message)
    one = _pairs(["q"])
    assert subspace.inspect(one).headline().startswith("The state dict in memory is ")


def test_a_matrix_that_is_not_finite_is_refused(tmp_path):
    np.save(tmp_path / "bad.npy", np.full((D, D), np.inf))
    np.save(tmp_path / "good.npy", np.eye(D))
    for pair in (("bad", "good"), ("good", "bad")):
        with pytest.raises(
            subspace.SubspaceError,
            match=r"No common module has a score.*numbers in .*bad\.npy are not all finite",
        ):
            subspace.compare(*(tmp_path / f"{name}.npy" for name in pair))
