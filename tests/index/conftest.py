import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from synthetic_library import plant_library

from subspace.index import Index


@pytest.fixture(scope="session")
def planted(tmp_path_factory):
    return plant_library(tmp_path_factory.mktemp("library") / "l", 60)


@pytest.fixture(scope="session")
def of_eight(planted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("of_eight") / "index"
    with Index(folder) as index:
        index.add(planted.paths[:8])
    return folder


@pytest.fixture
def index(tmp_path, of_eight):
    """An index of its own of the first eight planted adapters."""
    with Index(shutil.copytree(of_eight, tmp_path / "index")) as index:
        yield index
