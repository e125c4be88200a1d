"""Parameters that cannot be trained or merged where they are: offloaded, without values, or with sparse gradients."""

from __future__ import annotations

from typing import Any

from torch import nn

from subspace.errors import ValueRangeError
from subspace.text import shown

__all__ = ["is_offloaded", "require_here", "require_trainable"]


def is_offloaded(module: nn.Module) -> bool:
    """Return whether accelerate keeps a module's weights elsewhere and brings them only for its forward.

    References
    ----------
    accelerate/hooks.py: ``AlignDevicesHook.offload``, ``SequentialHook.hooks``, ``module._hf_hook``.
    """
    hook: Any = vars(module).get("_hf_hook")
    return any(getattr(each, "offload", False) for each in (hook, *getattr(hook, "hooks", ())))


def require_here(module: nn.Module, name: str) -> None:
    """Refuse to adapt a layer whose weights accelerate has offloaded.

    Raises
    ------
    ValueRangeError : they are
    """
    if is_offloaded(module):
        raise ValueRangeError(
            f"The weights of {shown(name)} are offloaded by accelerate (cpu_offload, disk_offload or a device map), "
            "and an adapter cannot be trained there; load the model without offloading"
        )


def require_trainable(model: nn.Module) -> None:
    """Refuse trained parameters that have no values, or gradients that AdamW and clipping do not take.

    Raises
    ------
    ValueRangeError : there is one; it is named
    """
    for name, module in model.named_modules():
        trained = [p for p in module.parameters(recurse=False) if p.requires_grad]
        if any(parameter.is_meta for parameter in trained):
            raise ValueRangeError(
                f"The parameters of {shown(name)} have no values: they are on the meta device, as those of a model "
                "that is offloaded or not loaded yet; load the model on a device first"
            )
        if trained and isinstance(module, nn.Embedding) and module.sparse and module.weight.requires_grad:
            raise ValueRangeError(
                f"The gradient of {shown(name)} is sparse (nn.Embedding with sparse=True), which AdamW does not take; "
                "set `sparse` of the embedding to False, or leave it out of what is trained"
            )
