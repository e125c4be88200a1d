"""CONTRIBUTING's recipe is true: a format is one file dropped into the folder, and nothing else changes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from subspace.adapters import formats, load_adapter
from subspace.errors import UnrecognisedError

_ROOT = Path(__file__).parents[2]

TOY = '''
"""A toy: ``<module>.toy_down`` (r, d_in) and ``<module>.toy_up`` (d_out, r)."""

from subspace.adapters.format import Format, Ignored, Reading, Source
from subspace.adapters.update import LowRankUpdate, Scale


def _claims(source: Source) -> bool:
    return any(key.endswith(".toy_up") for key in source.tensors.layout)


def _read(source: Source) -> Reading:
    keys = list(source.tensors.layout)
    modules = [key.removesuffix(".toy_up") for key in keys if key.endswith(".toy_up")]
    updates = tuple(
        LowRankUpdate(m, source.factor(f"{m}.toy_down"), source.factor(f"{m}.toy_up"), Scale(3.0, "toy"))
        for m in modules
    )
    used = {f"{m}.toy_{part}" for m in modules for part in ("up", "down")}
    return Reading(updates, ignored=tuple(Ignored(key, "not of a toy") for key in keys if key not in used))


'''


def recipe():
    """The block of CONTRIBUTING.md that a format's file ends in."""
    text = (_ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return re.search(r"```python\n(FORMAT = .*?)```", text, re.DOTALL)[1]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A second folder of the package of formats, forgotten afterwards."""
    place = tmp_path / "formats"
    place.mkdir()
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(place)])
    formats.every.cache_clear()
    yield place
    sys.modules.pop("subspace.adapters.formats.toy", None)
    vars(formats).pop("toy", None)
    formats.every.cache_clear()


def test_a_format_is_found_by_being_there(folder, tmp_path):
    up, down = np.full((3, 2), 2, "f4"), np.ones((2, 4), "f4")
    save_file({"q.toy_up": up, "q.toy_down": down, "other": np.ones(2, "f4")}, tmp_path / "a.safetensors")
    with pytest.raises(UnrecognisedError):
        load_adapter(tmp_path / "a.safetensors")
    (folder / "toy.py").write_text(TOY + recipe())
    formats.every.cache_clear()
    adapter = load_adapter(tmp_path / "a.safetensors")
    assert adapter.format == "mine"
    assert [entry.why for entry in adapter.ignored] == ["not of a toy"]
    np.testing.assert_array_equal(adapter["q"].delta_W(), 3 * up @ down)


def test_it_is_named_among_the_known_ones(folder):
    (folder / "toy.py").write_text(TOY + recipe())
    formats.every.cache_clear()
    with pytest.raises(UnrecognisedError, match="mine"):
        load_adapter({"conv.weight": np.ones(3, "f4"), "conv.bias": np.ones(3, "f4")})


def test_it_leaves_no_trace():
    assert "mine" not in [known.name for known in formats.every()]
