"""Linear algebra of subspaces on NumPy arrays: frames, angles, similarity, chance, spectra.

`B` and `A` are two factors of a product here, and nothing more.

The names are loaded on first use, since a command waits for every file that is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subspace.geometry import factored
    from subspace.geometry.chance import (
        holm,
        largest_root_p,
        phi_mean,
        phi_quantile,
        phi_sd,
        phi_z,
        projection_mean_sd,
        sample_cos2,
        shared_dimension_p,
    )
    from subspace.geometry.frame import Frame, overlap, product_frame, product_frames, row_frame
    from subspace.geometry.grassmann import distances, phi_grid, principal_angles
    from subspace.geometry.spectrum import (
        effective_rank,
        energy_rank,
        numerical_rank,
        participation_ratio,
        stable_rank,
    )
    from subspace.geometry.topk import Leading, leading, project

_WHERE = {
    "Frame": "frame",
    "Leading": "topk",
    "distances": "grassmann",
    "effective_rank": "spectrum",
    "energy_rank": "spectrum",
    "holm": "chance",
    "largest_root_p": "chance",
    "leading": "topk",
    "numerical_rank": "spectrum",
    "overlap": "frame",
    "participation_ratio": "spectrum",
    "phi_grid": "grassmann",
    "phi_mean": "chance",
    "phi_quantile": "chance",
    "phi_sd": "chance",
    "phi_z": "chance",
    "principal_angles": "grassmann",
    "product_frame": "frame",
    "product_frames": "frame",
    "project": "topk",
    "projection_mean_sd": "chance",
    "row_frame": "frame",
    "sample_cos2": "chance",
    "shared_dimension_p": "chance",
    "stable_rank": "spectrum",
}

__all__ = [
    "Frame",
    "Leading",
    "distances",
    "effective_rank",
    "energy_rank",
    "factored",
    "holm",
    "largest_root_p",
    "leading",
    "numerical_rank",
    "overlap",
    "participation_ratio",
    "phi_grid",
    "phi_mean",
    "phi_quantile",
    "phi_sd",
    "phi_z",
    "principal_angles",
    "product_frame",
    "product_frames",
    "project",
    "projection_mean_sd",
    "row_frame",
    "sample_cos2",
    "shared_dimension_p",
    "stable_rank",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
