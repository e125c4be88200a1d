"""Every notebook runs from top to bottom and says what its saved output says."""

from __future__ import annotations

from pathlib import Path

import pytest

_FOLDER = Path(__file__).parents[2] / "notebooks"


def _text(notebook) -> list[str]:
    """All text that the cells printed or showed."""
    return [
        output.get("text") or output.get("data", {}).get("text/plain", "")
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    ]


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(_FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning", "ignore::ResourceWarning")
def test_notebook_runs_and_repeats_its_output(path, tmp_path):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    saved = nbformat.read(path, as_version=4)
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=240, kernel_name="python3").execute(cwd=str(tmp_path))
    assert len(_text(saved)) == len(_text(notebook)) > 0
    # the finding itself, not the last digits of a number: those are the machine's
    headlines = [[line for line in _text(n) if "Shared dimension" in line] for n in (saved, notebook)]
    assert headlines[0] == headlines[1]
    assert headlines[0]


def test_there_is_a_first_look():
    assert (_FOLDER / "1-first-look.ipynb").is_file()
