"""Pairs, prompts, conversations, labels that are missing, several files and Parquet."""

from __future__ import annotations

import hashlib
import json
import sys

import pytest

from subspace.errors import FileError, FormatError
from subspace.training.data import read_examples
from subspace.training.data.text_columns import _PAIRS


@pytest.fixture
def file(tmp_path):
    def made(name, content):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return made


@pytest.mark.parametrize("names", _PAIRS, ids="-".join)
@pytest.mark.parametrize("ends", [",", ";"])
def test_pairs_are_known_by_their_names(file, names, ends):
    first, second = names
    lines = [("idx", second, first, "label"), ("1", "b", "a", "x"), ("2", "d", "c", "y"), ("3", "", "e", "y")]
    path = file("x.csv", "".join(ends.join(line) + "\n" for line in lines))
    examples = read_examples(path)
    assert (examples.texts, examples.seconds, examples.labels) == (("a", "c"), ("b", "d"), (0, 1))
    assert f"{first} and {second} are read as pairs" in examples.notes
    assert "1 row without a text was left out: line 4" in examples.notes
    joined = read_examples(path, labels=False)
    assert (joined.texts, joined.seconds, joined.prompts) == (("a\nb", "c\nd"), None, None)


def test_one_text_column_comes_before_a_pair_that_it_is_no_part_of(file):
    path = file("x.csv", "text,sentence1,sentence2,label\na,b,c,0\nd,e,f,1\n")
    assert (read_examples(path).texts, read_examples(path).seconds) == (("a", "d"), None)


def test_columns_that_are_named_are_a_pair_or_a_prompt(file):
    path = file("x.csv", "frage,kontext,antwort,label\na,b,c,0\nd,,f,1\n")
    pair = read_examples(path, text_column=("frage", "antwort"))
    assert (pair.texts, pair.seconds) == (("a", "d"), ("c", "f"))
    asked = read_examples(path, text_column=("frage", "kontext", "antwort"), labels=False)
    assert (asked.texts, asked.prompts) == (("a\nb\nc", "d\nf"), ("a\nb\n", "d\n"))
    with pytest.raises(FormatError, match="No column called 'fragen'"):
        read_examples(path, text_column=("fragen", "antwort"))
    with pytest.raises(FormatError, match="antwort cannot be both text and label"):
        read_examples(path, text_column=("frage", "antwort"), label_column="antwort")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["0", "1", "-1", "-1"], r"missing in 2 of 4 rows: -1 in 2 rows, in the column label of .*x\.csv lines 4, 5"),
        (["a", "nan", "b", ""], "missing in 2 of 4 rows: nan in 1 row, empty in 1 row, .* lines 3, 5"),
        (["neg", "pos", "-1", "NaN"], "missing in 2 of 4 rows: -1 in 1 row, NaN in 1 row"),
        (["0", "1", "", "1"], "missing in 1 of 4 rows: empty in 1 row"),
        (["<NA>", "1", "0", "null"], "missing in 2 of 4 rows"),
        (["-1"] * 4, "missing in 4 of 4 rows: -1 in 4 rows.*line[^;]*; turn `labels` off"),
    ],
)  # fmt: skip
def test_labels_that_are_missing_are_refused(file, labels, message):
    path = file("x.csv", "text,label\n" + "".join(f"t{n},{label}\n" for n, label in enumerate(labels)))
    with pytest.raises(FormatError, match=message) as caught:
        read_examples(path)
    assert ("give `unlabelled` as drop" in str(caught.value)) == (len(set(labels)) > 1)
    if len(set(labels)) > 1:
        dropped = read_examples(path, unlabelled="drop")
        assert len(dropped.texts) == len(dropped.labels) < 4 and len(dropped.label_names) == 2
        assert "without a label" in dropped.notes[0]


def test_labels_that_look_missing_are_kept_on_demand(file):
    path = file("x.csv", "text,label\na,0\nb,-1\nc,1\nd,nan\n")
    assert read_examples(path, unlabelled="keep").label_names == ("-1", "0", "1", "nan")
    with pytest.raises(FormatError, match="missing in 1 of 2 rows: empty in 1 row"):
        read_examples(file("y.csv", "text,label\na,0\nb,\n"), unlabelled="keep")


def test_minus_one_is_the_opposite_of_one(file):
    for one in ("1", "+1"):
        examples = read_examples(file("x.csv", f"text,label\na,{one}\nb,-1\nc,{one}\n"))
        assert (examples.label_names, examples.labels) == (("-1", one), (1, 0, 1))


def test_several_files_are_read_as_one(file):
    paths = [
        file("neg.csv", "text,label\na,neg\n"),
        file("pos.tsv", "text\tlabel\n\tpos\nb\tpos\n"),
        file("more.jsonl", '{"text": "c", "label": "pos"}\n{"text": "", "label": "pos"}\n'),
    ]
    examples = read_examples(paths)
    assert (examples.texts, examples.labels, examples.label_names) == (
        ("a", "b", "c"),
        (0, 1, 1),
        ("neg", "pos"),
    )
    assert examples.notes == (f"1 row without a text was left out: line 2, in {paths[1]}, {paths[2]}",)
    digests = "\n".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)
    assert examples.sha256 == hashlib.sha256(digests.encode()).hexdigest()
    assert read_examples(paths[::-1]).sha256 != examples.sha256
    with pytest.raises(FormatError, match="at least two classes, and all labels are pos"):
        read_examples(paths[1:])


def test_a_note_on_all_files_is_given_once(file):
    paths = [file(f"{n}.csv", f"question,answer\n{n},a\n") for n in range(3)]
    assert read_examples(paths).notes == ("question and answer are joined by line breaks",)
    assert read_examples(paths).prompts == ("0\n", "1\n", "2\n")


def test_texts_of_several_files_stay_apart(file):
    paths = [file("a.txt", "ab"), file("b.txt", "c")]
    assert read_examples(paths).texts == ("ab", "c")
    moved = [file("a.txt", "a"), file("b.txt", "bc")]
    assert read_examples(moved).sha256 != read_examples([file("a.txt", "ab"), file("b.txt", "c")]).sha256


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("text\nb\n", "has texts with labels, and .* has texts without labels; give files of one kind"),
        ("sentence1,sentence2,label\nb,c,0\n", "and .* has pairs of texts with labels"),
        ("prompt,completion\nb,c\n", "and .* has prompts and completions without labels"),
    ],
)  # fmt: skip
def test_files_of_several_kinds_are_refused(file, other, message):
    paths = [file("a.csv", "text,label\na,0\nb,1\n"), file("b.csv", other)]
    with pytest.raises(FormatError, match=message):
        read_examples(paths)


def _saved(folder, **columns):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    features = {name: datasets.Value("string") for name in columns}
    if "label" in columns:
        features["label"] = datasets.ClassLabel(names=["neg", "pos"])
    data = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    data.save_to_disk(str(folder / "one"))
    datasets.DatasetDict({"train": data, "test": data}).save_to_disk(str(folder / "several"))
    data.to_parquet(str(folder / "x.parquet"))
    return data


def test_parquet_and_saved_data_sets_read_the_same(tmp_path):
    _saved(tmp_path, text=["a", "b", None, "c"], label=[1, 0, 1, 0])
    paths = [tmp_path / name for name in ("one", "several/train", "x.parquet")]
    for path in paths:
        examples = read_examples(path)
        assert (examples.texts, examples.labels, examples.label_names) == (
            ("a", "b", "c"),
            (1, 0, 0),
            ("neg", "pos"),
        )
        assert examples.notes == ("1 row without a text was left out: row 3",)
    assert read_examples(paths).texts == ("a", "b", "c") * 3
    assert len({read_examples(path).sha256 for path in paths}) >= 2
    with pytest.raises(FormatError, match=r"several data sets: test, train, in .*; give the path .*test"):
        read_examples(tmp_path / "several")


def test_a_saved_data_set_whose_labels_are_kept_secret(tmp_path):
    _saved(tmp_path, text=["a", "b", "c"], label=[1, 0, -1])
    for name in ("one", "x.parquet"):
        with pytest.raises(FormatError, match=r"missing in 1 of 3 rows: -1 in 1 row, .* row 3; give"):
            read_examples(tmp_path / name)


def test_the_digest_of_a_saved_data_set_covers_its_files(tmp_path):
    _saved(tmp_path, text=["a", "b"])
    before = read_examples(tmp_path / "one")
    _saved(tmp_path, text=["a", "c"])
    after = read_examples(tmp_path / "one")
    assert (before.texts, after.texts) == (("a", "b"), ("a", "c"))
    assert before.sha256 != after.sha256


def test_parquet_that_pandas_wrote(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    pandas.DataFrame({"text": ["a", None, "b", "c"], "label": [1.0, 0.0, 0.0, float("nan")]}).to_parquet(
        tmp_path / "x.pq"
    )
    examples = read_examples(tmp_path / "x.pq", unlabelled="drop")
    assert (examples.texts, examples.label_names) == (("a", "b"), ("0", "1"))
    pandas.DataFrame({"messages": [turns]}).to_parquet(tmp_path / "y.parquet")
    assert read_examples(tmp_path / "y.parquet").messages == (tuple(turns),)


def test_what_is_no_parquet_and_no_saved_data_set(tmp_path):
    _saved(tmp_path, text=["a"])
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(FormatError, match=r"Cannot read this Parquet file: .*, in .*bad\.parquet") as caught:
        read_examples(tmp_path / "bad.parquet")
    assert str(caught.value).isprintable()
    (arrow,) = (tmp_path / "one").glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:100])
    with pytest.raises(FormatError, match=r"Cannot read this data set: .*; save it again"):
        read_examples(tmp_path / "one")


@pytest.mark.parametrize(("name", "package"), [("x.parquet", "pyarrow"), ("one", "datasets")])
def test_without_the_library_the_error_names_the_extra(tmp_path, monkeypatch, name, package):
    (tmp_path / "one").mkdir()
    for json_name in ("state.json", "dataset_info.json"):
        (tmp_path / "one" / json_name).write_text(json.dumps({}))
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "pyarrow.parquet", raising=False)
    with pytest.raises(
        FileError, match=rf"package {package} is not installed.*; pip install 'lora-subspace\[data\]'"
    ):
        read_examples(tmp_path / name)
