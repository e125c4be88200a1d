"""Which encoding bytes are likely in that are not UTF-8: the one in which they decode, and look like its language."""

from __future__ import annotations

import codecs
import re
from collections.abc import Set
from functools import lru_cache

__all__ = ["likely_encoding", "mostly_utf8"]

_SAMPLE = 2**18
# of the characters in words that hold one beyond ASCII, how many must be common in the language. Of a syllabary or of
# ideograms nearly all; of an alphabet the ten most frequent letters make up two thirds, and é is a quarter of café
_OF_MANY, _OF_AN_ALPHABET = 0.8, 0.45
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")
_REPEATED = re.compile(r"(.)\1+")
_WORD = re.compile(r"\w*[^\W\x00-\x7f]\w*")


def likely_encoding(raw: bytes | bytearray, first: int) -> tuple[str, str] | None:
    """Return the name of the likely encoding, as Python and iconv know it, and its language; None: it is not clear.

    Parameters
    ----------
    raw : that are not UTF-8
    first : offset of the first byte that is not

    Notes
    -----
    EUC-KR, of which CP949 is a superset, comes before the Chinese GB 18030, in which nearly all Korean decodes to
    common characters; the reverse is not so. A sample from the first offence on decides.

    Examples
    --------
    >>> likely_encoding("재미있는 영화".encode("euc-kr"), 0)
    ('CP949', 'Korean')
    >>> likely_encoding("un café".encode("latin-1"), 6)
    """
    begin = max(raw.rfind(b"\n", 0, first) + 1, first - _SAMPLE)
    sample = bytes(raw[begin : begin + _SAMPLE])
    whole = begin + _SAMPLE >= len(raw)
    for name, language, characters in _OF_TWO_BYTES:
        if _share(_decoded(sample, name, whole=whole), _common(*characters)) >= _OF_MANY:
            return name, language
    shares = [
        (_share(_decoded(sample, name, whole=whole), set(often)), name, of) for name, of, often in _ALPHABETS
    ]
    (second, *_), (share, name, language) = sorted(shares)[-2:]
    clear = share >= max(_OF_AN_ALPHABET, second + _AHEAD) and len(_BEYOND_ASCII.findall(sample)) >= _FEWEST
    return (name, language) if clear else None


def mostly_utf8(raw: bytes | bytearray, first: int) -> bool:
    """Return whether bytes are UTF-8 with some damage: more characters beyond ASCII are whole than are broken.

    Examples
    --------
    >>> mostly_utf8("한국어 한국어".encode()[:-1], 18), mostly_utf8("한국어".encode("cp949"), 0)
    (True, False)
    """
    text = raw[max(0, first - _SAMPLE) : first + _SAMPLE].decode("utf-8", "replace")
    broken = text.count("\ufffd")
    return len(_NOT_ASCII.findall(text)) > 2 * broken


def _decoded(sample: bytes, name: str, *, whole: bool) -> str:
    """The text, "" where the bytes are not of the encoding; the last character may be cut unless it is the whole."""
    try:
        return codecs.getincrementaldecoder(name)().decode(sample, whole)
    except UnicodeDecodeError:
        return ""


def _share(text: str, common: Set[str]) -> float:
    # a letter that is repeated for emphasis counts once, such as the vowel that Korean weeps with
    words = _REPEATED.sub(r"\1", "".join(_WORD.findall(text)).lower())
    # control characters and those of private use speak against an encoding
    odd = sum("\x80" <= c <= "\x9f" or "\ue000" <= c <= "\uf8ff" for c in text)
    return sum(c in common for c in words) / (len(words) + odd) if words else 0.0


@lru_cache
def _common(encoding: str, first: int, last: int) -> frozenset[str]:
    """The common characters of an encoding of two bytes: those between two of its rows."""
    pairs = (bytes((a, b)) for a in range(first, last + 1) for b in range(0x40, 0xFF))
    return frozenset(pair.decode(encoding, "ignore") for pair in pairs) - {""}


# (name, language, rows in which the common characters are), in this order; of Japanese from hiragana on
_OF_TWO_BYTES = (
    ("CP949", "Korean", ("euc_kr", 0xB0, 0xC8)),
    ("CP932", "Japanese", ("euc_jp", 0xA4, 0xCF)),
    ("EUC-JP", "Japanese", ("euc_jp", 0xA4, 0xCF)),
    ("GB18030", "Chinese", ("gb2312", 0xB0, 0xD7)),
    ("BIG5", "Chinese", ("big5", 0xA4, 0xC6)),
)
# (name, language, its most frequent letters); the best of them counts
_ALPHABETS = (
    ("CP1251", "Cyrillic", "оеаинтсрвлі"),
    ("KOI8-R", "Cyrillic", "оеаинтсрвл"),
    ("CP1253", "Greek", "αοιετσνηυρςάί"),
    ("CP1255", "Hebrew", "יוהלאתמרבש"),
    ("CP1256", "Arabic", "اليمنوربته"),
)
_AHEAD = 0.1  # of the second best
_FEWEST = 4  # letters from which the frequent ones can be counted
