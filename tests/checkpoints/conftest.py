import pytest


@pytest.fixture
def written(tmp_path):
    """Write bytes to a file and give its path."""

    def write(raw, name="weights"):
        path = tmp_path / name
        path.write_bytes(raw)
        return path

    return write
