"""Which modules of a comparison stand in which panel of which figure, and what they are called there."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import subspace
from subspace.plots import drawn, figures, presets
from subspace.plots.comparison_panels import panel_of

D = 24


def _adapter(rng, names, r):
    return {
        f"{name}.lora_{x}".removeprefix("."): rng.standard_normal((r, D) if x == "A" else (D, r))
        for name in names
        for x in "AB"
    }


def _compared(names, ranks=(3, 5), **options):
    rng = np.random.default_rng(0)
    return subspace.compare(_adapter(rng, names, ranks[0]), _adapter(rng, names, ranks[1]), **options)


def _llama(layers):
    kinds = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.up_proj")
    return [f"model.layers.{n}.{kind}" for n in layers for kind in kinds]


def _titles(pages):
    """Titles of all panels but those of controls."""
    return [what.panel.title for page in pages for what in drawn(page) if what.panel.control is None]


def test_figure_3_is_q_and_v_of_the_middle_layer():
    titles = _titles(figures(_compared(_llama(range(5))), "fig3", side="a"))
    assert titles == [
        "q_proj, layer 2 (A)",
        "v_proj, layer 2 (A)",
        "q_proj, layer 2 (A) (zoom)",
        "v_proj, layer 2 (A) (zoom)",
    ]


def test_a_layer_that_is_asked_for():
    comparison = _compared(_llama(range(5)))
    for preset in ("fig3", "fig4", "fig6", "fig7", "grid"):
        titles = _titles(figures(comparison, preset, side="a", layer=4))
        assert titles and not any("layer 2" in title or "2." in title for title in titles)
    with pytest.raises(
        subspace.SubspaceError, match="There is no layer 9 in this comparison; it has layers 0, 1, 2"
    ):
        figures(comparison, "fig3", side="a", layer=9)


def test_figure_4_has_random_gaussians_of_the_same_ranks_beside():
    (figure,) = figures(_compared(_llama(range(2)), ranks=(4, 6)), "fig4", side="a")
    random = drawn(figure)[2]
    assert (
        random.panel.title == "Random Gaussian" and random.panel.phi.shape == (4, 6) and random.panel.d == D
    )
    assert {(what.vmin, what.vmax) for what in drawn(figure)} == {(0.0, 0.5)}


@pytest.mark.parametrize(
    ("layers", "shown"), [(24, (0, 7, 15, 23)), (4, (0, 1, 2, 3)), (2, (0, 1)), (1, (0,))]
)
def test_figures_6_and_7_go_from_the_first_layer_to_the_last(layers, shown):
    names = [f"h.{n}.attn.{p}" for n in range(layers) for p in ("q", "v")]
    comparison = _compared(names)
    for preset in ("fig6", "fig7"):
        titles = _titles(figures(comparison, preset, side="a"))
        assert {int(title.split("layer ")[1].split(" ")[0]) for title in titles} == set(shown)


def test_the_grid_has_every_module_without_what_all_names_begin_with():
    comparison = _compared(_llama(range(2)))
    titles = _titles(figures(comparison, "grid", side="a"))
    assert titles[:2] == ["0.mlp.up_proj", "0.self_attn.k_proj"] and len(titles) == 8


def test_the_grid_takes_pages():
    pages = figures(_compared([f"h.{n}.q" for n in range(60)]), "grid", side="a")
    assert len(pages) == 2 and len(_titles(pages)) == 60


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["h.0.attn.c_attn[q]", "h.0.attn.c_attn[v]", "h.0.mlp"], ["c_attn[q]", "c_attn[v]"]),
        (["encoder.layer.3.query", "encoder.layer.3.value"], ["query", "value"]),
        (["net.0.one", "net.0.two", "net.0.three"], ["one", "three"]),
        (["blocks_7_attn_to_q", "blocks_7_attn_to_v"], None),
        (["weights"], ["weights"]),
    ],
)
def test_modules_of_any_model_find_their_panel(names, expected):
    titles = _titles(figures(_compared(names), "fig4", side="a"))[:-1]
    if expected is None:
        assert len(titles) == 2
    else:
        assert [title.split(",")[0].split(" (")[0] for title in titles] == expected


@pytest.mark.parametrize("preset", sorted(set(presets.names()) - {"fig8", "fig8all"}))
@pytest.mark.parametrize("names", [["a"], [""], ["x.1.q", "y.1.q"], ["$\\alpha$.0.q", "模块.0.v"]])
def test_every_preset_draws_any_adapter(preset, names):
    assert _titles(figures(_compared(names), preset, side="a"))


def test_side_and_init_choose_the_rows():
    rng = np.random.default_rng(0)
    one, start = _adapter(rng, ["l.0.q"], 3), _adapter(rng, ["l.0.q"], 3)
    start["l.0.q.lora_B"] *= 0
    comparison = subspace.compare(one, _adapter(rng, ["l.0.q"], 3), init=start, side="all")
    titles = _titles(figures(comparison, "grid", side="right"))
    assert titles == ["l.0.q"] or len(titles) == 1


def test_a_side_without_a_score_is_inconclusive():
    comparison = _compared(["l.0.q"])
    nothing = replace(comparison, modules=(replace(comparison.modules[0], phi=np.zeros((0, 0))),))
    with pytest.raises(subspace.InconclusiveError, match="nothing to draw: no module has a score on side a"):
        figures(nothing, "grid", side="a")


def test_a_side_that_was_not_compared_is_named():
    with pytest.raises(subspace.SubspaceError, match="Side 'b' was not compared; this comparison has a"):
        figures(_compared(["l.0.q"]), "grid", side="b")


def test_an_unknown_preset_is_named_with_those_there_are():
    with pytest.raises(
        subspace.SubspaceError,
        match=r"No figure preset is called 'fig5'; choose one of effects, fig3, .*grid",
    ):
        figures(_compared(["l.0.q"]), "fig5")


def test_figure_8_is_of_base_weights_with_random_beside():
    rng = np.random.default_rng(0)
    base = {
        "l.0.q_proj.weight": rng.standard_normal((D, D)),
        "l.1.q_proj.weight": rng.standard_normal((D, D)),
    }
    adapter = _adapter(rng, ["l.0.q_proj", "l.1.q_proj"], 2)
    for pair in ((base, adapter), (adapter, base)):
        comparison = subspace.compare(*pair, directions=10)
        (figure,) = figures(comparison, "fig8", side="a")
        one, random = drawn(figure)
        assert one.panel.phi.shape == random.panel.phi.shape == (10, 2)
        assert one.panel.title.startswith("q_proj, layer 1") and random.panel.title == "Random Gaussian"
    with pytest.raises(subspace.SubspaceError, match="Figure 8 needs base weights on one side"):
        figures(_compared(["l.0.q"]), "fig8", side="a")


def test_figure_8_of_every_layer_has_a_row_per_layer_in_one_scale_of_colours():
    rng = np.random.default_rng(0)
    modules = [f"l.{n}.{kind}_proj" for n in range(14) for kind in "qv"]
    base = {f"{module}.weight": rng.standard_normal((D, D)) for module in modules}
    for pair in ((base, _adapter(rng, modules, 2)), (_adapter(rng, modules, 2), base)):
        comparison = subspace.compare(*pair, directions=10)
        pages = figures(comparison, "fig8all", side="a")
        panels = [what.panel for page in pages for what in drawn(page)]
        assert [len(drawn(page)) for page in pages] == [3 * 12, 3 * 2]
        titles = [panel.title for panel in panels if panel.title != "Random Gaussian"]
        assert [title.removesuffix(" (A)") for title in titles] == [
            f"{kind}_proj, layer {n}" for n in range(14) for kind in "qv"
        ]
        rows = {row.module: row.phi for row in comparison.modules if row.side == "a"}
        phi = np.sort([each.shape for each in rows.values()])
        assert (
            np.sort([panel.phi.shape for panel in panels if panel.title != "Random Gaussian"]) == phi
        ).all()
        assert len({(what.vmin, what.vmax) for page in pages for what in drawn(page)}) == 1
        (alone,) = figures(comparison, "fig8all", side="a", layer=3)
        assert [what.panel.title for what in drawn(alone)][:2] == [
            "q_proj, layer 3 (A)",
            "v_proj, layer 3 (A)",
        ]
    with pytest.raises(subspace.SubspaceError, match="Figure 8 needs base weights on one side"):
        figures(_compared(["l.0.q"]), "fig8all", side="a")


def test_fewer_directions_of_w_than_of_the_adapter_stay_on_the_i_axis():
    rng = np.random.default_rng(0)
    base = {
        "l.0.q_proj.weight": rng.standard_normal((D, D)),
        "l.1.q_proj.weight": rng.standard_normal((D, D)),
    }
    comparison = subspace.compare(base, _adapter(rng, ["l.0.q_proj", "l.1.q_proj"], 8), directions=3)
    (figure,) = figures(comparison, "fig8", side="a")
    assert drawn(figure)[0].panel.phi.shape == (3, 8)


def test_a_panel_reaches_to_the_declared_rank():
    rng = np.random.default_rng(0)
    thin = _adapter(rng, ["q"], 4)
    thin["q.lora_A"][3] = thin["q.lora_A"][0]
    (row,) = subspace.compare(thin, _adapter(rng, ["q"], 2)).modules
    made = panel_of(row)
    assert row.phi.shape == (3, 2) and made.grid().shape == (4, 2)
    assert np.isnan(made.grid()[3]).all()
    assert made.title == "q (A)"


def test_axes_name_the_adapters(tmp_path):
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    for name in ("run1", "run2"):
        (tmp_path / name).mkdir()
        arrays = {key: value.astype(np.float32) for key, value in _adapter(rng, ["l.0.q"], 2).items()}
        save_file(arrays, tmp_path / name / "adapter_model.safetensors")
    (figure,) = figures(subspace.compare(tmp_path / "run1", tmp_path / "run2"), "grid", side="a")
    (what,) = drawn(figure)
    assert (what.panel.i_label, what.panel.j_label) == ("i, of run1", "j, of run2")


_WHISPER = tuple(
    f"model.{side}.layers.{n}.{block}.{kind}"
    for side, blocks in (("decoder", ("encoder_attn", "self_attn")), ("encoder", ("self_attn",)))
    for n in range(3)
    for block in blocks
    for kind in ("q_proj", "v_proj")
)
_DIFFUSION = tuple(
    f"{block}.attentions.{n}.transformer_blocks.0.{attention}.{kind}"
    for block in ("down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.1")
    for n in range(2)
    for attention in ("attn1", "attn2")
    for kind in ("to_q", "to_v")
)
_LONG = tuple(f"net.{'x' * 300}{n}{'y' * 300}.q" for n in range(3))


@cache
def _pages(names, preset):
    """Pages that tests only read."""
    return figures(_compared(names), preset)


@pytest.mark.parametrize("preset", sorted(set(presets.names()) - {"fig8", "fig8all"}))
@pytest.mark.parametrize("names", [_WHISPER, _DIFFUSION, _LONG, ("q", "a.q", "b.a.q")])
def test_no_two_modules_of_a_figure_have_one_title_as_it_is_drawn(names, preset):
    for page in _pages(names, preset):
        shown = [ax.get_title() for ax in page.axes if ax.images]
        assert len(set(shown)) == len(shown)


@pytest.mark.parametrize("preset", sorted(set(presets.names()) - {"fig8", "fig8all"}))
@pytest.mark.parametrize("names", [_WHISPER, _DIFFUSION])
def test_a_title_answers_to_one_module_of_the_comparison(names, preset):
    """Not only among those drawn: q_proj, layer 1 would be three modules of Whisper."""
    for page in _pages(names, preset):
        for what in drawn(page):
            if what.panel.i_module is not None and what.panel.control is None:
                ending, _, layer = (
                    what.panel.title.replace(" (zoom)", "").removesuffix(" (A)").partition(", layer ")
                )
                answering = [name for name in names if f".{name}".endswith(f".{ending}")]
                in_layer = [name for name in answering if not layer or f".{layer}." in name]
                assert in_layer == [what.panel.i_module]


def test_titles_are_the_shortest_endings():
    titles = _titles(figures(_compared(_WHISPER), "grid"))
    assert titles[:3] == [
        "0.encoder_attn.q_proj",
        "0.encoder_attn.v_proj",
        "decoder.layers.0.self_attn.q_proj",
    ]
    titles = _titles(figures(_compared(_WHISPER[:4]), "fig3"))
    assert titles[0] == "encoder_attn.q_proj, layer 0 (A)"


def test_the_data_of_a_figure_name_whole_modules():
    (figure,) = figures(_compared(_llama(range(2)), side="left"), "fig3", side="left")
    for what in drawn(figure):
        kind = what.panel.title.removeprefix("same kind, other layers: ")[0]
        names = (f"model.layers.1.self_attn.{kind}_proj",) * 2
        # a control is of several modules of the second adapter
        names = (names[0], None) if what.panel.control else names
        assert (what.panel.i_module, what.panel.j_module) == names
        assert (what.panel.side, what.panel.init) == ("left", "kept")


def test_the_names_stay_with_their_adapter_where_figure_8_exchanges_the_two():
    rng = np.random.default_rng(0)
    base = {"model.l.0.q_proj.weight": rng.standard_normal((D, D))}
    for pair in ((base, _adapter(rng, ["l.0.q_proj"], 2)), (_adapter(rng, ["l.0.q_proj"], 2), base)):
        (figure,) = figures(subspace.compare(*pair, directions=5), "fig8")
        panel = drawn(figure)[0].panel
        assert (panel.i_module, panel.j_module) == (_name_in(pair, base), _name_in(pair, base, not_in=True))


def _name_in(pair, base, *, not_in=False):
    (row,) = subspace.compare(*pair, directions=5).modules
    return row.module if (pair[0] is base) != not_in else row.second_module


def test_axis_labels_that_had_to_be_cut_are_whole_in_the_note(tmp_path):
    from subspace.training import save_peft

    rng = np.random.default_rng(0)
    names = [f"{'a-very-long-name-of-a-run' * 2}-{n}" for n in range(2)]
    for name in names:
        pairs = {"l.0.q": (rng.standard_normal((2, D)), rng.standard_normal((D, 2)))}
        save_peft(tmp_path / name, pairs, alpha=2)
    (figure,) = figures(subspace.compare(*(tmp_path / name for name in names)), "grid")
    (note,) = [text.get_text().replace("\n", "") for text in figure.texts]
    assert "…" in figure.axes[0].get_ylabel() and all(name in note for name in names)
