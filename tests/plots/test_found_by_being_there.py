"""A chart and a figure preset are one file each: they are found by being there, and nothing else knows them."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import subspace.plots
from subspace.plots import charts, presets
from subspace.training import save_peft

_PACKAGE = Path(subspace.__file__).parent
_TOY_PRESET = """
from subspace.plots import grid
from subspace.plots.comparison_panels import panel_of
from subspace.plots.preset import Preset


def _draw(comparison, *, side, layer):
    rows = [row for row in comparison.modules if row.side == side]
    return [grid([panel_of(row, title="toy")]) for row in rows]


PRESET = Preset("toy", "One page per module, for a test.", _draw)
"""
_TOY_CHART = """
from subspace.plots.canvas import new_figure


def toy(number, *, ax=None):
    axes = ax if ax is not None else new_figure(1, 1).add_subplot()
    axes.plot([number])
    return axes
"""


@pytest.fixture
def run(tmp_path):
    """Run Python with a copy of the package, to which a test may add files."""
    shutil.copytree(
        _PACKAGE, tmp_path / "subspace", ignore=shutil.ignore_patterns("*.safetensors", "__pycache__")
    )

    def call(*words: object) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(
            [sys.executable, *map(str, words)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return call


def test_a_preset_is_one_file(run, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        pairs = {f"l.{n}.q": (rng.standard_normal((2, 16)), rng.standard_normal((16, 2))) for n in range(2)}
        save_peft(tmp_path / name, pairs, alpha=2)
    words = ("-m", "subspace", "compare", "a", "b", "--figure", "toy", "-o", "drawn")
    missing = run(*words)
    assert missing.returncode == 2 and "'toy' is not one of" in missing.stderr

    toy = tmp_path / "subspace" / "plots" / "presets" / "toy.py"
    toy.write_text(_TOY_PRESET)
    done = run(*words)
    assert done.returncode == 0, done.stderr
    pictures = {path.name for path in (tmp_path / "drawn").glob("*.png")}
    assert pictures == {"toy-a-1.png", "toy-a-2.png"}
    told = run("-m", "subspace", "compare", "--help").stdout
    assert "toy" in told and "One page per module, for a test." in told

    toy.unlink()
    assert run(*words).returncode == 2


def test_a_chart_is_one_file(run, tmp_path):
    code = (
        "import sys, subspace.plots as plots; print('toy' in dir(plots), 'matplotlib' in sys.modules)\n"
        "from subspace.plots import toy; print(toy(3).lines[0].get_ydata()[0])"
    )
    assert "cannot import name 'toy'" in run("-c", code).stderr
    toy = tmp_path / "subspace" / "plots" / "charts" / "toy.py"
    toy.write_text(_TOY_CHART)
    assert run("-c", code).stdout.split() == ["True", "False", "3"]
    toy.unlink()
    assert "cannot import name 'toy'" in run("-c", code).stderr


def test_the_help_does_not_import_matplotlib(run):
    code = "import sys; sys.argv = ['subspace', 'compare', '--help']\ntry:\n import subspace.cli as c; c.main()\n"
    code += "finally: print('matplotlib' in sys.modules, file=sys.stderr)"
    done = run("-c", code)
    assert done.stderr.split() == ["False"]
    assert "[fig3|fig4|fig6|fig7|fig8|grid]" in done.stdout


def test_every_preset_declares_its_files_name_and_one_line():
    assert presets.names() == ("fig3", "fig4", "fig6", "fig7", "fig8", "grid")
    for name in presets.names():
        preset = presets.named(name)
        assert preset.name == name
        assert preset.about.endswith(".") and "\n" not in preset.about and len(preset.about) < 80


def test_every_chart_is_a_function_of_its_files_name():
    assert charts.names() == ("heatmap", "projections", "spectra")
    for name in charts.names():
        assert getattr(subspace.plots, name).__name__ == name


def test_the_package_shows_what_it_offers_and_nothing_else():
    from subspace.plots import canvas  # a submodule that was imported is no part of what is offered

    assert canvas and dir(subspace.plots) == sorted(subspace.plots.__all__)
    for name in subspace.plots.__all__:
        assert getattr(subspace.plots, name) is not None
    with pytest.raises(AttributeError, match=r"'subspace\.plots' has no attribute 'figure_5'"):
        subspace.plots.figure_5  # noqa: B018


@pytest.mark.parametrize("folder", ["charts", "presets"])
def test_files_found_by_being_there_do_not_import_each_other(folder):
    for path in (_PACKAGE / "plots" / folder).glob("[!_]*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                rest = node.module.removeprefix(f"subspace.plots.{folder}.")
                assert rest == node.module or rest.startswith("_"), f"{path} imports {node.module}"
