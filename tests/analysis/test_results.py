"""What every result can do: records, a data frame, a table in a notebook, a plot; and that it is frozen."""

from __future__ import annotations

import dataclasses
import html.parser
import json

import numpy as np
import pytest

import subspace
from subspace.results.cells import cell, plain
from subspace.text import counted

EVIL = "<script>alert(1)</script>"


def _pairs(rng, names, r, d=24):
    return {f"{n}.lora_{x}": rng.standard_normal((r, d) if x == "A" else (d, r)) for n in names for x in "AB"}


def _half(tensors):
    return {key: value * (0.5 if key.endswith("B") else 1.0) for key, value in tensors.items()}


@pytest.fixture(scope="module")
def results():
    """One result of each kind, over modules with a stranger's names, one of them untrained."""
    rng = np.random.default_rng(0)
    names = [f"l.0.{EVIL}", "l.1.$x$\x1b[31m", "l.2.模块 🙂"]
    one, other = _pairs(rng, names, 3), _pairs(rng, names, 5)
    one["l.2.模块 🙂.lora_B"] *= 0
    base = {f"{name}.weight": rng.standard_normal((24, 24)) for name in names}
    return {
        "compare": subspace.compare(one, other, side="all"),
        "align": subspace.align(base, one, k=2, scale=1.0),
        "amplify": subspace.amplify(base, one, ranks=[1, 2], scale=1.0),
        "explain": subspace.explain(one, base=base, heads=[4], scale=1.0),
        "inspect": subspace.inspect(one, scale=1.0),
        "intruders": subspace.intruders(base, one, k=2, scale=1.0),
        "merge": subspace.merge([one, other], scale=1.0),
        "spectrum": subspace.spectrum(one, scale=1.0),
        "track": subspace.track({1: _half(one), 2: one}, base=base, side="b", scale=1.0, by="module"),
        "visibility": subspace.visibility(base, one, scale=1.0),
    }


KINDS = (
    "align",
    "amplify",
    "compare",
    "explain",
    "inspect",
    "intruders",
    "merge",
    "spectrum",
    "track",
    "visibility",
)


@pytest.mark.parametrize("kind", KINDS)
def test_records_are_flat_and_strict_json(kind, results):
    records = results[kind].records()
    assert records
    for record in records:
        assert list(record) == list(records[0])
        assert all(value is None or isinstance(value, str | int | float) for value in record.values())
    assert json.loads(json.dumps(records, allow_nan=False)) == records


@pytest.mark.parametrize("kind", KINDS)
def test_the_columns_of_the_table_are_those_of_the_records(kind, results):
    assert set(results[kind].columns()) <= set(results[kind].records()[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_data_frame_has_a_row_per_record(kind, results):
    pytest.importorskip("pandas")
    frame, records = results[kind].to_pandas(), results[kind].records()
    assert list(frame.columns) == list(records[0]) and len(frame) == len(records)
    assert list(frame["module"]) == [record["module"] for record in records]


class _Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("kind", KINDS)
def test_a_notebook_shows_a_table_in_which_names_stay_text(kind, results):
    tags = _Tags()
    markup = results[kind]._repr_html_()
    tags.feed(markup)
    assert set(tags.seen) == {"p", "table", "thead", "tbody", "tr", "th", "td"}
    assert EVIL in tags.text and "\x1b" not in markup
    assert tags.seen.count("tr") == 1 + len(results[kind].records())


@pytest.mark.parametrize("kind", KINDS)
def test_results_are_frozen(kind, results):
    result = results[kind]
    for value in (result, result.modules[0]):
        name = dataclasses.fields(value)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, None)
    assert isinstance(result.modules, tuple)


@pytest.mark.parametrize("kind", KINDS)
def test_repr_is_one_line_with_the_finding(kind, results):
    told, facts = repr(results[kind]), results[kind].facts()
    assert "\n" not in told and facts[0] in told and facts[-1] in told
    assert results[kind].headline() == " ".join(facts)


def test_plot_returns_axes(results):
    from matplotlib import pyplot

    figure, ax = pyplot.subplots()
    assert results["compare"].plot(ax) is ax
    pyplot.close(figure)
    for drawn in (results["compare"].plot(), results["compare"].modules[0].plot()):
        assert drawn.get_title().startswith("l.0.")
        pyplot.close(drawn.figure)


def test_plot_takes_a_module_and_refuses_one_without_a_score(results):
    from matplotlib import pyplot

    named = results["compare"].plot(module="l.1.$x$\x1b[31m")
    assert "$" in named.get_title() or "\\$" in named.get_title()
    pyplot.close(named.figure)
    with pytest.raises(subspace.InconclusiveError, match=r"Module 'l\.2\..*' has no score to draw; flags: "):
        results["compare"].plot(module="l.2.模块 🙂")
    with pytest.raises(
        subspace.SubspaceError, match=r"No module is called 'no\.such'; this comparison has l\.0"
    ):
        results["compare"].plot(module="no.such")


def test_the_headline_of_a_comparison_counts_modules():
    rng = np.random.default_rng(1)
    one = _pairs(rng, ["l.0.q", "l.1.q"], 3)
    whole, a, b, conclusion = subspace.compare(one, one, side=("a", "b"), controls="none").facts()
    assert whole.startswith(
        "The updates have the cosine 1.00, 1.00 in the median module (isotropic: 0 +- 0.03); 100 % of "
    )
    shared = (
        "3 directions in both modules shared beyond isotropic random spans, of at most 3 (level 0.01, Holm over "
        "modules)."
    )
    assert a == f"A: whether the starts are common cannot be told (row alignment z = 2.8); {shared}"
    assert b == f"B: {shared}"
    assert conclusion.startswith("Both are one adapter, up to its scale and stored type")
    single = {key: value for key, value in one.items() if "l.0" in key}
    assert (
        "3 directions in the one module shared beyond isotropic random spans, of at most 3"
        in subspace.compare(single, single).headline()
    )


def test_totals_of_an_inspection(results):
    totals = results["inspect"].totals()
    assert (totals["modules"], totals["parameters"], totals["ranks"]) == (3, 3 * 3 * 48, [3])
    assert totals["untrained"] == 1
    norms = [row.norm_delta_W for row in results["inspect"].modules]
    assert totals["norm_delta_W"] == pytest.approx(np.sqrt(np.sum(np.square(norms))))


def test_progress_counts_every_module():
    rng = np.random.default_rng(1)
    one = _pairs(rng, ["l.0.q", "l.1.q", "l.2.q"], 2)
    base = {f"l.{n}.q.weight": rng.standard_normal((24, 24)) for n in range(3)}
    for call in (
        lambda seen: subspace.compare(one, one, progress=seen),
        lambda seen: subspace.inspect(one, progress=seen),
        lambda seen: subspace.amplify(base, one, scale=1.0, progress=seen),
    ):
        steps = []
        call(lambda done, total, steps=steps: steps.append((done, total)))
        assert steps == [(1, 3), (2, 3), (3, 3)]


def test_a_model_in_memory_is_an_adapter_and_a_base():
    torch = pytest.importorskip("torch")
    loralib = pytest.importorskip("loralib")
    model = torch.nn.Sequential(
        loralib.Linear(12, 10, r=2, lora_alpha=6), torch.nn.ReLU(), loralib.Linear(10, 8, r=2)
    )
    torch.manual_seed(0)
    for layer in (model[0], model[2]):
        torch.nn.init.normal_(layer.lora_B)
    found = subspace.inspect(model)
    assert [(row.r, row.scale) for row in found.modules] == [(2, 3.0), (2, 0.5)]
    assert subspace.compare(model, model).modules[0].phi_full == pytest.approx(1)
    (first, _) = subspace.amplify(model, model).modules
    W = model[0].weight.detach().numpy()
    assert first.norm_W == pytest.approx(np.linalg.norm(W), rel=1e-6)


def test_strict_json_values():
    assert plain({"a": (np.float32(1.5), np.inf), 2: np.arange(2), "c": np.bool_(True)}) == {
        "a": [1.5, None],
        "2": [0, 1],
        "c": True,
    }


def test_cells():
    assert [cell(value) for value in (float("nan"), None, 0.5, 12345.678, True, (1, 2.5))] == [
        "-", "-", "0.5", "1.235e+04", "True", "1 2.5",
    ]  # fmt: skip
    assert [counted(n, "module") for n in (0, 1, 2)] == ["0 modules", "1 module", "2 modules"]
