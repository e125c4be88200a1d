"""Linear algebra of subspaces on NumPy arrays: frames, angles, similarity, chance, spectra.

`B` and `A` are two factors of a product here, and nothing more.
"""

from subspace.geometry import factored
from subspace.geometry.frame import Frame, overlap, product_frame, product_frames, row_frame
from subspace.geometry.grassmann import distances, phi_grid, principal_angles

__all__ = [
    "Frame",
    "distances",
    "factored",
    "overlap",
    "phi_grid",
    "principal_angles",
    "product_frame",
    "product_frames",
    "row_frame",
]
