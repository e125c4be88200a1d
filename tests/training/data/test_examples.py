"""Every format read back, NSMC as it lies on disk, the lines that notes and errors name, and files that are no data."""

import bz2
import csv
import gzip
import hashlib
import importlib
import io
import json
import os
import types
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subspace.errors import FileError, FormatError, UnsafeFileError
from subspace.training.data import Examples, documentation, read_examples
from subspace.training.data.delimited import csv_table
from subspace.training.data.jsonrows import json_table, jsonl_table

TEXTS = ("so good", 'so "bad"', "caf\u00e9, \ud55c\uad6d\uc5b4 \U0001f600", "plain")
LABELS = ("pos", "neg", "neg", "pos")
NSMC = (
    "id\tdocument\tlabel\n"
    '9976970\t아 더빙.. 진짜 짜증나네요 "목소리\t0\n'
    '3819312\t""흠...포스터보고 초딩영화줄\t1\n'
    "10265843\t\t0\n"
    "9045019\t교도소 이야기구먼 ..솔직히 재미는 없다'\t0\n"
)


@pytest.fixture
def file(tmp_path):
    """A file of that name with that content, packed as its name says."""

    def made(name, content):
        data = content.encode() if isinstance(content, str) else content
        pack = {".gz": gzip.compress, ".bz2": bz2.compress}.get(Path(name).suffix.lower(), bytes)
        path = tmp_path / name
        path.write_bytes(pack(data))
        return path

    return made


def rows():
    return [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]


def quoted():
    return "text,label\n" + "".join(
        f'"{t.replace(chr(34), 2 * chr(34))}",{n}\n' for t, n in zip(TEXTS, LABELS, strict=True)
    )


def contents():
    lines = "".join(json.dumps(row) + "\n" for row in rows())
    tabs = "text\tlabel\n" + "".join(f"{t}\t{n}\n" for t, n in zip(TEXTS, LABELS, strict=True))
    return {
        "x.jsonl": lines, "x.NDJSON": lines, "x.json": json.dumps(rows(), indent=1), "y.json": lines,
        "x.csv": quoted(), "x.tsv": tabs, "x.JSONL.GZ": lines, "x.csv.gz": quoted(), "x.tsv.bz2": tabs,
    }  # fmt: skip


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["no mark", "byte order mark"])
@pytest.mark.parametrize("ends", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("name", contents())
def test_every_format_reads_the_same(file, name, ends, mark):
    path = file(name, mark + contents()[name].encode().replace(b"\n", ends))
    examples = read_examples(path)
    assert examples.texts == TEXTS
    assert examples.label_names == ("neg", "pos")
    assert examples.labels == (1, 0, 0, 1)
    assert examples.notes == ()
    assert examples.path == str(path)
    assert examples.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert examples.summary() == "4 examples, 2 classes (neg 2, pos 2)"


def test_old_mac_line_ends(file):
    for name in ("x.csv", "x.tsv", "x.jsonl"):
        assert read_examples(file(name, contents()[name].replace("\n", "\r"))).texts == TEXTS


def test_nsmc_as_it_is(file):
    examples = read_examples(file("ratings_train.tsv", NSMC))
    assert examples.texts == (
        '아 더빙.. 진짜 짜증나네요 "목소리',
        '""흠...포스터보고 초딩영화줄',
        "교도소 이야기구먼 ..솔직히 재미는 없다'",
    )
    assert examples.labels == (0, 1, 0)
    assert examples.label_names == ("0", "1")
    assert examples.notes == ("1 row without a text was left out: line 4",)


cells = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)


@given(st.lists(st.tuples(cells, cells), min_size=1))
def test_csv_as_the_standard_library_writes_it(pairs):
    stream = io.StringIO(newline="")
    csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *pairs])
    table = csv_table(stream.getvalue(), "x.csv")
    assert [tuple(row.values()) for _, row in table.rows] == pairs


@given(st.lists(st.dictionaries(cells, cells)))
def test_json_as_the_standard_library_writes_it(written):
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in written)
    assert [row for _, row in jsonl_table(lines, "x.jsonl").rows] == written
    assert [row for _, row in json_table(json.dumps(written), "x.json").rows] == written


def test_what_only_some_call_a_line_end_is_text(file):
    text = "a\u2028b\x0bc\x85d"
    path = file("x.tsv", f"text\tlabel\n{text}\t0\nb\rc\t1\n")
    assert read_examples(path).texts == (text, "b\rc")
    assert read_examples(file("x.jsonl", json.dumps({"text": text}, ensure_ascii=False))).texts == (text,)


def test_a_field_longer_than_the_module_allows(file):
    before = csv.field_size_limit()
    path = file("x.csv", f"text\n{'x' * (before + 1)}\n")
    assert len(read_examples(path).texts[0]) == before + 1
    assert csv.field_size_limit() == before


def test_plain_text_is_one_example_as_it_is(file):
    examples = read_examples(file("book.txt", "\ufeffone\r\n\r\ntwo\r\n"))
    assert examples.texts == ("one\r\n\r\ntwo\r\n",)
    assert (examples.labels, examples.label_names, examples.notes) == (None, (), ())
    assert examples.summary() == "12 bytes of text"
    assert read_examples(file("README", "x")).texts == ("x",)
    assert read_examples(file("book.md.gz", "x")).texts == ("x",)


def test_a_folder_of_texts(tmp_path, file):
    file("b.txt", "second")
    file("a.TXT.gz", "first")
    file("c.txt", " \n")
    file("._a.txt", b"\0")
    file("notes.md", "no")
    examples = read_examples(tmp_path)
    assert examples.texts == ("first", "second")
    assert examples.notes == ("files without a text were left out: c.txt",)
    raw = b"".join((tmp_path / name).read_bytes() for name in ("a.TXT.gz", "b.txt", "c.txt"))
    assert examples.sha256 == hashlib.sha256(raw).hexdigest()
    assert examples.summary() == "2 examples without labels, 11 bytes of text"


def test_columns_in_order_of_their_names_or_as_told(file):
    path = file("x.csv", "comment,review,class,target,id\na,b,c,d,e\nf,g,h,i,j\n")
    assert read_examples(path).texts == ("b", "g")
    assert read_examples(path).label_names == ("d", "i")
    told = read_examples(path, text_column="id", label_column="class")
    assert (told.texts, told.label_names) == (("e", "j"), ("c", "h"))


def test_a_chosen_column_is_not_taken_for_the_other(file):
    path = file("x.csv", "text,label,content\na,b,c\nd,e,f\n")
    assert read_examples(path, label_column="text").texts == ("c", "f")
    assert read_examples(path, text_column="label").labels is None


def test_columns_that_differ_in_case(file):
    examples = read_examples(file("x.csv", "Text, Label\na,b\nc,d\n"))
    assert (examples.texts, examples.label_names) == (("a", "c"), ("b", "d"))


def test_no_labels(file):
    examples = read_examples(file("x.csv", "id,text\n1,a\n2,b\n"))
    assert (examples.texts, examples.labels, examples.label_names) == (("a", "b"), None, ())
    assert examples.notes == ("no column with labels was recognised among id, so the examples have none",)
    assert read_examples(file("y.csv", "text\na\n")).notes == ()
    empty = read_examples(file("z.csv", "text,label\na,\nb,\n"))
    assert empty.labels is None
    assert empty.notes == ("the column label is empty, so the examples have no labels",)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"prompt": "2+2?", "completion": "4"}, "2+2?\n4"),
        ({"prompt": "", "completion": "4"}, "4"),
        ({"instruction": "add", "response": "4"}, "add\n4"),
        ({"instruction": "add", "input": "2 2", "output": "4"}, "add\n2 2\n4"),
        ({"instruction": "add", "input": "", "output": "4"}, "add\n4"),
    ],
)
def test_questions_and_answers_are_joined(file, row, text):
    examples = read_examples(file("x.jsonl", json.dumps(row)))
    assert examples.texts == (text,)
    assert examples.notes == (f"{' and '.join(row)} are joined by line breaks",)


def test_a_question_without_an_answer_is_left_out(file):
    path = file(
        "x.jsonl", '{"prompt": "a", "completion": "b"}\n{"prompt": "a"}\n{"prompt": "a", "completion": " "}\n'
    )
    assert read_examples(path).notes[1] == "2 rows without a text were left out: lines 2, 3"


def test_prompts_and_completions_of_any_table(file):
    lines = '{"prompt": "2+2?", "completion": "4"}\n{"prompt": "", "completion": "b"}\n'
    for path in (file("x.jsonl", lines), file("x.csv", "completion,Prompt\n4,2+2?\nb,\n")):
        examples = read_examples(path)
        assert examples.texts == ("2+2?\n4", "b")
        assert examples.prompts == ("2+2?\n", "")
        assert [t.removeprefix(p) for t, p in zip(examples.texts, examples.prompts, strict=True)] == [
            "4",
            "b",
        ]
        assert (examples.labels, examples.messages, examples.seconds) == (None, None, None)


@pytest.mark.parametrize(
    ("header", "prompt"),
    [
        ("instruction,input,output", "a\nb\n"),
        ("question,answer", "a\n"),
        ("input,output", "a\n"),
        ("prompt,response", "a\n"),
    ],
)
def test_the_names_of_prompts_and_completions(file, header, prompt):
    row = ",".join("abc"[: header.count(",")]) + ",end"
    examples = read_examples(file("x.csv", f"{header}\n{row}\n"))
    assert (examples.prompts, examples.texts) == ((prompt,), (f"{prompt}end",))


@pytest.mark.parametrize(
    "turns",
    [
        [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}],
        [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}],
    ],
)
@pytest.mark.parametrize("column", ["messages", "conversations", "chat"])
def test_conversations(file, turns, column):
    lines = json.dumps({column: turns, "id": 1}) + "\n" + json.dumps({column: []}) + "\n"
    examples = read_examples(file("x.jsonl", lines), text_column=column if column == "chat" else None)
    assert examples.messages == (
        ({"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}),
    )
    assert examples.texts == ("2+2?\n4",)
    assert "1 row without a text was left out: line 2" in examples.notes


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([{"role": "user", "content": "a"}, "b"], "A text is a list with a string"),
        ([{"content": "a"}], "a turn that has no role"),
        ([{"role": "user", "content": 5}], "a turn whose content is the number 5"),
    ],
)
def test_turns_that_are_none(file, turns, message):
    with pytest.raises(FormatError, match=message):
        read_examples(file("x.jsonl", json.dumps({"messages": turns})))


@pytest.mark.parametrize(
    ("labels", "names", "indices"),
    [
        ("[10, 9, 10]", ("9", "10"), (1, 0, 1)),
        ('["10", 9, "10.0"]', ("9", "10"), (1, 0, 1)),
        ("[1.0, 0.0, -1]", ("-1", "0", "1"), (2, 1, 0)),
        ("[true, false, true]", ("false", "true"), (1, 0, 1)),
        ('["b", "10", " 9 "]', ("10", "9", "b"), (2, 0, 1)),
    ],
)
def test_labels_of_every_type(file, labels, names, indices):
    lines = "".join(json.dumps({"text": "a", "label": label}) + "\n" for label in json.loads(labels))
    examples = read_examples(file("x.jsonl", lines), unlabelled="keep")
    assert (examples.label_names, examples.labels) == (names, indices)


def test_rows_left_out_are_counted_and_placed(file):
    blank = "".join(f"{i % 2},{' ' * (i % 3)}\n" for i in range(7))
    path = file("x.csv", f'label,text\n0,"two\nlines"\n\n,c\n1,b\n{blank}')
    examples = read_examples(path, unlabelled="drop")
    assert examples.texts == ("two\nlines", "b")
    assert examples.notes == (
        "7 rows without a text were left out: lines 7, 8, 9, 10, 11 and 2 more",
        f"1 row without a label was left out (empty in 1 row): {path} line 5",
    )


def test_a_missing_text_in_json_is_left_out(file):
    lines = (
        '{"text": "a", "label": 0}\n{"label": 0}\n{"text": null, "label": 0}\n'
        '{"text": "b", "label": 1}\n{"text": "c"}\n'
    )
    path = file("x.jsonl", lines)
    examples = read_examples(path, unlabelled="drop")
    assert examples.texts == ("a", "b")
    assert examples.notes == (
        "2 rows without a text were left out: lines 2, 3",
        f"1 row without a label was left out (empty in 1 row): {path} line 5",
    )
    listed = file("x.json", "[" + ",".join(lines.splitlines()) + "]")
    assert read_examples(listed, unlabelled="drop").notes[0].endswith("items 2, 3")


BROKEN = [
    ("x.csv", "text,label\na,0\n\"b\nb\",1\nc\n", r"row has 1 column and the header 2, in .*x\.csv line 5; quote"),
    ("x.csv", "text,label\n\n\na,b,c\n", "row has 3 columns and the header 2, in .* line 4"),
    ("x.tsv", "id\ttext\tlabel\n1\ta\t0\n2\tb\n", r"header 3, in .*x\.tsv line 3; a text between tabs"),
    ("x.csv", 'text,label\na,0\n"b,1\nc,0\n', "quotes of this CSV do not match: .*, in .* line 3 or the lines"),
    ("x.csv", 'text,label\na,0\n"b"b,1\n', "quotes of this CSV do not match: .*, in .* line 3"),
    ("x.csv", "v1,v2\nham,a\n", "it has the columns v1, v2, .*; rename it to text, or name it with `text_column`"),
    ("x.csv", "text,text,label\na,b,0\n", "The column text is there 2 times"),
    ("x.csv", "text,label,label\na,0,0\n", "The column label is there 2 times.* give another `label_column`"),
    ("x.csv", "a\x1b[31m,b\n1,2\n", r"it has the columns a\\x1b\[31m, b"),
    ("x.csv", "", "No example in"),
    ("x.csv", "text,label\n", "No example in"),
    ("x.tsv", "\n\n", "No example in"),
    ("x.jsonl", "\n \n", "No example in"),
    ("x.json", "[]", "No example in"),
    ("x.csv", "text,label\n ,0\n,1\n", "No example in .*: 2 rows without a text were left out: lines 2, 3;"),
    ("x.csv", "text,label\na,0\nb,0\n", "at least two classes, and all labels are 0, in the column label of"),
    ("x.csv", "text,label\na,0.5\nb,0\n", r"A label is the number 0\.5 and not a class, in .* line 2"),
    ("x.jsonl", '{"text": "a", "label": 0}\n\n{"text": "b", "label": 0.25}\n', r"the number 0\.25 .*, in .* line 3"),
    ("x.jsonl", '{"text": "a", "label": [0]}\n', "A label is a list and not a class, in .* line 1"),
    ("x.jsonl", '{"text": "a", "label": {}}\n', "A label is an object and not a class"),
    ("x.jsonl", '{"text": "a"}\n{"text": 5}\n', "A text is the number 5 and not a string, in .* line 2"),
    ("x.jsonl", '{"text": true}\n', "A text is true or false and not a string"),
    ("x.jsonl", '{"prompt": "a", "completion": ["b"]}\n', "A text is a list and not a string"),
    ("x.jsonl", '{"text": "a"}\n{"text": \n', r"Invalid JSON: .*, in .*x\.jsonl line 2; write"),
    ("x.jsonl", '{"text": "a", "text": "b"}\n', "the key text appears twice, in .* line 1"),
    ("x.jsonl", '{"text": "a", "label": NaN}\n', "NaN is not a JSON number, in .* line 1"),
    ("x.jsonl", '{"text": "\\ud800"}\n', "half of a surrogate pair, in .* line 1"),
    ("x.jsonl", "[" * 100_000, "nested too deeply, in .* line 1"),
    ("x.jsonl", '{"text": "a"}\n["text"]\n', "A row is a list and not a JSON object, in .* line 2"),
    ("x.jsonl", "null\n", "A row is null and not"),
    ("x.json", '[{"text": "a"}, "b"]', "A row is a string and not a JSON object, in .* item 2"),
    ("x.json", '[{"text": "a"}, ', "Invalid JSON"),
    ("x.json", '{"data": []}', "it has the columns data"),
    ("x.txt", " \n", "The text is empty or blank"),
    ("x.txt", "a\0b", "looks binary: a NUL byte at offset 1, in .* line 1"),
    ("x.tsv", "text\tlabel\na\t0\nb\0\t1\n", "a NUL byte at offset 16, in .* line 3"),
    ("x.txt", "one\ncaf\u00e9".encode("latin1"), "byte 0xE9 at offset 7, in .* line 2; .* -f LATIN1 -t UTF-8"),
    ("x.csv.gz", "\ufeffcaf\u00e9".encode() + b"\xff", "the byte 0xFF at offset 8"),
    ("x.txt", b"\xed\xa0\x80", "the byte 0xED at offset 0"),
    ("x.csv", "text".encode("utf-16"), "the byte order mark of UTF-16, in .*; convert it by iconv -f UTF-16"),
    ("x.csv", "text".encode("utf-32"), "the byte order mark of UTF-32"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), BROKEN)
def test_what_is_no_data_is_an_error_in_one_line(file, name, content, message):
    with pytest.raises(FormatError, match=message) as caught:
        read_examples(file(name, content))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("x.csv", "text,label\na,0\n", {"text_column": "txt"}, "called 'txt' in .*: it has the columns text, label"),
        ("x.csv", "text\na\n", {"label_column": "y"}, "No column called 'y' .* check `label_column`"),
        ("x.csv", "text\na\n", {"text_column": "text", "label_column": "text"}, "text cannot be both text and label"),
        ("x.csv", "text,y\na,\n", {"label_column": "y"}, "missing in 1 of 1 rows: empty in 1 row, in the column y"),
        ("x.txt", "a", {"text_column": "text"}, "Plain text has no columns, and the column text was named.*.jsonl"),
        ("x.txt", "a", {"label_column": "y"}, "the column y was named"),
    ],
)  # fmt: skip
def test_columns_that_cannot_be(file, name, content, options, message):
    with pytest.raises(FormatError, match=message):
        read_examples(file(name, content), **options)


@pytest.mark.parametrize("name", ["x.csv.gz", "x.csv.bz2"])
def test_compressed_files_that_are_damaged(tmp_path, file, name):
    path = file(name, "text,label\n" + "".join(f"{i**3},{i % 2}\n" for i in range(999)))
    whole = path.read_bytes()
    for damaged in (whole[:-20], b"text", whole[:60] + b"\xff" * 60 + whole[120:]):
        path.write_bytes(damaged)
        with pytest.raises(FileError, match=r"Cannot unpack .*x\.csv"):
            read_examples(path)


@pytest.mark.parametrize("name", ["x.txt", "x.txt.gz", "x.txt.bz2"])
def test_a_bomb_stops_at_the_limit(file, monkeypatch, name):
    monkeypatch.setattr("subspace.training.data.source.LIMIT", 3 * 2**20)
    with pytest.raises(UnsafeFileError, match="too large: more than 3145728 bytes, unpacked"):
        read_examples(file(name, b"a" * 2**23))


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX files")
def test_nothing_but_regular_files_and_folders(tmp_path):
    os.mkfifo(tmp_path / "fifo.csv")
    for path, reason in [("fifo.csv", "FIFO"), ("gone.tsv", "No such file"), ("a\0b", "no file can have")]:
        with pytest.raises(FileError, match=reason):
            read_examples(f"{tmp_path}/{path}")
    with pytest.raises(FormatError, match=r"No \.txt files in the folder .*, which has 1 entries"):
        read_examples(tmp_path)
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(FileError, match=r"Not a regular file: .*a\.txt is a directory"):
        read_examples(tmp_path)


def test_no_permission_and_a_broken_disk(file, monkeypatch):
    def denied(*_):
        raise PermissionError(13, "Permission denied")

    path = file("x.txt", "a")
    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", denied)
        with pytest.raises(FileError, match=r"Cannot read the folder .*: Permission denied"):
            read_examples(path.parent)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", denied)
        with pytest.raises(FileError, match="Permission denied"):
            read_examples(path)
    monkeypatch.setattr("subspace.training.data.source._whole", denied)
    with pytest.raises(FileError, match=r"Cannot read .*: Permission denied"):
        read_examples(path)


def test_a_summary_of_many_classes():
    names = tuple(f"c{i}" for i in range(8))
    labels = (0,) * 1200 + tuple(range(8))
    summary = Examples("x", ("a",) * len(labels), labels, names, (), "").summary()
    assert summary == "1,208 examples, 8 classes (c0 1,201, c1 1, c2 1, c3 1, c4 1, c5 1, 2 more)"


def test_texts_stay_out_of_the_repr():
    assert "secret" not in repr(Examples("x", ("secret",), None, (), (), ""))


def test_documentation_is_the_help_of_this_python():
    topics = importlib.import_module("pydoc_data.topics").topics
    examples = documentation()
    (text,) = examples.texts
    assert (examples.path, examples.labels, examples.label_names) == ("pydoc_data.topics", None, ())
    assert all(topic in text for topic in topics.values())
    assert examples.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert text.index(topics["assert"]) < text.index(topics["while"])


@pytest.mark.parametrize("topics", [None, {}, {"if": 1}, ["if"]])
def test_a_python_without_its_help(monkeypatch, topics):
    def imported(name):
        if topics is None:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return types.SimpleNamespace(topics=topics)

    monkeypatch.setattr("subspace.training.data.pydoc.import_module", imported)
    with pytest.raises(FileError, match=r"without its help topics: .*; use a Python from"):
        documentation()
