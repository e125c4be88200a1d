"""phi where nothing is shared: of two matrices of independent Gaussian numbers, whose spans are isotropic."""

from __future__ import annotations

import numpy as np

from subspace.plots.panel import Panel

__all__ = ["random_panel"]


def random_panel(n_i: int, n_j: int, d: int, seed: int = 0, *, title: str = "Random Gaussian") -> Panel:
    """Return phi of two random Gaussian matrices, (n_i, d) against (n_j, d): the right panel of figure 4.

    Parameters
    ----------
    n_i, n_j : int
        Ranks of the two; at most `d`.
    d : int
        Dimension of the space.
    seed : int
        Seed of the draw; equal seeds give equal panels.
    title : str
        Title of the panel.

    Notes
    -----
    The matrices are drawn and decomposed as an adapter's would be, not replaced by the closed form of the mean,
    max(i, j) / d, so the panel checks the method as well as showing the level. O((n_i + n_j)^2 d).

    References
    ----------
    Hu et al., arXiv 2106.09685v2, figures 4 and 8.

    Examples
    --------
    >>> panel = random_panel(1, 3, 3)
    >>> bool(abs(panel.phi[0, 2] - 1) < 1e-12)  # three directions fill the space
    True
    """
    from subspace.geometry.frame import overlap, row_frame
    from subspace.geometry.grassmann import phi_grid

    rng = np.random.default_rng(seed)
    first, second = (row_frame(rng.standard_normal((n, d))) for n in (n_i, n_j))
    phi = phi_grid(overlap(first, second))
    return Panel(phi, d=d, title=title, r_first=n_i, r_second=n_j)
