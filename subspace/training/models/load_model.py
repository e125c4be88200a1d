"""The base that a user names, as a model with its tokenizer and its task."""

from __future__ import annotations

from collections.abc import Sequence

from subspace.errors import ValueRangeError
from subspace.hub import SCHEME
from subspace.text import listed, shown
from subspace.training import embedded
from subspace.training.models.loaded_base import Base
from subspace.training.models.model_directory import directory_of
from subspace.training.models.pretrained import pretrained
from subspace.training.models.tokens import Encoder

__all__ = ["load_base"]

_TOKENIZERS = ("auto", "bytes")


def load_base(
    given: str, *, labels: Sequence[str] = (), seed: int = 0, tokenizer: str = "auto", length: int = 128
) -> Base:
    """Return the model that a run adapts.

    Parameters
    ----------
    given : "embedded"; a directory as transformers' ``save_pretrained`` writes it; or ``[hf://][org/]name[@revision]``
        of the Hugging Face hub, without hf:// where no such path exists
    labels : the classes that a new head predicts, in the order of their numbers; none: the text is modelled
    seed : of a head that starts at random
    tokenizer : "auto", the model's own, or "bytes", where ids are the bytes of UTF-8
    length : most tokens of a text to classify, at least 1; longer texts are cut

    Raises
    ------
    FileError : no such model, a file that is missing or damaged, transformers not installed
    UnsafeFileError : weights that ask for anything but plain tensors
    FormatError : a model that transformers does not know, whose weights do not fit, or that needs code of its own
    ValueRangeError : a model that cannot do the task, fewer than two labels, an unknown tokenizer

    Notes
    -----
    No code of a model is run. Weights are read as all files here are, and widened to float32; torch's random state does
    not change.
    """
    if tokenizer not in _TOKENIZERS:
        raise ValueRangeError(f"Unknown tokenizer '{shown(tokenizer)}'; give `tokenizer` as auto or bytes")
    if length < 1:
        raise ValueRangeError(f"Invalid `length` {length}: it must be at least 1")
    if labels and (len(labels) < 2 or len(set(labels)) < len(labels)):
        raise ValueRangeError(
            f"A classifier needs at least two different labels, and these are {listed(labels, most=8)}; check the "
            "column"
        )
    if given == "embedded":
        return _embedded(labels)
    name = given.removeprefix(SCHEME)  # as PEFT knows it
    return pretrained(
        directory_of(given), name, labels=labels, seed=seed, as_bytes=tokenizer == "bytes", length=length
    )


def _embedded(labels: Sequence[str]) -> Base:
    if labels:
        raise ValueRangeError(
            f"The embedded model cannot classify, and the data have {len(labels)} labels; choose another `model`, or "
            "turn `labels` off to model the texts alone"
        )
    model = embedded.load()
    limit = model.shape.max_position_embeddings
    in_bytes = Encoder(None, model.shape.vocab_size, False, limit, None, 0, "embedded")
    return Base(model, "lm", in_bytes, "embedded", "llama", limit, pad=0, heads=(), notes=())
