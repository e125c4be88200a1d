"""Flags and columns are declared once: nothing is attached, printed or explained that is not, and nothing twice."""

from __future__ import annotations

import ast
import csv
import html
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import wild_adapters

import subspace
from subspace.adapters.writers import names as written_formats
from subspace.cli import terminal
from subspace.errors import SubspaceError
from subspace.flags import Flag, flag_notes
from subspace.results import glossary
from subspace.results.columns import described
from subspace.results.result import Result

_ROOT = Path(__file__).parents[1]
_SOURCES = [path for path in (_ROOT / "subspace").rglob("*.py") if path.name != "flags.py"]


def _lora(rng, *modules, r=4, d_in=12, d_out=10):
    return {
        f"{module}.lora_{x}.weight": rng.standard_normal((r, d_in) if x == "A" else (d_out, r))
        for module in modules
        for x in "AB"
    }


def _odd() -> dict[str, dict[str, np.ndarray]]:
    """Adapters of two modules, q and v; of q something is to be said."""
    rng = np.random.default_rng(3)
    plain = _lora(rng, "q", "v")
    A, B = plain["q.lora_A.weight"], plain["q.lora_B.weight"]
    return {
        "plain": plain,
        "untrained": {**plain, "q.lora_B.weight": 0 * B},
        "same start": {**plain, "q.lora_B.weight": rng.standard_normal(B.shape)},
        "another shape": {**plain, **_lora(rng, "q", d_in=9, d_out=7)},
        "a low rank": {**plain, "q.lora_A.weight": np.repeat(A[:1], 4, axis=0)},
        "ties": {"q.lora_A.weight": np.eye(4, 12), "q.lora_B.weight": np.eye(10, 4)},
        "many directions": _lora(rng, "q", r=9),
        "the whole space": _lora(rng, "q", r=12),
        "too large": {"q.lora_A.weight": 1e200 * A, "q.lora_B.weight": 1e200 * B},
        "damaged": {**plain, "q.lora_A.weight": np.where(2 * A.mean() < A, np.nan, A)},
        "DoRA": {**plain, "q.lora_magnitude_vector": np.ones(10)},
        "LoHa": {
            f"base_model.model.q.hada_w{n}_{x}": rng.standard_normal((10, 2) if x == "a" else (2, 12))
            for n in (1, 2)
            for x in "ab"
        },
        "OFT": {
            "base_model.model.q.oft_R.weight": np.ones((2, 15)),
            "base_model.model.v.oft_R.weight": np.ones((2, 15)),
        },
        "IA3": {"base_model.model.q.ia3_l": np.ones((10, 1)), "base_model.model.v.ia3_l": np.ones((1, 12))},
    }


def _asked(question, *given, **keywords) -> list[Result]:
    """The result of a question, none where it has no answer: here only what is answered counts."""
    try:
        return [question(*given, **keywords)]
    except SubspaceError:
        return []


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[Result]:
    """Every question asked of adapters of all formats that the tests write, and of odd ones."""
    folder = tmp_path_factory.mktemp("wild")
    sources = [wild_adapters.wild(name, folder / name).path for name in wild_adapters.WRITERS]
    sources += _odd().values()
    found = []
    for n, source in enumerate(sources):
        found += _asked(subspace.inspect, source)
        found += _asked(subspace.truncate, source, rank=1)
        found += _asked(subspace.convert, source, to=written_formats()[n % 4], scale=0.5)
        found += _asked(subspace.compare, source, source, side="all")
    for one in _odd().values():
        found += _asked(subspace.track, {1: one, 2: one}, by="module")
        for other in _odd().values():
            found += _asked(subspace.compare, one, other, side="all", init=_odd()["untrained"])
            found += _asked(subspace.merge, [one, other], [1.0, -1.0], scale=1.0)
        for W in (np.zeros((10, 12)), np.eye(10, 12), np.ones((10, 12))):
            found += _asked(subspace.align, {"q.weight": W}, one, k=2, scale=1.0)
            found += _asked(subspace.amplify, {"q.weight": W}, one, ranks=[1, 6], scale=1.0)
            found += _asked(subspace.explain, one, base={"q.weight": W}, heads=[2], scale=1.0)
            found += _asked(subspace.intruders, {"q.weight": W}, one, side="both", scale=1.0)
            found += _asked(subspace.spectrum, one, base={"q.weight": W, "v.weight": W})
            found += _asked(subspace.visibility, {"q.weight": W, "v.weight": W}, one, scale=1.0)
            found += _asked(subspace.compare, {"q.weight": W, "v.weight": W}, one, side="all")
            found += _asked(subspace.inspect, one, base={"q.weight": W, "v.weight": W})
    return found


def _own_columns(result: Result) -> set[str]:
    return {each.name for each in result.ROW.COLUMNS}


def _ranks(result: Result) -> list:
    """The rows inside rows of `amplify`."""
    return [rank for row in result.modules for rank in getattr(row, "ranks", ())]


def test_every_question_was_asked_and_answered(results):
    assert {type(result).__name__ for result in results} == {
        "Alignment", "Amplification", "Comparison", "Conversion", "Explanation", "Inspection", "Intruders",
        "Merging", "Spectrum", "Track", "Truncation", "Visibility",
    }  # fmt: skip


def test_results_carry_declared_flags_only(results):
    rows = [row for result in results for row in (*result.modules, *_ranks(result))]
    flags = [flag for row in rows for flag in getattr(row, "flags", ())]
    assert all(type(flag) is Flag for flag in flags), {flag for flag in flags if type(flag) is not Flag}
    # the adapters above are many enough for this to mean something
    assert len(set(flags)) > 20, sorted(set(flags))


def test_records_and_csv_have_declared_columns_only(results):
    for result in results:
        declared = _own_columns(result) | {each.name for rank in _ranks(result)[:1] for each in rank.COLUMNS}
        declared |= {
            f"{name.removesuffix('s')}_{key}"
            for row in result.modules for name in _own_columns(result) if isinstance(getattr(row, name, None), Mapping)
            for key in getattr(row, name)
        }  # fmt: skip
        records = result.records()
        assert {name for record in records for name in record} <= declared
        assert set(next(csv.reader(io.StringIO(result.to_csv())), ())) <= declared
        assert set(result.columns()) <= declared


def test_json_has_declared_columns_only(results):
    for result in results:
        if "modules" not in result.document():  # of `track`, whose document has trajectories and no rows
            continue
        for row, large in zip(result.document()["modules"], result.modules, strict=True):
            assert set(row) <= _own_columns(result)
            assert set(large.document(grid=True)) <= _own_columns(result) | {"chance"}  # phi of random spans
            for rank, own in zip(row.get("ranks", ()), getattr(large, "ranks", ()), strict=True):
                assert set(rank) <= {each.name for each in own.COLUMNS}


def _one_of_each(results: list[Result]) -> list[Result]:
    return list({type(result): result for result in results}.values())


def test_tables_are_headed_by_the_declared_labels(results):
    from rich.console import Console

    for result in _one_of_each(results):
        columns = result.table_columns()
        console = Console(width=1000, file=io.StringIO(), color_system=None)
        terminal.draw(columns, [["x"] * len(columns)], console)
        drawn = console.file.getvalue()
        for each in columns:
            assert all(word in drawn for word in terminal._header(each.label).split()), each.label
        shown = html.unescape(result._repr_html_())
        for each in columns:
            assert f'<th title="{described(each)}">{each.label}</th>' in shown


def test_docstrings_have_the_declared_meanings(results):
    for result in _one_of_each(results):
        for row in {type(row) for row in (*result.modules, *_ranks(result))}:
            for each in row.COLUMNS:
                assert f"\n    {each.name} : {described(each)}\n" in row.__doc__


def test_the_glossary_is_that_of_the_declarations(results):
    text = (_ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    assert text == glossary.updated(text), "run python -m subspace.results.glossary"
    for result in _one_of_each(results):
        for each in (
            *result.ROW.COLUMNS,
            *(column for rank in _ranks(result)[:1] for column in rank.COLUMNS),
        ):
            assert f"\n| `{each.name}`" in text, each.name
    for flag in Flag:
        assert f"\n| `{flag}` | {flag.meaning} |" in text, flag


def test_what_the_glossary_explains_by_hand_is_named_as_declared():
    text = (_ROOT / "docs/glossary.md").read_text(encoding="utf-8").split(glossary.BEGIN)[0]
    for name in ("phi_full", "times_chance", "z_full", "shared_dim", "chance_full"):
        assert f"`{name}`" in text


@pytest.mark.parametrize("flag", Flag)
def test_every_flag_is_attached_somewhere_and_says_what_it_means(flag):
    assert any(f"Flag.{flag.name}" in path.read_text(encoding="utf-8") for path in _SOURCES)
    assert flag.meaning and not flag.meaning.endswith(".") and flag.value == flag.name.lower()
    notes = flag_notes({"q": (flag,)})
    assert bool(notes) == flag.warns
    assert all(flag.meaning in note and flag.cure in note for note in notes)


# --- no flag as a word, and no decision by a sentence


def _parsed():
    for path in _SOURCES:
        yield path, list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def _words(node: ast.AST) -> set[str]:
    return {
        each.value
        for each in ast.walk(node)
        if isinstance(each, ast.Constant) and isinstance(each.value, str)
    }


def _mentions(node: ast.AST, names: set[str]) -> bool:
    """Whether an expression has a variable or an attribute of one of these names."""
    return any(
        (isinstance(each, ast.Name) and each.id in names)
        or (isinstance(each, ast.Attribute) and each.attr in names)
        for each in ast.walk(node)
    )


def test_flags_are_never_written_as_words():
    values = {flag.value for flag in Flag}
    for path, nodes in _parsed():
        for node in nodes:
            asked = isinstance(node, ast.Compare) and _mentions(node, {"flags"})
            joined = isinstance(node, ast.BinOp) and _mentions(node, {"flags"})
            assert not ((asked or joined) and _words(node) & values), f"{path}:{node.lineno}"


def test_no_decision_is_made_by_an_english_sentence():
    sentences = {"note", "notes", "why", "reason", "reasons", "warning", "warnings"}
    tests = {"startswith", "endswith", "find", "index", "count", "search", "match", "fullmatch"}
    for path, nodes in _parsed():
        for node in nodes:
            called = (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in tests
            )
            if (isinstance(node, ast.Compare) and _mentions(node, sentences)) or (
                called and _mentions(node.func.value, sentences)
            ):
                assert not any(" " in word.strip() for word in _words(node)), f"{path}:{node.lineno}"
