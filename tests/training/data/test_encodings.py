"""Bytes that are not UTF-8: the encoding that is advised gives the text back, and is never one that garbles it."""

from __future__ import annotations

import re
import subprocess
from shutil import which

import pytest

from subspace.errors import FormatError, ValueRangeError
from subspace.training.data import read_examples
from subspace.training.data.encodings import likely_encoding

TEXTS = {
    "cp949": "아 더빙.. 진짜 짜증나네요 목소리 SBS뉴스 ㅋㅋㅋ 뷁\n",
    "euc-kr": "흠...포스터보고 초딩영화줄....오버연기조차 가볍지 않구나 ㅠㅠ\n",
    "cp932": "この映画はとても面白かったです。カメラワークも良い\n",
    "euc-jp": "この映画はとても面白かったです。カメラワークも良い\n",
    "gb18030": "这部电影非常好看,演员的表演很出色。我喜欢\n",
    "big5": "這部電影非常好看,演員的表演很出色。我喜歡\n",
    "cp1251": "Это очень хороший фильм, мне понравилось. Всё ОК\n",
    "koi8-r": "Это очень хороший фильм, мне понравилось. Всё ОК\n",
    "cp1253": "Αυτή είναι μια πολύ καλή ταινία, και οι ηθοποιοί παίζουν εξαιρετικά\n",
    "latin1": "L'été dernier à Paris, où j'étais né, äöüß\n",
    "cp1252": "“Déjà vu” – naïve\n",
}


@pytest.mark.parametrize("before", ["", "A line in ASCII.\n" * 50], ids=["at once", "after ASCII"])
@pytest.mark.parametrize("encoding", TEXTS)
def test_what_is_advised_gives_the_text_back(tmp_path, encoding, before):
    text = before + TEXTS[encoding] * 3
    path = tmp_path / "x.txt"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(FormatError, match="The text is not UTF-8: the byte 0x") as caught:
        read_examples(path)
    advised = re.search(r"iconv -f (\S+) -t UTF-8, or give `encoding` as (\S+)", str(caught.value))
    assert path.read_bytes().decode(advised[2]) == text
    assert read_examples(path, encoding=advised[2]).texts == (text,)
    if which("iconv"):
        converted = subprocess.run(
            ["iconv", "-f", advised[1], "-t", "UTF-8", path], check=True, capture_output=True
        )
        assert converted.stdout.decode() == text


def test_korean_is_never_taken_for_western_or_chinese():
    for word in ("좋다", "굿", "최고의 영화", "재미없다 ㅠㅠ", "1점도 아깝다"):
        raw = word.encode("cp949")
        assert likely_encoding(raw, 0) == ("CP949", "Korean")


@pytest.mark.parametrize("text", ["café", "é", "ñandú", "Ünïcödé", "naïve Zoë"])
def test_a_few_western_letters_are_no_sign_of_another_script(text):
    raw = text.encode("latin1")
    assert likely_encoding(raw, next(n for n, byte in enumerate(raw) if byte > 127)) is None


def test_a_character_cut_by_the_sample_does_no_harm(monkeypatch):
    monkeypatch.setattr("subspace.training.data.encodings._SAMPLE", 9)
    assert likely_encoding("재미있는 영화".encode("cp949"), 0) == ("CP949", "Korean")


def test_damage_in_utf8_is_no_other_encoding(tmp_path):
    raw = bytearray("재미있는 영화 정말 좋다 ".encode() * 5)
    raw[50] = 0xFF
    (tmp_path / "x.txt").write_bytes(raw)
    with pytest.raises(FormatError, match=r"byte 0xFF at offset 50.*mostly UTF-8, so it is damaged there"):
        read_examples(tmp_path / "x.txt")


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-32", "utf-16-le", "utf-16-be", "utf-8-sig", "cp949", "EUC-KR"]
)
def test_an_encoding_that_is_given(tmp_path, encoding):
    text = "text,label\n재미있는,a\n영화,b\n"
    (tmp_path / "x.csv").write_bytes(text.encode(encoding))
    assert read_examples(tmp_path / "x.csv", encoding=encoding).texts == ("재미있는", "영화")


@pytest.mark.parametrize(
    ("raw", "encoding", "kind", "message"),
    [
        ("a".encode("utf-16"), None, FormatError, "of UTF-16, .* -f UTF-16 -t UTF-8, or give `encoding` as utf-16$"),
        ("ab\nc\n".encode("utf-16-le"), None, FormatError, "looks binary: .* if it is a text in UTF-16, .*utf-16le"),
        ("ab\nc\n".encode("utf-16-be"), None, FormatError, "looks binary: .* if it is a text in UTF-16, .*utf-16be"),
        (b"a\0b\nc", None, FormatError, r"looks binary: a NUL byte at offset 1, in .* line 1; give \.jsonl"),
        (b"a\0b\nc", "cp949", FormatError, "looks binary"),
        ("재".encode("cp949"), "ascii", FormatError, "is not ASCII: the byte 0xC0 at offset 0, .*; check `encoding`"),
        (b"a", "rot13", ValueRangeError, "Unknown encoding 'rot13'; give `encoding` as one that Python knows"),
        (b"a", "klingon", ValueRangeError, "Unknown encoding 'klingon'"),
        (b"a", "a\0b", ValueRangeError, "Unknown encoding"),
    ],
)  # fmt: skip
def test_what_cannot_be_decoded(tmp_path, raw, encoding, kind, message):
    (tmp_path / "x.txt").write_bytes(raw)
    with pytest.raises(kind, match=message) as caught:
        read_examples(tmp_path / "x.txt", encoding=encoding)
    assert str(caught.value).isprintable()
