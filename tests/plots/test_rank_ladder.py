"""The ladder shows what each candidate kept at its size, with its limit, and which one is advised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import subspace
from subspace.errors import InconclusiveError
from subspace.plots import rank_ladder, style
from subspace.results.tested_ranks import Candidate, MeasuredRanks


def _candidate(name, parameters, kept, upper, *, enough):
    return Candidate(name, (), {"q": 1}, parameters, 2.0, 1 - kept, upper, kept, enough)


def _found(advised="uniform 2"):
    some = (
        _candidate("uniform 4", 0.5, 0.999, 0.002, enough=True),
        _candidate("knee", 0.49, 0.998, 0.003, enough=True),
        _candidate("energy 0.95", 0.47, 0.998, 0.003, enough=True),
        _candidate("uniform 2", 0.25, 0.97, 0.04, enough=True),
        _candidate("uniform 1", 0.125, 0.8, 0.3, enough=False),
    )
    tested = MeasuredRanks(
        "m", "d", 9, "text", 3.0, 2.0, 1.0, 0.9, 1.1, 0.05, 0.05, 0.95, some, advised, 100, 0
    )
    rng = np.random.default_rng(0)
    found = subspace.spectrum(
        {"q.lora_A": rng.standard_normal((8, 9)), "q.lora_B": rng.standard_normal((9, 8))}
    )
    return replace(found, evaluated=tested)


def test_points_are_the_candidates_and_bars_end_at_their_limits():
    axes = rank_ladder(_found())
    uniform, rules = axes.containers
    np.testing.assert_allclose(
        uniform.lines[0].get_data(orig=False), [[0.5, 0.25, 0.125], [0.999, 0.97, 0.8]]
    )
    np.testing.assert_allclose(rules.lines[0].get_xdata(orig=False), [0.49, 0.47])
    ends = [segment[0, 1] for segment in uniform.lines[2][0].get_segments()]
    np.testing.assert_allclose(ends, [1 - 0.002, 1 - 0.04, 1 - 0.3])
    lines = {line.get_label(): line for line in axes.lines}
    assert set(lines["gain to be kept"].get_ydata()) == {0.95}
    np.testing.assert_allclose(lines["advised"].get_data(orig=False), [[0.25], [0.97]])


def test_names_that_would_overlap_are_one_and_stay_on_the_page():
    axes = rank_ladder(_found())
    assert [text.get_text() for text in axes.texts] == ["4", "2", "1", "knee, energy 0.95"]
    with style.paper_style():
        axes.figure.draw_without_rendering()
    frame = axes.get_window_extent()
    for text in axes.texts:
        box = text.get_window_extent()
        assert frame.y0 <= box.y0 and box.y1 <= frame.y1


def test_without_a_test_or_an_answer_there_is_no_ladder():
    with pytest.raises(InconclusiveError, match="no ranks were tested; give `data`"):
        rank_ladder(replace(_found(), evaluated=None))
    with pytest.raises(InconclusiveError, match="makes no clear difference"):
        rank_ladder(_found(advised=None))
