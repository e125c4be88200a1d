"""The options of ``subspace train`` that say which data, as a shell and a user give them."""

from __future__ import annotations

import pytest
from tiny_models import TEXTS, tiny

_QUICK = ("--steps", "1", "--batch", "2", "--length", "16", "--threads", "1", "--no-accounts")


def test_what_a_shell_makes_of_a_pattern(run, tmp_path):
    paths = [tmp_path / f"part-{n}.txt" for n in range(3)]
    for path, text in zip(paths, TEXTS, strict=True):
        path.write_text(text * 3, encoding="utf-8")
    several = [word for path in paths for word in ("--data", path)]
    for n, words in enumerate([["--data", *paths], several, ["--data", tmp_path / "part-*.txt"]]):
        done = run("train", *_QUICK, *words, "--held-out-data", *paths[:2], "-o", tmp_path / f"out{n}")
        assert done.code == 0, done.err
        assert "3 examples without labels" in done.out and "held out: 2 examples without labels" in done.out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--held-out", "0.1", "--held-out-data", "a.txt"], 2, "--held-out takes a fraction of --data"),
        (["--control-labels", "shuffled"], 1, "or leave --control-labels out"),
        (["--encoding", "klingon"], 1, "give --encoding as one that Python knows"),
        (["--unlabelled", "ignore"], 2, "'ignore' is not one of 'refuse', 'drop', 'keep'"),
        (["extra.txt", "--seed", "1"], 1, "No such file or directory: extra.txt"),
        (["--seed", "1", "extra.txt"], 2, "unexpected extra argument"),
    ],
)  # fmt: skip
def test_options_of_data_that_do_not_fit(run, tmp_path, monkeypatch, words, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text(" ".join(TEXTS), encoding="utf-8")
    done = run("train", *_QUICK, "--data", "a.txt", *words, "-o", "out")
    assert done.code == code and message in done.err, done.err


def test_labels_that_are_missing_are_asked_about_in_options(run, tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("text,label\na,0\nb,-1\nc,1\n", encoding="utf-8")
    done = run("train", *_QUICK, "--data", path, "-o", tmp_path / "out")
    assert done.code == 1 and "Labels are missing in 1 of 3 rows: -1 in 1 row" in done.err
    assert (
        "--unlabelled as drop" in done.err
        and "--unlabelled as keep" in done.err
        and "--no-labels" in done.err
    )


def test_korean_bytes_are_read_as_advised(run, tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(("재미있는 영화 정말 좋다\n" * 40).encode("cp949"))
    done = run("train", *_QUICK, "--data", path, "-o", tmp_path / "out")
    assert done.code == 1 and "iconv -f CP949 -t UTF-8, or give --encoding as cp949" in done.err
    assert run("train", *_QUICK, "--data", path, "--encoding", "cp949", "-o", tmp_path / "out").code == 0


def test_controls_of_labels_are_one_line(run, tmp_path):
    pytest.importorskip("transformers")
    path = tmp_path / "reviews.txt"
    rows = "".join(f"{n}\t{TEXTS[n % 3]} {n}\t{n % 2}\n" for n in range(40))
    path.write_text("id\tdocument\tlabel\n" + rows, encoding="utf-8")
    model = tiny("bert", tmp_path / "bert")
    words = ("train", *_QUICK, "--model", model, "--data", path)
    for kind, what in (
        ("shuffled", "shuffled among the texts"),
        ("uniform", "drawn at random from the classes"),
    ):
        done = run(*words, "--control-labels", kind, "-o", tmp_path / kind)
        assert done.code == 0, done.err
        assert f"its labels {what}" in done.out and f"note: the labels are {what}" in done.err
        assert "reviews.txt is a table separated by tabs, and is read as one" in done.err
