"""Spectra are drawn from the numbers of their result, and the legend says whose they are."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

import subspace
from subspace.errors import InconclusiveError
from subspace.plots import spectra, style

_RNG = np.random.default_rng(0)


def _inspected(modules, *, zero=()):
    factors = {}
    for module in modules:
        factors[f"{module}.lora_A"] = _RNG.standard_normal((4, 16))
        factors[f"{module}.lora_B"] = _RNG.standard_normal((16, 4)) * (module not in zero)
    return subspace.inspect(factors, scale=2.0)


def _legend(axes):
    legend = axes.get_legend()
    labels = [text.get_text() for text in legend.get_texts()]
    colours = [handle.get_color() for handle in legend.legend_handles]
    return legend.get_title().get_text(), dict(zip(labels, colours, strict=True))


def test_spectra_are_those_of_the_result():
    found = _inspected(["a", "b", "c"])
    axes = found.plot()
    assert axes.get_yscale() == "log"
    for line, row in zip(axes.lines, found.modules, strict=True):
        np.testing.assert_allclose(line.get_ydata(), row.S / row.S[0])


def test_few_modules_have_a_colour_and_a_name_each():
    axes = _inspected([f"model.layers.{n}.$q$" for n in range(3)]).plot()
    title, colours = _legend(axes)
    assert title == "3 modules" and list(colours) == ["0.$q$", "1.$q$", "2.$q$"]
    assert [line.get_color() for line in axes.lines] == list(colours.values())
    assert len(set(colours.values())) == 3


def test_many_modules_have_a_colour_per_kind_and_are_counted():
    names = [f"{part}.layers.{n}.attn.{kind}" for part in ("enc", "dec") for n in range(6) for kind in "qv"]
    found = _inspected([*names, "enc.fc"], zero=names[:1])
    axes = found.plot()
    title, colours = _legend(axes)
    assert title == "24 modules, by kind; 1 untrained left out"
    assert set(colours) == {
        "enc.layers.attn.q (5)", "enc.layers.attn.v (6)", "dec.layers.attn.q (6)", "dec.layers.attn.v (6)", "fc (1)",
    }  # fmt: skip
    assert len(set(colours.values())) == 5 and len(axes.lines) == 24
    drawn = [row.module for row in found.modules if row.S.size]
    of = dict(zip(drawn, (line.get_color() for line in axes.lines), strict=True))
    assert {of[n] for n in names[1:] if n.startswith("dec") and n.endswith("q")} == {
        colours["dec.layers.attn.q (6)"]
    }


def test_kinds_that_no_colours_are_left_for_are_others():
    names = [f"block{b}.layers.0.part{p}.k{k}" for b in range(2) for p in range(2) for k in range(12)]
    title, colours = _legend(_inspected(names).plot())
    assert title == "48 modules, by kind"
    assert len(colours) == 7 and list(colours)[-1] == "other modules (24)"
    assert sum(int(label.rpartition("(")[2].rstrip(")")) for label in colours) == 48


def test_the_legend_is_on_the_page_and_not_on_the_lines():
    names = [
        f"model.a_very_long_part{p}.layers.{n}.self_attention.q_proj" for p in range(2) for n in range(9)
    ]
    axes = _inspected(names).plot()
    with style.paper_style():
        axes.figure.draw_without_rendering()
    box, page = axes.get_legend().get_window_extent(), axes.figure.bbox
    assert page.x0 <= box.x0 and box.x1 <= page.x1 and box.x0 >= axes.get_window_extent().x1
    assert axes.get_window_extent().width > page.width / 3


def test_they_are_drawn_on_given_axes():
    ax = Figure().add_subplot()
    assert spectra(_inspected(["a", "b"]), ax=ax) is ax
    assert ax.get_legend() is not None


def test_nothing_to_draw_is_an_error():
    with pytest.raises(InconclusiveError, match="no spectrum to draw: every delta_W is zero"):
        spectra(_inspected(["a"], zero=["a"]))
