"""Words that wrappers of a model, or of a layer of it, put into the names of its tensors; nobody gives a module one.

References
----------
pytorch 2.13: torch/_dynamo/eval_frame.py (``_orig_mod``), torch/distributed/fsdp (``_fsdp_wrapped_module``),
torch/distributed/algorithms/_checkpoint (``_checkpoint_wrapped_module``); Lightning Fabric, wrappers.py
(``_forward_module``); fairscale (``_fpw_module``).
"""

from __future__ import annotations

__all__ = ["WRAPPER_WORDS"]

WRAPPER_WORDS = (
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
    "_fpw_module",
)
