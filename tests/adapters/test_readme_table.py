"""README's table of formats lists exactly the formats of the code."""

from __future__ import annotations

import re
from pathlib import Path

from subspace.adapters import formats

_ROOT = Path(__file__).parents[2]


def rows():
    """Name, what and scale of each row of the table under "What it reads"."""
    text = (_ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## What it reads")[1].split("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \| (.+?) \| (.+?) \|$", section, re.MULTILINE)


def test_the_table_lists_the_formats_of_the_code():
    assert sorted(name for name, _, _ in rows()) == sorted(known.name for known in formats.every())


def test_each_row_says_what_is_read_and_with_which_scale():
    for name, what, scale in rows():
        assert len(what) > 10, name
        assert scale.strip(), name
