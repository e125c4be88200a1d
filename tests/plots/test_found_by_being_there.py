"""Charts and figure presets are found by being there; `tests/adding` drops one of each in."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import subspace.plots
from subspace.plots import charts, presets

_PACKAGE = Path(subspace.__file__).parent


def test_the_help_does_not_import_matplotlib():
    code = "import sys; sys.argv = ['subspace', 'compare', '--help']\ntry:\n import subspace.cli as c; c.main()\n"
    code += "finally: print('matplotlib' in sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.split() == ["False"]
    assert "[effects|fig3|fig4|fig6|fig7|fig8|fig8all|grid]" in done.stdout


def test_every_preset_declares_its_files_name_and_one_line():
    assert presets.names() == ("effects", "fig3", "fig4", "fig6", "fig7", "fig8", "fig8all", "grid")
    for name in presets.names():
        preset = presets.named(name)
        assert preset.name == name
        assert preset.about.endswith(".") and "\n" not in preset.about and len(preset.about) < 80


def test_every_chart_is_a_function_of_its_files_name():
    assert charts.names() == (
        "alignment_curves", "births", "explained_shares", "heatmap", "intruder_map", "layer_by_layer", "library_map",
        "lineage_graph", "nearest_adapters", "projections", "rank_ladder", "rank_map", "recovered_ranks", "spectra",
        "trajectory", "trajectory_map",
    )  # fmt: skip
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
