"""The format of a file by its content: tables under any name, any separator, and texts that stay texts."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subspace.errors import FormatError
from subspace.training.data import read_examples

NSMC = (
    "id\tdocument\tlabel\n"
    '9976970\t아 더빙.. 진짜 짜증나네요 "목소리\t0\n'
    '3819312\t""흠...포스터보고 초딩영화줄\t1\n'
    "9045019\t교도소 이야기구먼 ..솔직히, 재미는; 없다'\t0\n"
)
TEXTS = (
    '아 더빙.. 진짜 짜증나네요 "목소리',
    '""흠...포스터보고 초딩영화줄',
    "교도소 이야기구먼 ..솔직히, 재미는; 없다'",
)


@pytest.fixture
def file(tmp_path):
    def made(name, content):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return made


@pytest.mark.parametrize("name", ["ratings_train.txt", "ratings_train", "ratings.dat", "ratings.txt.gz"])
def test_nsmc_under_its_own_name(file, name):
    raw = NSMC.encode()
    path = file(name, gzip.compress(raw) if name.endswith(".gz") else raw)
    examples = read_examples(path)
    assert (examples.texts, examples.labels, examples.label_names) == (TEXTS, (0, 1, 0), ("0", "1"))
    assert examples.notes == (f"{path} is a table separated by tabs, and is read as one",)
    assert read_examples(path, labels=False).texts == TEXTS


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.txt"])
def test_any_separator_under_any_name(file, name, separator):
    stream = io.StringIO(newline="")
    rows = [("id", "text", "label"), (1, 'so "good", yes; really', "a"), (2, "so\nbad\tthen", "b")]
    csv.writer(stream, delimiter=separator).writerows(rows)
    examples = read_examples(file(name, stream.getvalue()))
    assert examples.texts == ('so "good", yes; really', "so\nbad\tthen")
    assert examples.label_names == ("a", "b")


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_semicolons_as_excel_writes_them_in_europe(file, ends):
    path = file("x.csv", ends.join(["\ufeffText;Label", '"gut; und ""schön"""; 1,0', "schlecht;2,5", ""]))
    examples = read_examples(path, labels=False)
    assert examples.texts == ('gut; und "schön"', "schlecht")
    assert examples.notes == (f"{path} is separated by semicolons",)
    stated = file("y.csv", ends.join(["sep=;", "text;label", "a, b;x", "c;y;z"]))
    with pytest.raises(
        FormatError, match=r"This row has 3 columns and the header 2, in .* line 4; quote a text"
    ):
        read_examples(stated)
    assert read_examples(file("z.csv", ends.join(["sep=|", "text|label", "a, b|x", "c|y"]))).texts == (
        "a, b",
        "c",
    )


def test_a_row_between_semicolons_that_does_not_fit(file):
    with pytest.raises(
        FormatError, match=r"row has 3 columns and the header 2, in .* line 2; quote a text .* semicolon"
    ):
        read_examples(file("x.csv", "text;label\nso; good;1\nso bad;0\n"))


def test_commas_in_a_file_of_commas_stay_separators(file):
    examples = read_examples(file("x.csv", "text,a;b\nso good,1;2\n"))
    assert (examples.texts, examples.notes[:1]) == (("so good",), ("no column with labels was recognised among a;b, "
                                                                   "so the examples have none",))  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "Once upon a time,\nthere was\ta king.\n\n\tHe had\t\ttwo sons,\nand a daughter.\n",
        "text\n\nThis is about a text.\n",
        "text, label\n",  # nothing but a header
        "Text, review and comment\nare words,\nas is, well, content.\n",
        "a\rb, text\nc\n",
        "def f(text, label):\n    return text, label\n",
        '{"a": 1}\n',
        '{\n  "text": "pretty"\n}\n',
        "word",
    ],
)
def test_a_text_stays_a_text(file, text):
    examples = read_examples(file("x.txt", text))
    assert examples.texts == (text,)
    assert all("read as plain text" in note for note in examples.notes)


prose = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), min_size=1)


@given(prose.filter(str.strip))
def test_any_text_is_read(text):
    from subspace.training.data.recognise import recognised

    found = recognised(text, "x.txt")
    assert found.table is None or found.notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\tb\nso good\t1\nso bad\t0\n", r"looks like a table separated by tabs, .* plain text, .* \(a, b\)"),
        ("so good\t1\nso bad\t0\nwell\t1\n", r"names no column that is known to hold texts \(so good, 1\); name one"),
        ("v1;v2\nham;a\nspam;b\n", "separated by semicolons, and is read as plain text"),
        ("v1,v2\nham,a\nspam,b\n", "separated by commas, and is read as plain text"),
        ("text\tlabel\na\t0\nb\t1\nc\t1\nd\n", "plain text, for only 75% of its rows have as many columns"),
        ('{"a": "b"}\n{"a": "c"}\n', "looks like JSON Lines, and is read as plain text: No column with texts"),
        ('{"text": "b"}\n{"text"\n', "looks like JSON Lines, and is read as plain text: Invalid JSON"),
    ],
)  # fmt: skip
def test_what_might_be_a_table_is_named(file, text, message):
    examples = read_examples(file("x.txt", text))
    assert examples.texts == (text,)
    (note,) = examples.notes
    assert re.search(message, note)


def test_a_column_that_is_named_makes_it_a_table(file):
    path = file("x.txt", "v1\tv2\nham\tso good\nspam\tso bad\n")
    examples = read_examples(path, text_column="v2", label_column="v1")
    assert (examples.texts, examples.label_names) == (("so good", "so bad"), ("ham", "spam"))
    with pytest.raises(FormatError, match="Plain text has no columns, and the columns v3, v1 were named"):
        read_examples(path, text_column="v3", label_column="v1")


def test_json_lines_under_any_name(file):
    path = file("x.txt", "".join(json.dumps({"text": t, "label": n}) + "\n" for n, t in enumerate(TEXTS)))
    assert read_examples(path).texts == TEXTS
    assert read_examples(path).notes == (f"{path} is JSON Lines, and is read as such",)


def test_a_row_that_does_not_fit_is_an_error_and_not_a_text(file):
    rows = "".join(f"{n}\ttext {n}\t{n % 2}\n" for n in range(30))
    with pytest.raises(FormatError, match=r"This row has 4 columns and the header 3, in .*x\.txt line 32"):
        read_examples(file("x.txt", f"id\tdocument\tlabel\n{rows}31\ta\tb\t1\n"))


def test_quotes_between_tabs_are_read_only_where_the_rows_need_it(file):
    needed = read_examples(file("x.tsv", 'text\tlabel\n"a\tb"\t0\n"say ""so"""\t1\n'))
    assert needed.texts == ("a\tb", 'say "so"')
    kept = read_examples(file("y.tsv", 'text\tlabel\n"a b"\t0\n"say ""so"""\t1\n'))
    assert kept.texts == ('"a b"', '"say ""so"""')


def test_tables_in_a_folder_of_texts_are_named(tmp_path, file):
    file("ratings.txt", NSMC)
    file("book.txt", "Once upon a time")
    (note,) = read_examples(tmp_path).notes
    assert note.startswith("files that look like tables are read as plain text: ratings.txt; give the path")


def test_a_folder_of_tables_says_which_there_are(tmp_path, file):
    file("part-0.parquet", b"")
    with pytest.raises(
        FormatError, match=r"1 entries \(tables: part-0\.parquet\); give the path of a file, of"
    ):
        read_examples(tmp_path)
