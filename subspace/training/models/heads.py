"""Parameters that a base's weights do not hold: a new head, which starts at random, or else an error."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from subspace.errors import FormatError
from subspace.text import listed, shown
from subspace.training.seeds import start_seed

__all__ = ["absent", "heads_of", "outside_body", "require_body", "start"]


def absent(model: nn.Module, info: Mapping[str, Any]) -> set[str]:
    """Return the names of the parameters that were not loaded, from transformers' ``output_loading_info``.

    One that is tied to a loaded one is loaded.
    """
    unfit = set(info["missing_keys"]) | {each[0] for each in info["mismatched_keys"]}
    names: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), set()).add(name)
    return {name for tied in names.values() if tied <= unfit for name in tied}


def outside_body(model: nn.Module) -> set[str]:
    """Return the names of the head's parameters: those outside the pre-trained body. A pooler inside it is not one."""
    prefix = f"{model.base_model_prefix}."
    names = [name for name, _ in model.named_parameters()]
    outside = {name for name in names if not name.startswith(prefix)}
    return outside if len(outside) < len(names) else set()


def require_body(model: nn.Module, missing: Collection[str], task: str, given: str) -> None:
    """Refuse weights that leave more than the head of a classifier to a random start.

    Parameters
    ----------
    model : as transformers built it
    missing : names of the parameters that were not loaded
    task : "lm", "seq2seq" or "classify"
    given : the base, as the user named it

    Raises
    ------
    FormatError : parameters of the body, or any of a model that is no classifier, are missing or of another shape
    """
    head = outside_body(model) if task == "classify" else set()
    # BERT's pooler is used by classifiers alone, and models of masked tokens are saved without it
    lost = sorted(
        n for n in missing if n not in head and not (task == "classify" and "pooler" in n.split("."))
    )
    if lost:
        total = sum(1 for _ in model.parameters())
        raise FormatError(
            f"The weights of {shown(given)} do not fit its config.json: {len(lost)} of {total} parameters are "
            f"missing or of another shape ({listed(lost)}); download or save it again"
        )


@torch.no_grad()
def start(model: nn.Module, names: Collection[str], *, seed: int) -> None:
    """Give the named parameters of a model a start that is a function of the seed and their names alone.

    Parameters
    ----------
    model : which is changed
    names : of the parameters
    seed : of the run

    Notes
    -----
    The same distributions as transformers': matrices N(0, initializer_range^2), 0.02 where the configuration has none;
    biases 0; scales of norms 1.
    """
    std = getattr(model.config, "initializer_range", None) or 0.02
    for name, parameter in model.named_parameters():
        if name not in names:
            continue
        if parameter.dim() < 2:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
        else:
            generator = torch.Generator().manual_seed(start_seed(seed, name, 0))
            parameter.copy_(_normal(parameter, std, generator))


def _normal(like: Tensor, std: float, generator: torch.Generator) -> Tensor:
    return torch.empty(like.shape).normal_(0.0, std, generator=generator)


def heads_of(model: nn.Module, names: Collection[str]) -> tuple[str, ...]:
    """Return the topmost modules all of whose parameters are in `names`, then single parameters of others."""
    whole: list[str] = []
    for name, module in model.named_modules():
        own = [f"{name}.{inner}" for inner, _ in module.named_parameters()]
        if (
            name
            and own
            and all(n in names for n in own)
            and not name.startswith(tuple(f"{w}." for w in whole))
        ):
            whole.append(name)
    rest = [
        n
        for n, _ in model.named_parameters()
        if n in names and not n.startswith(tuple(f"{w}." for w in whole))
    ]
    return (*whole, *rest)
