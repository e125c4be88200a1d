from collections.abc import Callable

import numpy as np
import pytest

from subspace.plots import Panel

MakePanel = Callable[..., Panel]


@pytest.fixture
def make_panel() -> MakePanel:
    """A panel with one strong shared direction, and noise that differs from cell to cell."""

    def make(n_i: int = 8, n_j: int = 64, d: int = 768, **fields: object) -> Panel:
        i, j = np.arange(1, n_i + 1)[:, None], np.arange(1, n_j + 1)[None, :]
        noise = np.random.default_rng(n_i * n_j).uniform(0, 0.05, (n_i, n_j))
        phi = 0.7 / np.minimum(i, j) + noise
        return Panel(phi, d=d, **{"title": "q", **fields})

    return make
