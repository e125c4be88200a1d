"""A text that is already on the machine: the language reference that Python's own help() shows."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from importlib import import_module

from subspace.errors import FileError
from subspace.text import shown
from subspace.training.data.examples import Examples

__all__ = ["documentation"]

_MODULE = "pydoc_data.topics"


def documentation() -> Examples:
    """Return CPython's help topics as one unlabelled text, about 0.5 MB, in the order of their names.

    Raises
    ------
    FileError
        If this Python comes without them.

    Notes
    -----
    The text differs from one release of Python to the next; `sha256` of the result says which it was.

    Examples
    --------
    >>> "if" in documentation().texts[0]
    True
    """
    # a topic ends in a line break of its own
    text = "\n".join(text for _, text in sorted(_topics().items()))
    return Examples(_MODULE, (text,), None, (), (), sha256(text.encode("utf-8")).hexdigest())


def _topics() -> Mapping[str, str]:
    try:
        topics = import_module(_MODULE).topics
    except (ImportError, AttributeError) as error:
        raise _without(str(error)) from None
    if not isinstance(topics, Mapping) or not topics or not all(isinstance(v, str) for v in topics.values()):
        raise _without("topics that are not texts")
    return topics


def _without(found: str) -> FileError:
    return FileError(
        f"This Python comes without its help topics: {shown(found)}, in {_MODULE}; use a Python from python.org, conda "
        "or uv, or train on a text file of your own"
    )
