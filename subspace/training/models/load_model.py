"""From what a user names to a model, its tokens and its task."""

from __future__ import annotations

from collections.abc import Sequence

from subspace.errors import ValueRangeError
from subspace.text import shown
from subspace.training import embedded
from subspace.training.models.loaded_base import Base
from subspace.training.models.model_directory import directory_of
from subspace.training.models.pretrained import pretrained

__all__ = ["load_base"]

_TOKENIZERS = ("auto", "bytes")


def load_base(
    given: str, *, labels: Sequence[str] = (), seed: int = 0, tokenizer: str = "auto", length: int = 128
) -> Base:
    """Return the model that a run adapts.

    Parameters
    ----------
    given : "embedded"; a directory as transformers' ``save_pretrained`` writes it; or ``[org/]name[@revision]`` of the
        Hugging Face hub, where no such path exists
    labels : the classes, in the order of their numbers, to be told apart by a new head; none: the text is modelled
    seed : of a head that starts at random
    tokenizer : "auto", the model's own, or "bytes", by which ids are the bytes of UTF-8
    length : most tokens of a text to classify, at least 1; longer ones are cut

    Raises
    ------
    FileError : no such model, a file that is missing or damaged, transformers not installed
    UnsafeFileError : weights that ask for anything but plain tensors
    FormatError : a model that transformers does not know, whose weights do not fit, or that needs code of its own
    ValueRangeError : a model that cannot do what is asked of it, labels that are no choice, an unknown tokenizer

    Notes
    -----
    No code of a model is run. Weights are read as all files here are, and widened to float32; the random numbers of
    torch are left as they were.
    """
    if tokenizer not in _TOKENIZERS:
        raise ValueRangeError(f"a tokenizer must be auto or bytes: got {shown(tokenizer)}; choose one")
    if length < 1:
        raise ValueRangeError(f"a length must be at least 1: got {length}")
    if labels and (len(labels) < 2 or len(set(labels)) < len(labels)):
        listed = shown(", ".join(labels))
        raise ValueRangeError(f"labels must be at least two, each another: got {listed}; check the column")
    if given == "embedded":
        return _embedded(labels)
    return pretrained(
        directory_of(given), given, labels=labels, seed=seed, as_bytes=tokenizer == "bytes", length=length
    )


def _embedded(labels: Sequence[str]) -> Base:
    if labels:
        raise ValueRangeError(
            f"a base must take a classifier where data have labels: got embedded, which has none, for {len(labels)} "
            "labels; name another base, or give --no-labels to model the text"
        )
    model = embedded.load()
    limit = model.shape.max_position_embeddings
    return Base(model, "lm", utf8, "embedded", "llama", limit, pad=0, heads=(), notes=())


def utf8(text: str) -> list[int]:
    """Bytes of a text, each an id in [0, 256); a question mark for half a character, which has none."""
    return list(text.encode("utf-8", "replace"))
