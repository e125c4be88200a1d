"""A stream of tokens takes the memory of its ids, not of Python's objects."""

import numpy as np
import pytest

from subspace.training.models import load_base
from subspace.training.tasks import _stream


@pytest.fixture(scope="module")
def base():
    return load_base("embedded")


def test_bytes_are_a_byte_each(base):
    stream, n_bytes = _stream(base, ["é", "ab"])
    assert stream.tolist() == list("é\n\nab".encode()) and stream.dtype == np.uint8 and n_bytes == 6


def test_an_unpaired_surrogate_counts_as_what_stands_for_it(base):
    stream, n_bytes = _stream(base, ["a\ud800", "b"])
    assert bytes(stream) == b"a?\n\nb" and n_bytes == len(stream)
