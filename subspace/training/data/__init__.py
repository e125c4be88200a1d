"""Training data from untrusted files: texts, with or without classes, and the order in which they are shown.

`read_examples` reads files or folders, `documentation` a text that comes with Python; both give `Examples`, and
`load_examples` either of them or a control of it, such as the text with its characters shuffled. The orders are pure
functions of their arguments, so a run that resumes needs no saved state. Standard library and NumPy only,
but for Parquet and saved data sets, whose libraries are imported when there are such.
"""

from subspace.training.data.examples import Examples, read_examples
from subspace.training.data.load_examples import READING, load_examples
from subspace.training.data.order import epoch_batch, split, split_stream, window_starts
from subspace.training.data.pydoc import documentation

__all__ = [
    "READING",
    "Examples",
    "documentation",
    "epoch_batch",
    "load_examples",
    "read_examples",
    "split",
    "split_stream",
    "window_starts",
]


def __dir__() -> list[str]:
    return __all__
