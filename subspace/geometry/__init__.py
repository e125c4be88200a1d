"""Linear algebra of subspaces on NumPy arrays: frames, angles, similarity, chance, spectra.

`B` and `A` are two factors of a product here, and nothing more.
"""

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
