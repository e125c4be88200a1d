"""kohya sd-scripts and LyCORIS LoCon: ``<name>.lora_down.weight``, ``.lora_up.weight`` and ``.alpha``.

The name is the module's path with underscores for dots, after a word for the model it is in: a path cannot be had
back from it without the model's list of modules.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from subspace.adapters.adapter import Adapter
from subspace.adapters.layer import Layer, alpha_of
from subspace.adapters.writer import Layout, Writer
from subspace.checkpoints.tensor_bytes import StoredTensor
from subspace.errors import FormatError
from subspace.text import shown

__all__ = ["WRITER"]

_FLAT = re.compile(r"(lora_(unet|te\d?|transformer|prior|clip)|lycoris)_[^.]*", re.DOTALL)
_MODELS = (
    (re.compile(r"unet\.|(?=(?:down_blocks|mid_block|up_blocks)\.)"), "lora_unet"),
    (re.compile(r"text_encoder\.|(?=text_model\.)"), "lora_te"),
    (re.compile(r"text_encoder_2\."), "lora_te2"),
    (re.compile(r"text_encoder_3\."), "lora_te3"),
    (re.compile(r"transformer\.(?=(?:single_)?transformer_blocks\.)"), "lora_transformer"),
)


def _lay_out(layers: Sequence[Layer], adapter: Adapter) -> Layout:
    names = _names(layers, adapter)
    tensors = {}
    for layer in layers:
        name = names[layer.module]
        down, up = layer.tensors()
        tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"] = down, up
        tensors[f"{name}.alpha"] = _alpha(alpha_of(layer.known_scale, layer.r))
    changed = [module for module, name in names.items() if module != name]
    notes = (
        (
            f"names are flattened, which cannot be undone without the model: {shown(changed[0])} is "
            f"{shown(names[changed[0]])}",
        )
        if changed
        else ()
    )
    return Layout(tensors, names, metadata=_metadata(layers, adapter), notes=notes)


def _names(layers: Sequence[Layer], adapter: Adapter) -> dict[str, str]:
    """Module -> its name in the file; a name that came from such a file stays.

    Raises
    ------
    FormatError : two modules would have one name, or one has none
    """
    several = any(layer.module.startswith("text_encoder_2.") for layer in layers)
    kept = adapter.format == "kohya"
    names: dict[str, str] = {}
    taken: dict[str, str] = {}
    for layer in layers:
        name = layer.module if kept else _flattened(layer.module, several=several)
        if taken.setdefault(name, layer.module) != layer.module:
            raise FormatError(
                f"names without dots must differ: got {shown(taken[name])} and {shown(layer.module)}, "
                f"both {shown(name)}, in {shown(adapter.path, longest=1000)}; write another format"
            )
        names[layer.module] = name
    return names


def _flattened(module: str, *, several: bool) -> str:
    """Name of a module, after the word for its model.

    References
    ----------
    kohya-ss/sd-scripts, networks/lora.py: ``LORA_PREFIX_UNET``, ``LORA_PREFIX_TEXT_ENCODER`` (``lora_te1`` where there
    are two); LyCORIS 4.1, lycoris/wrapper.py: ``LORA_PREFIX`` for any other model; OneTrainer: ``lora_transformer``.

    Examples
    --------
    >>> _flattened("unet.mid_block.attentions.0.proj_in", several=False)
    'lora_unet_mid_block_attentions_0_proj_in'
    >>> _flattened("model.layers.0.q_proj", several=False)
    'lycoris_model_layers_0_q_proj'
    """
    if _FLAT.fullmatch(module):
        return module
    for start, word in _MODELS:
        match = start.match(module)
        if match is not None:
            first = "lora_te1" if several and word == "lora_te" else word
            return f"{first}_{module[match.end() :].replace('.', '_')}"
    return f"lycoris_{module.replace('.', '_')}"


def _alpha(alpha: float) -> StoredTensor:
    """A scalar of its own: in the factors' type it would be rounded."""
    with np.errstate(over="ignore", under="ignore"):
        dtype = "float32" if float(np.float32(alpha)) == alpha else "float64"
    return StoredTensor(np.array(alpha, dtype), dtype)


def _metadata(layers: Sequence[Layer], adapter: Adapter) -> dict[str, str]:
    """What trainers say of a file, kept from one of this format; its rank and alpha are those that are written."""
    kept = dict(adapter.tensors.metadata) if adapter.format == "kohya" and adapter.tensors is not None else {}
    kept = {key: value for key, value in kept.items() if not key.startswith("sshs_")}
    ranks = {layer.r for layer in layers}
    alphas = {alpha_of(layer.known_scale, layer.r) for layer in layers}
    kept.setdefault("ss_network_module", "networks.lora")
    kept["ss_network_dim"] = str(ranks.pop()) if len(ranks) == 1 else "Dynamic"
    kept["ss_network_alpha"] = str(alphas.pop()) if len(alphas) == 1 else "Dynamic"
    return kept


WRITER = Writer(
    name="kohya",
    about="kohya sd-scripts, LyCORIS LoCon: alpha of every module, scale alpha / r (sd-scripts networks/lora.py)",
    holds=lambda layer: layer.kind == "linear" or (layer.kind == "conv" and layer.kernel is not None),
    lay_out=_lay_out,
    fitted=list,
)
