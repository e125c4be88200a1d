"""Imported before NumPy: one BLAS thread, BLAS's own choice of kernel, and compiled Python as installed."""

from __future__ import annotations

import os

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
os.environ.update(dict.fromkeys(_THREADS, "1"))
os.environ.setdefault("SUBSPACE_CACHE", "off")  # what an earlier run has found would be no measurement
# without bytecode every child would compile the package under test anew, but not the installed ones
for _name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "PYTHONDONTWRITEBYTECODE"):
    os.environ.pop(_name, None)
