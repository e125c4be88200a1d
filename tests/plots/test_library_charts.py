"""The charts of a library show the numbers that they are given, name what has room, and refuse what does not fit."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from subspace.errors import InconclusiveError, ShapeError
from subspace.geometry.cluster_tree import cluster_tree
from subspace.plots import layer_by_layer, library_map, lineage_graph, nearest_adapters
from subspace.plots.adapter_titles import adapter_titles
from subspace.plots.canvas import new_figure, rendered

NASTY = ["a$b$\n\x1b[31m", "注意力/🎉", r"$\frac{", "x" * 5000, "", "a\ud800b", "--><script>", "%s {0}"]


def similarities(N, seed=0):
    X = np.random.default_rng(seed).standard_normal((N, 12))
    return np.corrcoef(X)


def names(N):
    return [f"runs/seed-{n}/adapter" for n in range(N)]


def overlapping(labels, figure):
    """Pairs of texts whose boxes overlap on the page."""
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in labels if label.get_text()]
    return [
        (n, m) for n, a in enumerate(boxes) for m, b in enumerate(boxes[:n])
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
    ]  # fmt: skip


def inside(texts, figure):
    """Whether no text leaves the page."""
    figure.draw_without_rendering()
    page = figure.bbox
    boxes = [text.get_window_extent() for text in texts if text.get_text() and text.get_visible()]
    return all(
        b.x0 >= page.x0 - 1 and b.x1 <= page.x1 + 1 and b.y0 >= page.y0 - 1 and b.y1 <= page.y1 + 1
        for b in boxes
    )


def texts(figure):
    from matplotlib.text import Text

    return [artist for artist in figure.findobj(Text) if artist.get_text().strip()]


# The map of all pairs


def test_triangles_are_the_two_measures_in_the_order_of_the_tree():
    S, P = similarities(7), similarities(7, seed=1)
    tree = cluster_tree(S)
    axes = library_map(S, names(7), lower=P, tree=tree, least=0.15)
    drawn = np.ma.filled(axes.images[0].get_array(), np.nan)
    order = list(tree.order)
    upper, lower = np.triu_indices(7, 1), np.tril_indices(7, -1)
    np.testing.assert_array_equal(drawn[upper], S[np.ix_(order, order)][upper])
    np.testing.assert_array_equal(drawn[lower], P[np.ix_(order, order)][lower])
    assert np.isnan(np.diag(drawn)).all()
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [f"seed-{n}" for n in order] == [label.get_text() for label in axes.get_xticklabels()]


def test_the_tree_joins_at_the_heights_of_its_merges_above_its_leaves():
    S = similarities(9)
    tree = cluster_tree(S)
    figure = library_map(S, names(9), tree=tree, least=0.3).figure
    (above,) = [axes for axes in figure.axes if axes.get_ylabel() == "mean likeness"]
    segments = above.collections[0].get_segments()
    assert [segment[1][1] for segment in segments] == pytest.approx(list(tree.merges[:, 2]))
    feet = sorted(x for segment in segments for x, y in (segment[0], segment[-1]) if y == 0)
    assert feet == list(range(9))
    assert above.get_xlim() == figure.axes[0].get_xlim()
    assert [line.get_ydata()[0] for line in above.lines] == [pytest.approx(0.7)]


def test_the_scale_has_a_negative_half_only_where_there_is_one():
    S = np.clip(similarities(6), 0, 1)
    assert library_map(S, names(6)).images[0].get_clim() == (0.0, 1.0)
    S[0, 1] = S[1, 0] = -0.4
    assert library_map(S, names(6)).images[0].get_clim() == (-1.0, 1.0)


@pytest.mark.parametrize("N", [2, 5, 23, pytest.param(60, marks=pytest.mark.slow)])
def test_names_are_legible(N):
    S = similarities(N)
    axes = library_map(S, [f"out/{'long' * 12}/run-{n}" for n in range(N)], tree=cluster_tree(S), least=0.15)
    assert len(axes.get_yticklabels()) == N
    for labels in (axes.get_yticklabels(), axes.get_xticklabels()):
        assert overlapping(labels, axes.figure) == []
    assert inside(texts(axes.figure), axes.figure)


def test_more_adapters_than_have_room_are_counted():
    axes = library_map(similarities(61), names(61))
    assert not axes.get_yticklabels() and axes.get_xlabel() == "61 adapters"


def test_the_map_alone_on_axes_of_the_caller():
    axes = new_figure(5, 4).add_subplot()
    assert library_map(similarities(4), names(4), tree=cluster_tree(similarities(4)), ax=axes) is axes
    assert len(axes.figure.axes) == 2  # with its scale


def test_maps_that_cannot_be_drawn():
    with pytest.raises(ShapeError, match="Similarities that do not fit 3 adapters"):
        library_map(np.eye(4), names(3))
    with pytest.raises(InconclusiveError, match="There is no pair to draw"):
        library_map(np.full((3, 3), np.nan), names(3))
    with pytest.raises(InconclusiveError):
        library_map(np.eye(1), names(1))


# Neighbours


def test_neighbours_are_the_most_similar_ones():
    S = similarities(8)
    axes = nearest_adapters(S, names(8), neighbours=3)
    drawn = np.asarray(axes.images[0].get_array())
    np.fill_diagonal(S, -2)
    np.testing.assert_array_equal(drawn, np.clip(np.sort(S, axis=1)[:, :-4:-1], 0, 1))
    written = [text.get_text() for text in axes.texts]
    first = int(np.argmax(S[0]))
    assert written[:2] == [f"seed-{first}", f"{S[0, first]:.2f}"]


def test_of_many_adapters_those_with_the_nearest_neighbours_have_a_row():
    S = similarities(50)
    axes = nearest_adapters(S, names(50))
    np.fill_diagonal(S, -2)
    rows = sorted(np.argsort(-S.max(axis=1), kind="stable")[:40])
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"seed-{n}" for n in rows]
    assert axes.get_title(loc="left") == "the 40 of 50 adapters with the nearest neighbours"
    assert inside(texts(axes.figure), axes.figure)


def test_an_adapter_without_a_neighbour_says_none():
    S = similarities(4)
    S[2] = S[:, 2] = np.nan
    axes = nearest_adapters(S, names(4), neighbours=5)
    assert axes.images[0].get_array().shape == (4, 3)
    assert sum(text.get_text() == "none" for text in axes.texts) == 3 + 3
    with pytest.raises(InconclusiveError, match="There is no neighbour to draw"):
        nearest_adapters(np.eye(1), names(1))
    with pytest.raises(ShapeError):
        nearest_adapters(np.eye(2), names(3))


# Layers


def test_every_kind_of_module_has_a_heatmap_with_its_means():
    rng = np.random.default_rng(0)
    phi = {
        "layers.*.attn.q": np.full((5, 5), 0.1) + 0.4 * np.eye(5),
        "layers.*.mlp.up": rng.uniform(0, 0.3, (3, 3)),
    }
    first = layer_by_layer(
        phi, {"layers.*.attn.q": range(5), "layers.*.mlp.up": [3, 7, 11]}, chance=dict.fromkeys(phi, 0.01)
    )
    drawn = [axes for axes in first.figure.axes if axes.get_title(loc="left")][:2]
    for axes, grid in zip(drawn, phi.values(), strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), grid)
        assert axes.images[0].get_clim() == (0, 0.5)
    assert drawn[0].get_title(loc="left").splitlines() == [
        "q", "same layer 0.50, other 0.10", "isotropic random spans 0.01",
    ]  # fmt: skip
    assert [label.get_text() for label in drawn[1].get_xticklabels()] == ["3", "7", "11"]
    assert overlapping(texts(first.figure), first.figure) == []


def test_layers_on_a_page_do_not_overlap():
    phi = {f"layers.*.{name}": np.full((40, 40), 0.3) for name in ("q", "k", "v", "o", "gate", "up", "down")}
    first = layer_by_layer(phi, chance=dict.fromkeys(phi, 0.0123))
    assert overlapping(texts(first.figure), first.figure) == []
    assert inside(texts(first.figure), first.figure)


def test_layers_that_do_not_fit():
    with pytest.raises(ShapeError, match=r"Not a square of 2 layers: shape \(2, 3\), in q"):
        layer_by_layer({"q": np.ones((2, 3))})
    with pytest.raises(ShapeError, match="One axes for 2 kinds of module"):
        layer_by_layer({"q": np.eye(2), "k": np.eye(2)}, ax=new_figure(3, 3).add_subplot())
    with pytest.raises(InconclusiveError, match="There are no layers to draw"):
        layer_by_layer({})


# Lineage

RUN = [(0, 1, "continued"), (1, 2, "branch"), (2, 3, "continued"), (1, 4, "branch"), (5, 6, "unordered")]


def places(axes):
    """Where the name of every node stands."""
    return {text.get_text(): tuple(text.xy) for text in axes.texts}


def test_a_row_for_each_line_and_a_column_for_each_step_of_it():
    axes = lineage_graph(RUN, names(7), groups=[(0, 1, 2, 3, 4), (5, 6)])
    assert places(axes) == {
        "seed-0": (0, 0), "seed-1": (1, 0), "seed-2": (2, 0), "seed-3": (3, 0), "seed-4": (2, 1), "seed-5": (0, 2),
        "seed-6": (1, 2),
    }  # fmt: skip
    assert len(axes.patches) == len(RUN)
    dashed = [patch for patch in axes.patches if patch.get_linestyle() != "-"]
    assert len(dashed) == 1 and "dashed: order unknown" in axes.get_title(loc="left")
    assert len({(line.get_color(), line.get_marker()) for line in axes.lines}) == 2


def test_columns_are_steps_where_all_are_known():
    steps = [100, 300, 500, 900, 400, 100, 300]
    axes = lineage_graph(RUN, names(7), steps=steps)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["100", "300", "400", "500", "900"]
    assert axes.get_xlabel() == "step (not to scale)"
    assert places(axes)["seed-4"] == (2, 1) and places(axes)["seed-3"] == (4, 0)
    assert lineage_graph(RUN[:1], names(2), steps=[1, 2]).get_xlabel() == "step"
    assert lineage_graph(RUN[:1], names(2), steps=[1, None]).get_xlabel() == "place in the line"


@pytest.mark.parametrize("n", [3, 8, 9, 40])
def test_a_long_run_has_room_for_its_names(n):
    edges = [(k, k + 1, "continued") for k in range(n - 1)]
    axes = lineage_graph(edges, [f"out/a-long-name-of-a-run/checkpoint-{k}" for k in range(n)])
    assert overlapping(texts(axes.figure), axes.figure) == []
    assert inside(texts(axes.figure), axes.figure)
    assert len(axes.texts) == (n if n <= 8 else 0)


def test_adapters_without_an_edge_and_lines_past_the_page_are_left_out():
    assert "seed-2" not in places(lineage_graph(RUN[:1], names(3)))
    many = [(2 * k, 2 * k + 1, "continued") for k in range(70)]
    axes = lineage_graph(many, names(140))
    assert len(axes.patches) == 60 and axes.get_title(loc="left") == "20 more adapters"
    with pytest.raises(InconclusiveError, match="There is no lineage to draw"):
        lineage_graph([], names(3))


def test_a_circle_of_edges_is_drawn_all_the_same():
    axes = lineage_graph([(0, 1, "continued"), (1, 0, "continued")], names(2))
    assert len(places(axes)) == 2


# Names


def test_names_of_adapters():
    assert adapter_titles(["a/x/w", "a/y/w", "b/y/w"]) == ["x", "a/y", "b/y"]
    assert adapter_titles(["same", "same"]) == ["same [1]", "same [2]"]
    assert adapter_titles(["only/one/here"]) == ["here"]
    assert adapter_titles([]) == []
    assert all(len(name) <= 28 for name in adapter_titles([f"{'x' * 99}{n}{'y' * 99}" for n in range(3)]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["png", "svg"])
def test_any_text_is_drawn_as_it_is_without_a_warning(kind, caplog):
    N = len(NASTY)
    edges = [(n, n + 1, "continued") for n in range(N - 1)]
    with caplog.at_level(logging.WARNING):
        for axes in (
            library_map(similarities(N), NASTY, measures=(NASTY[0], NASTY[2]), lower=similarities(N)),
            nearest_adapters(similarities(N), NASTY, measure=NASTY[1]),
            layer_by_layer(dict.fromkeys(NASTY, np.eye(2)), pair=(NASTY[2], NASTY[3]), measure=NASTY[0]),
            lineage_graph(edges, NASTY),
        ):
            assert rendered(axes.figure, kind, dpi=50)
    assert not caplog.records
