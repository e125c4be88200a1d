"""Fixtures shared by all tests: threads held to one, and real adapters where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ["SUBSPACE_CACHE"] = "off"  # what another run has found is none of a test's business

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

# the same examples every time, so that a change fails by itself alone; new ones: pytest --hypothesis-profile=default
# a busy machine is no fault of a test
settings.register_profile(
    "repeatable",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")

_DATA = Path(os.environ.get("SUBSPACE_TEST_DATA", Path(__file__).parents[2] / "shared"))


@pytest.fixture(scope="session")
def real_adapters() -> Path:
    """The folder of published adapters; a test that asks for it is skipped where there is none."""
    folder = _DATA / "real-adapters"
    if not folder.is_dir():
        pytest.skip(f"no published adapters at {folder}; set SUBSPACE_TEST_DATA to a folder that holds them")
    return folder
