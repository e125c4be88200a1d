"""Which modules of a comparison stand in which panel of the paper's figures."""

from __future__ import annotations

import numpy as np
import pytest

import subspace
from subspace.plots.heatmap import drawn
from subspace.plots.paper import PRESETS, panel, paper_figures

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


def _titles(figures):
    return [what.panel.title for figure in figures for what in drawn(figure)]


def test_figure_3_is_q_and_v_of_the_middle_layer():
    titles = _titles(paper_figures(_compared(_llama(range(5))), "fig3", side="a"))
    assert titles == [
        "q_proj, layer 2 (A)",
        "v_proj, layer 2 (A)",
        "q_proj, layer 2 (A) (zoom)",
        "v_proj, layer 2 (A) (zoom)",
    ]


def test_a_layer_that_is_asked_for():
    comparison = _compared(_llama(range(5)))
    for preset in ("fig3", "fig4", "fig6", "fig7", "grid"):
        titles = _titles(paper_figures(comparison, preset, side="a", layer=4))
        assert titles and not any("layer 2" in title or "2." in title for title in titles)
    with pytest.raises(
        subspace.SubspaceError, match="a layer must be one of the comparison's: got 9, of 0, 1, 2"
    ):
        paper_figures(comparison, "fig3", side="a", layer=9)


def test_figure_4_has_random_gaussians_of_the_same_ranks_beside():
    (figure,) = paper_figures(_compared(_llama(range(2)), ranks=(4, 6)), "fig4", side="a")
    *_, random = drawn(figure)
    assert (
        random.panel.title == "Random Gaussian" and random.panel.phi.shape == (4, 6) and random.panel.d == D
    )
    assert {(what.vmin, what.vmax) for what in drawn(figure)} == {(0.0, 0.5)}


@pytest.mark.parametrize(
    ("layers", "shown"), [(96, (0, 31, 63, 95)), (4, (0, 1, 2, 3)), (2, (0, 1)), (1, (0,))]
)
def test_figures_6_and_7_go_from_the_first_layer_to_the_last(layers, shown):
    names = [f"h.{n}.attn.{p}" for n in range(layers) for p in ("q", "v")]
    comparison = _compared(names)
    for preset in ("fig6", "fig7"):
        titles = _titles(paper_figures(comparison, preset, side="a"))
        assert {int(title.split("layer ")[1].split(" ")[0]) for title in titles} == set(shown)


def test_the_grid_has_every_module_without_what_all_names_begin_with():
    comparison = _compared(_llama(range(2)))
    titles = _titles(paper_figures(comparison, "grid", side="a"))
    assert titles[:2] == ["0.mlp.up_proj", "0.self_attn.k_proj"] and len(titles) == 8


def test_the_grid_takes_pages():
    figures = paper_figures(_compared([f"h.{n}.q" for n in range(60)]), "grid", side="a")
    assert len(figures) == 2 and len(_titles(figures)) == 60


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
    titles = _titles(paper_figures(_compared(names), "fig4", side="a"))[:-1]
    if expected is None:
        assert len(titles) == 2
    else:
        assert [title.split(",")[0].split(" (")[0] for title in titles] == expected


@pytest.mark.parametrize("preset", sorted(set(PRESETS) - {"fig8"}))
@pytest.mark.parametrize("names", [["a"], [""], ["x.1.q", "y.1.q"], ["$\\alpha$.0.q", "模块.0.v"]])
def test_every_preset_draws_any_adapter(preset, names):
    figures = paper_figures(_compared(names), preset, side="a")
    assert _titles(figures)


def test_side_and_init_choose_the_rows():
    rng = np.random.default_rng(0)
    one, start = _adapter(rng, ["l.0.q"], 3), _adapter(rng, ["l.0.q"], 3)
    start["l.0.q.lora_B"] *= 0
    comparison = subspace.compare(one, _adapter(rng, ["l.0.q"], 3), init=start, side="all")
    titles = _titles(paper_figures(comparison, "grid", side="right"))
    assert titles == ["l.0.q"] or len(titles) == 1


def test_a_side_without_a_score_is_inconclusive():
    with pytest.raises(
        subspace.InconclusiveError, match="a figure needs a module with a score: side b has none"
    ):
        paper_figures(_compared(["l.0.q"]), "grid", side="b")


def test_figure_8_is_of_base_weights_with_random_beside():
    rng = np.random.default_rng(0)
    base = {
        "l.0.q_proj.weight": rng.standard_normal((D, D)),
        "l.1.q_proj.weight": rng.standard_normal((D, D)),
    }
    adapter = _adapter(rng, ["l.0.q_proj", "l.1.q_proj"], 2)
    for pair in ((base, adapter), (adapter, base)):
        comparison = subspace.compare(*pair, directions=10)
        (figure,) = paper_figures(comparison, "fig8", side="a")
        one, random = drawn(figure)
        assert one.panel.phi.shape == random.panel.phi.shape == (10, 2)
        assert one.panel.title.startswith("q_proj, layer 1") and random.panel.title == "Random"
    with pytest.raises(subspace.SubspaceError, match="figure 8 needs base weights on one side"):
        paper_figures(_compared(["l.0.q"]), "fig8", side="a")


def test_fewer_directions_of_w_than_of_the_adapter_stay_on_the_i_axis():
    rng = np.random.default_rng(0)
    base = {
        "l.0.q_proj.weight": rng.standard_normal((D, D)),
        "l.1.q_proj.weight": rng.standard_normal((D, D)),
    }
    comparison = subspace.compare(base, _adapter(rng, ["l.0.q_proj", "l.1.q_proj"], 8), directions=3)
    (figure,) = paper_figures(comparison, "fig8", side="a")
    assert drawn(figure)[0].panel.phi.shape == (3, 8)


def test_a_panel_reaches_to_the_declared_rank():
    rng = np.random.default_rng(0)
    thin = _adapter(rng, ["q"], 4)
    thin["q.lora_A"][3] = thin["q.lora_A"][0]
    (row,) = subspace.compare(thin, _adapter(rng, ["q"], 2)).modules
    made = panel(row)
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
    (figure,) = paper_figures(subspace.compare(tmp_path / "run1", tmp_path / "run2"), "grid", side="a")
    (what,) = drawn(figure)
    assert (what.panel.i_label, what.panel.j_label) == ("i, of run1", "j, of run2")
