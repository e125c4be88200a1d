"""The points of table 7 are the numbers of their result, and every module has its name."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure

import subspace
from subspace.errors import InconclusiveError
from subspace.plots import projections, style

_RNG = np.random.default_rng(0)


def _amplified(modules):
    factors, W = {}, {}
    for module in modules:
        factors[f"{module}.lora_A"] = _RNG.standard_normal((4, 16))
        factors[f"{module}.lora_B"] = _RNG.standard_normal((16, 4))
        W[f"{module}.weight"] = _RNG.standard_normal((16, 16))
    return subspace.amplify(W, factors, ranks=[2, 4])


def _names(axes):
    return [label.get_text() for label in axes.get_xticklabels()]


def test_projections_are_those_of_the_largest_rank():
    amplified = _amplified(["m.$x_{", "m.b"])
    axes = amplified.plot()
    own, mine = (line.get_ydata() for line in axes.lines[:2])
    last = [module.ranks[-1] for module in amplified.modules]
    assert [rank.r for rank in last] == [4, 4]
    np.testing.assert_allclose(own, [rank.proj_W for rank in last])
    np.testing.assert_allclose(mine, [rank.proj_delta_W for rank in last])
    assert _names(axes) == ["$x_{", "b"]


def test_names_are_whole_components_that_tell_the_modules_apart():
    modules = [
        f"model.{part}.layers.{n}.{block}.q_proj"
        for part, block in (("decoder", "encoder_attn"), ("decoder", "self_attn"), ("encoder", "self_attn"))
        for n in range(2)
    ]
    names = _names(_amplified(modules).plot())
    assert names == [
        "0.encoder_attn.q_proj",
        "decoder.layers.0.self_attn.q_proj",
        "1.encoder_attn.q_proj",
        "decoder.layers.1.self_attn.q_proj",
        "encoder.layers.0.self_attn.q_proj",
        "encoder.layers.1.self_attn.q_proj",
    ]
    for name in names:
        assert len([module for module in modules if f".{module}".endswith(f".{name}")]) == 1


def test_names_of_many_modules_do_not_overlap_and_stay_on_the_page():
    axes = _amplified([f"model.layers.{n}.self_attn.q_proj" for n in range(40)]).plot()
    with style.paper_style():
        axes.figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    page = axes.figure.bbox
    assert len(boxes) == 40
    for one, other in pairwise(boxes):
        assert not one.overlaps(other)
        assert page.y0 <= one.y0 and one.y1 <= page.y1


def test_more_modules_than_have_room_are_numbered():
    axes = _amplified([f"l.{n}.q" for n in range(100)]).plot()
    assert axes.get_xlabel() == "modules 0 to 99, in the order of the table"


def test_the_level_is_that_of_isotropic_random_spans():
    legend = _amplified(["a"]).plot().get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [
        "W's own directions", "delta_W's directions", "isotropic random spans",
    ]  # fmt: skip


def test_they_can_be_rendered_and_drawn_on_given_axes():
    amplified = _amplified(["a", "b"])
    ax = Figure().add_subplot()
    assert projections(amplified, ax=ax) is ax
    assert amplified.plot().figure._repr_png_().startswith(b"\x89PNG")


def test_nothing_to_draw_is_an_error():
    nothing = subspace.Amplification(base="W", delta="x", modules=())
    with pytest.raises(InconclusiveError, match="no projections to draw: every delta_W is zero"):
        projections(nothing)
