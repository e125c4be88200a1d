"""The configuration of a base, without what in it would choose code, and the task that it is for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from subspace.checkpoints import read_json
from subspace.errors import FormatError, SubspaceError, ValueRangeError
from subspace.text import shown

__all__ = ["model_class", "read_config", "task_of", "transformers_errors", "typed_config"]

# what would fetch kernels, replace layers, name files or run code; and types, for all is float32 here
_LEFT_OUT = frozenset(
    """
    attn_implementation _attn_implementation _attn_implementation_internal experts_implementation
    _experts_implementation _experts_implementation_internal fusion_config distributed_config
    transformers_weights auto_map custom_pipelines dtype torch_dtype
    """.split()
)
_MOST_LAYERS = 2000
_OF_LAYERS = re.compile(r"layers?$|^n_layers?$|depth$|num_\w*blocks$")
_MAPPINGS = {
    "lm": "MODEL_FOR_CAUSAL_LM_MAPPING",
    "seq2seq": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
    "classify": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING",
}


@contextmanager
def transformers_errors(what: str, given: str, cure: str) -> Iterator[None]:
    """Turn whatever transformers raises into one line: what failed, with which base, why, and the cure.

    Parameters
    ----------
    what : beginning of the message, such as "transformers cannot build the model"
    given : the base, as the user named it
    cure : what to do

    Raises
    ------
    FormatError : transformers raised something
    """
    try:
        yield
    except SubspaceError:
        raise
    except BaseException as error:  # it lets out a dozen kinds of them on files that are not as it expects
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # which is Rust's
            raise
        message = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
        if "trust_remote_code" in message:  # which it advises
            message = "it needs code of its own (auto_map), which is never run"
        raise FormatError(f"{what} of {shown(given)}: {shown(message)}; {cure}") from error


def read_config(folder: Path) -> dict[str, Any]:
    """Return the content of ``config.json``.

    Raises
    ------
    FileError : it is not one JSON object
    """
    return read_json(folder / "config.json")


def typed_config(transformers: Any, stored: dict[str, Any], given: str, *, labels: Sequence[str]) -> Any:
    """Return the stored configuration as transformers' type, with these classes.

    Parameters
    ----------
    transformers : the module
    stored : content of ``config.json``
    given : the base, as the user named it
    labels : the classes; none for a language model

    Raises
    ------
    FormatError : a type of model that transformers does not know, code of the model's own, quantised weights
    """
    kind = stored.get("model_type")
    if not isinstance(kind, str) or kind not in transformers.CONFIG_MAPPING:
        raise _unknown(transformers, stored, given)
    if stored.get("quantization_config"):
        raise FormatError(
            f"The weights of {shown(given)} are quantised (quantization_config), and a base must be of a floating "
            "type; give the model that they were made from"
        )
    _require_layers(stored, given)
    clean = _without(stored)
    clean.pop("num_labels", None)  # from which transformers makes as many names
    if labels:
        clean["id2label"] = dict(enumerate(labels))
        clean["label2id"] = {label: n for n, label in enumerate(labels)}
    with transformers_errors("transformers cannot read config.json", given, "download or save it again"):
        return transformers.CONFIG_MAPPING[kind].from_dict(clean)


def _require_layers(stored: Any, given: str) -> None:
    """Refuse more layers than any model has, each of which transformers would build."""
    for key, value in stored.items() if isinstance(stored, dict) else ():
        if isinstance(value, dict):
            _require_layers(value, given)
        elif isinstance(value, int) and value > _MOST_LAYERS and _OF_LAYERS.search(key):
            raise FormatError(
                f"Invalid {shown(key)} in config.json: {value}, and no model has more than {_MOST_LAYERS:,} layers, in "
                f"{shown(given, longest=1000)}; download or save it again"
            )


def _without(stored: Any) -> Any:
    if isinstance(stored, dict):
        return {key: _without(value) for key, value in stored.items() if key not in _LEFT_OUT}
    return stored


def _unknown(transformers: Any, stored: dict[str, Any], given: str) -> FormatError:
    kind = f"model_type {shown(stored['model_type'])}" if "model_type" in stored else "no model_type"
    if stored.get("auto_map"):
        return FormatError(
            f"The model {shown(given)} ({kind}) needs code of its own (auto_map), which is never run; choose a model "
            f"that transformers {transformers.__version__} knows"
        )
    return FormatError(
        f"The installed transformers {transformers.__version__} does not know the model {shown(given)}: config.json "
        f"has {kind}; check it, or upgrade transformers"
    )


def task_of(transformers: Any, config: Any, given: str, *, labels: Sequence[str]) -> str:
    """Return what a model is trained to do: "classify" with labels, else "seq2seq" or "lm" by what it is.

    Parameters
    ----------
    transformers : the module
    config : of the model
    given : the base, as the user named it
    labels : the classes; none for a language model

    Raises
    ------
    ValueRangeError : without labels, a model that sees the tokens on both sides, which cannot predict the next one
    """
    if labels:
        return "classify"
    if config.is_encoder_decoder:
        return "seq2seq"
    # BERT and its relatives are in the mapping of causal models too, where they are decoders
    masked = type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING
    if masked and not getattr(config, "is_decoder", False):
        raise ValueRangeError(
            f"The model {shown(given)} ({shown(config.model_type)}) predicts masked tokens, not the next one; give "
            "data with labels, or a causal model"
        )
    return "lm"


def model_class(transformers: Any, config: Any, task: str, given: str) -> Any:
    """Return transformers' class of a model for a task, as its Auto classes choose it.

    Parameters
    ----------
    transformers : the module
    config : of the model
    task : "lm", "seq2seq" or "classify"
    given : the base, as the user named it

    Raises
    ------
    ValueRangeError : there is none
    """
    mapping = getattr(transformers, _MAPPINGS[task])
    if type(config) not in mapping:
        can = {"lm": "predict the next token", "seq2seq": "predict a text", "classify": "classify"}[task]
        raise ValueRangeError(
            f"The model {shown(given)} cannot {can}: transformers has no such model of the type "
            f"{shown(config.model_type)}; choose another base"
        )
    with transformers_errors("transformers cannot build the model", given, "install what it needs"):
        found = mapping[type(config)]
    return found[0] if isinstance(found, (tuple, list)) else found
