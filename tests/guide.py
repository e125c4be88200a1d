"""The code of CONTRIBUTING.md: a test that uses it holds that the guide is true."""

from __future__ import annotations

import re
from pathlib import Path

_GUIDE = Path(__file__).parents[1] / "CONTRIBUTING.md"


def files(heading: str) -> dict[str, str]:
    """Path -> text of each block of code under a heading; the first line of a block names its file."""
    sections = re.split(r"^## ", _GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (section,) = (each for each in sections if each.startswith(f"{heading}\n"))
    blocks = re.findall(r"^```python\n# (subspace/\S+\.py)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert blocks, f"no block of code under {heading!r}"
    return dict(blocks)
