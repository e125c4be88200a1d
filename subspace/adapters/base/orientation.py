"""The orientation of a base weight: (d_out, d_in) as in ``nn.Linear``, or (d_in, d_out) as in GPT-2's ``Conv1D``.

The shape decides, except for a square weight: there the type of the model decides, then its other weights, then the
configuration of the adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["conv1d_by_shape", "is_conv1d", "is_embedding", "square"]

# transformers 5: the models whose modeling file builds pytorch_utils.Conv1D layers; GPTBigCode uses nn.Linear
_MODELS = {"gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp", "clvp_decoder"}
_NAMES = {"c_attn", "c_proj", "c_fc", "q_attn"}
_EMBEDDINGS = {
    "wte", "wpe", "shared", "embed_tokens", "embed_positions", "tok_embeddings", "embed_in", "tokens_embed",
    "word_embeddings", "position_embeddings", "token_type_embeddings", "positions_embed",
}  # fmt: skip


def is_conv1d(module: str) -> bool:
    """Whether a module has one of the names of GPT-2's Conv1D layers."""
    return module.rpartition(".")[2] in _NAMES


def is_embedding(module: str) -> bool:
    """Whether a module has the name of a table of embeddings."""
    return module.rpartition(".")[2] in _EMBEDDINGS


def conv1d_by_shape(modules: Mapping[str, str], layout: Mapping[str, Any]) -> bool | None:
    """Whether a base stores its Conv1D layers (d_in, d_out), by those that are not square; None if there are none."""
    for module, key in modules.items():
        # c_attn and c_fc have more outputs than inputs
        if module.rpartition(".")[2] in {"c_attn", "c_fc"}:
            shape = layout[key].shape
            if len(shape) == 2 and shape[0] != shape[1]:
                return bool(shape[1] > shape[0])
    return None


def square(
    module: str, *, model_type: str | None, siblings: bool | None, fan_in_fan_out: bool | None = None
) -> tuple[bool, str]:
    """Whether a square weight is stored (d_in, d_out), and what decided that."""
    if model_type is not None:
        turned = model_type in _MODELS and is_conv1d(module)
        return turned, f"{_stored(turned)}, by the model type"
    if siblings is not None and is_conv1d(module):
        return siblings, "as the other Conv1D weights of the base"
    if fan_in_fan_out:
        return True, f"{_stored(True)}, by fan_in_fan_out of the configuration"
    return False, f"taken as {_stored(False)}"


def _stored(turned: bool) -> str:
    return "stored (d_in, d_out)" if turned else "stored (d_out, d_in)"
