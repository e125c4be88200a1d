"""A base in transformers' layout, built by transformers from tensors that are read here."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from subspace.errors import FileError
from subspace.text import counted, listed, shown
from subspace.training.models import heads, label_names, tokens
from subspace.training.models.loaded_base import Base
from subspace.training.models.model_config import (
    model_class,
    read_config,
    task_of,
    transformers_errors,
    typed_config,
)
from subspace.training.models.model_weights import read_weights

__all__ = ["pretrained"]


def pretrained(
    folder: Path, given: str, *, labels: Sequence[str], seed: int, as_bytes: bool, length: int
) -> Base:
    """Return the base in a directory with configuration and weights.

    Parameters
    ----------
    folder : the directory
    given : the base, as the user named it
    labels, seed, length : as `load_base` has them
    as_bytes : ids are the bytes of UTF-8, whatever tokenizer the model has

    Raises
    ------
    SubspaceError : those of `load_base`
    """
    stored = read_config(folder)
    transformers = _transformers(given)
    names = label_names.stored_names(stored)
    order = label_names.in_order_of(names, labels) if labels else None
    labels = order or tuple(labels)
    with _quiet(transformers), torch.random.fork_rng(devices=[]):
        config = typed_config(transformers, stored, given, labels=labels)
        task = task_of(transformers, config, given, labels=labels)
        tokenizer = None if as_bytes else tokens.read_tokenizer(transformers, folder, config, given)
        model, info = _model(transformers, config, task, folder, given)
        fresh = _fresh(model, info, task, given, known=order is not None)
        heads.start(model, fresh, seed=seed)
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    if as_bytes:
        tokens.require_bytes(vocabulary, given)
    pad, limit = tokens.pad_of(tokenizer, vocabulary), tokens.limit_of(model, tokenizer)
    _complete(model, task, pad)
    most = min(length, limit or length)
    end = model.config.eos_token_id if config.is_encoder_decoder and task == "classify" else None
    stop, typed = tokens.stop_of(tokenizer, vocabulary), tokens.has_segments(model)
    encode = tokens.Encoder(tokenizer, vocabulary, task == "classify", most, end, pad, given, stop, typed)
    started = heads.heads_of(model, fresh)
    head = _head_note(model, info, fresh, names, labels, order) if labels else None
    notes = _notes(stored, info, task, started, head, seed=seed, cut=most < length, most=most)
    return Base(model, task, encode, given, str(stored["model_type"]), limit, pad, started, notes, labels)


def _transformers(given: str) -> Any:
    try:
        import transformers
    except ImportError:
        raise FileError(
            f"The package transformers is not installed, which every base but the embedded one needs: {shown(given)}; "
            "pip install 'lora-subspace[hf]'"
        ) from None
    return transformers


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Silence transformers' messages and progress bars; they are turned on again afterwards."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.set_verbosity(logging.CRITICAL)
        log.disable_progress_bar()
        try:
            yield
        finally:
            log.set_verbosity(level)
            if bars:
                log.enable_progress_bar()


def _model(transformers: Any, config: Any, task: str, folder: Path, given: str) -> tuple[Any, dict[str, Any]]:
    """The model with its weights, and transformers' ``output_loading_info``."""
    kind = model_class(transformers, config, task, given)
    if not isinstance(config, kind.config_class):
        config = config.get_text_config()
    state = read_weights(folder)
    with transformers_errors("transformers cannot build the model", given, "check config.json"):
        # from tensors, not from the directory, where other files would have a say in what is loaded
        model, info = kind.from_pretrained(
            None, config=config, state_dict=state, output_loading_info=True, ignore_mismatched_sizes=True
        )
        return model.float().eval(), info


def _fresh(model: nn.Module, info: dict[str, Any], task: str, given: str, *, known: bool) -> set[str]:
    """Parameters that start at random: those that were not loaded, and a head for other classes."""
    missing = heads.absent(model, info)
    heads.require_body(model, missing, task, given)
    if task == "classify" and not known:
        missing |= heads.outside_body(model)
    return missing


def _head_note(
    model: nn.Module,
    info: dict[str, Any],
    fresh: set[str],
    names: Sequence[str],
    labels: Sequence[str],
    order: Sequence[str] | None,
) -> str | None:
    head = heads.outside_body(model)
    return label_names.head_note(
        names,
        labels,
        None if head & fresh else order,
        stored=bool(head - set(info["missing_keys"])),
    )


def _complete(model: nn.Module, task: str, pad: int) -> None:
    """Add to the configuration what the forward pass needs and the file did not state."""
    config: Any = model.config
    if task == "classify":
        # the token before the first padding is the one that decoders classify
        for each in (config, config.get_text_config()):
            each.pad_token_id = pad
    if config.is_encoder_decoder:
        if config.pad_token_id is None:
            config.pad_token_id = pad
        if getattr(config, "decoder_start_token_id", None) is None:
            config.decoder_start_token_id = config.pad_token_id


def _notes(
    stored: dict[str, Any],
    info: dict[str, Any],
    task: str,
    started: Sequence[str],
    head: str | None,
    *,
    seed: int,
    cut: bool,
    most: int,
) -> tuple[str, ...]:
    notes = []
    if started:
        notes.append(f"{', '.join(started)} started at random (seed {seed}) and will be trained whole")
    notes += [head] if head else []
    if cut and task == "classify":
        notes.append(f"texts are cut at {most} tokens, the most that the base takes")
    if stored.get("auto_map"):
        notes.append(
            "config.json names code of its own (auto_map), which is not run; transformers' own model is used"
        )
    unused = sorted(info["unexpected_keys"])
    if unused and task != "classify":
        notes.append(f"{counted(len(unused), 'stored tensor')} not used by the model: {listed(unused)}")
    return tuple(notes)
