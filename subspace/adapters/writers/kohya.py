"""kohya sd-scripts and LyCORIS LoCon: ``<name>.lora_down.weight``, ``.lora_up.weight`` and ``.alpha``.

The name is the path of the module with underscores for dots, behind a word for the model that it is in. The path cannot
be recovered from it without the list of modules of the model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from subspace.adapters.adapter import Adapter
from subspace.adapters.layer import Layer, alpha_of
from subspace.adapters.place import place
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
    notes = [
        f"Dots of names are underscores in this format, such as {shown(names[module])} for {shown(module)}; the names "
        "cannot be recovered without the model"
        for module in changed[:1]
    ]
    return Layout(tensors, names, metadata=_metadata(layers, adapter), notes=tuple(notes))


def _names(layers: Sequence[Layer], adapter: Adapter) -> dict[str, str]:
    """Module -> its name in the file; a name that was read from such a file stays.

    Raises
    ------
    FormatError : two modules would have one name
    """
    several = any(layer.module.startswith("text_encoder_2.") for layer in layers)
    kept = adapter.format == "kohya"
    names: dict[str, str] = {}
    taken: dict[str, str] = {}
    for layer in layers:
        name = layer.module if kept else _flattened(layer.module, several=several)
        if taken.setdefault(name, layer.module) != layer.module:
            raise FormatError(
                f"Two modules would have the name {shown(name)} in this format: {shown(taken[name])} and "
                f"{shown(layer.module)}, in {place(adapter.path)}; choose another format"
            )
        names[layer.module] = name
    return names


def _flattened(module: str, *, several: bool) -> str:
    """Name of a module, behind the word for its model.

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
    """The scalar in float32 or float64: in the type of the factors it might be rounded."""
    with np.errstate(over="ignore", under="ignore"):
        dtype = "float32" if float(np.float32(alpha)) == alpha else "float64"
    return StoredTensor(np.array(alpha, dtype), dtype)


def _metadata(layers: Sequence[Layer], adapter: Adapter) -> dict[str, str]:
    """Metadata of trainers, kept where the file that was read is of this format; rank and alpha are the new ones."""
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
    about="kohya sd-scripts, LyCORIS LoCon: scale alpha / r, with an alpha per module (sd-scripts networks/lora.py)",
    holds=lambda layer: layer.kind == "linear" or (layer.kind == "conv" and layer.kernel is not None),
    lay_out=_lay_out,
    fitted=list,
)
