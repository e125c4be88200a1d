"""kohya sd-scripts and LyCORIS LoCon: ``<name>.lora_down.weight``, ``.lora_up.weight`` and ``.alpha``.

The name is the path of the module with underscores for dots, behind a word for the model that it is in. The path cannot
be recovered from it without the list of modules of the model.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from subspace.adapters.adapter import Adapter
from subspace.adapters.layer import Layer, alpha_of
from subspace.adapters.naming.components import named_component
from subspace.adapters.naming.flattened import is_flat
from subspace.adapters.naming.vocabulary import MODELS, with_dots
from subspace.adapters.naming.writers.sd_unet import name_in_sdxl
from subspace.adapters.place import place
from subspace.adapters.writer import Layout, Writer
from subspace.checkpoints.tensor_bytes import StoredTensor
from subspace.errors import FormatError
from subspace.text import counted, listed, shown

__all__ = ["WRITER"]

# word of a flattened name for each model of a pipeline
_WORDS = {
    "unet": "lora_unet",
    "diffusion_model": "lora_unet",
    "transformer": "lora_transformer",
    "text_encoder": "lora_te",
    "text_encoder_2": "lora_te2",
    "text_encoder_3": "lora_te3",
}
# kind of model -> which model of a pipeline it is, for a path that does not say it
_BARE = (("UNet", "unet"), ("Flux", "diffusion_model"), ("SD3", "diffusion_model"), ("CLIP", "text_encoder"))
_OF_SEVERAL = {
    "x_embedder",
    "context_embedder",
    "conv_in",
    "conv_out",
    "final_layer",
}  # first words of other models too
_DEEP = re.compile(r"\.attentions\.[0-9]+\.transformer_blocks\.[1-9]|^add_embedding\.")
_DIT = re.compile(r"(?:single_)?transformer_blocks\.", re.DOTALL)


def _lay_out(layers: Sequence[Layer], adapter: Adapter) -> Layout:
    names = _names(layers, adapter)
    tensors = {}
    for layer in layers:
        name = names[layer.module]
        down, up = layer.tensors()
        tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"] = down, up
        tensors[f"{name}.alpha"] = _alpha(alpha_of(layer.known_scale, layer.r))
    return Layout(tensors, names, metadata=_metadata(layers, adapter), notes=_notes(names))


def _notes(names: Mapping[str, str]) -> tuple[str, ...]:
    notes = []
    changed = {module: name for module, name in names.items() if name != module}
    lost = [module for module, name in changed.items() if not (with_dots(name) or "").endswith(module)]
    if lost:
        notes.append(
            f"Dots of names are underscores in this format, such as {shown(names[lost[0]])} for {shown(lost[0])}; the "
            "names cannot be recovered without the model"
        )
    of_lycoris = [name for name in changed.values() if name.startswith("lycoris_")]
    if of_lycoris:
        notes.append(
            f"{counted(len(of_lycoris), 'module')} behind lycoris_ ({listed(of_lycoris)}) can be loaded by LyCORIS, "
            "onto a model that you give; sd-scripts and ComfyUI load image models alone"
        )
    return tuple(notes)


def _names(layers: Sequence[Layer], adapter: Adapter) -> dict[str, str]:
    """Module -> its name in the file; a name that was read from such a file stays.

    Raises
    ------
    FormatError : two modules would have one name
    """
    kept = adapter.format == WRITER.name
    found = {layer.module: _model(layer.module, adapter.format) for layer in layers}
    if _is_sdxl(found.values()):
        found = {
            m: (model, name_in_sdxl(path) if model == "unet" else path) for m, (model, path) in found.items()
        }
    numbered = any(model not in {"unet", "text_encoder", ""} for model, _ in found.values())
    names: dict[str, str] = {}
    taken: dict[str, str] = {}
    for layer in layers:
        name = layer.module if kept else _flattened(*found[layer.module], numbered=numbered)
        if taken.setdefault(name, layer.module) != layer.module:
            raise FormatError(
                f"Two modules would have the name {shown(name)} in this format: {shown(taken[name])} and "
                f"{shown(layer.module)}, in {place(adapter.path)}; choose another format"
            )
        names[layer.module] = name
    return names


def _model(module: str, source_format: str) -> tuple[str, str]:
    """The model of a pipeline that a module is in, "" where it is in none, and the path in it."""
    model, path = named_component(module, source_format, pipeline=True)
    if model in _WORDS:
        return model, path
    if _DIT.match(module):
        return "transformer", module
    known = () if path.partition(".")[0] in _OF_SEVERAL else _BARE
    return next((name for kind, name in known if MODELS[kind].begins(module)), ""), module


def _is_sdxl(places: Collection[tuple[str, str]]) -> bool:
    """Whether a UNet is that of SDXL: beside a second text encoder, or with more than one layer in a transformer.

    References
    ----------
    kohya-ss/sd-scripts, library/sdxl_original_unet.py, whose blocks have Stability's names; its UNet of Stable
    Diffusion 1 and 2 has those of diffusers. ComfyUI finds both (comfy/lora.py: ``model_lora_keys_unet``).
    """
    unets = [path for model, path in places if model == "unet"]
    second = any(model == "text_encoder_2" for model, _ in places)
    return bool(unets) and (second or any(_DEEP.search(path) for path in unets))


def _flattened(model: str, path: str, *, numbered: bool) -> str:
    """Name of a module, behind the word for its model; a name that has no dots already stays.

    Parameters
    ----------
    numbered : whether text encoders are counted from the first on, as for any model but Stable Diffusion 1 and 2

    References
    ----------
    kohya-ss/sd-scripts, networks/lora.py: ``LORA_PREFIX_UNET``, ``LORA_PREFIX_TEXT_ENCODER``, ``lora_te1`` for SDXL;
    networks/lora_flux.py: ``LORA_PREFIX_FLUX`` = "lora_unet", ``lora_te1`` and ``lora_te3``. comfyanonymous/ComfyUI,
    comfy/lora.py: ``model_lora_keys_unet`` (``lora_unet_`` before the names of a checkpoint or of a UNet of diffusers,
    ``lora_transformer_`` before those of a transformer of diffusers, from OneTrainer), ``model_lora_keys_clip``.
    LyCORIS 4.1, lycoris/wrapper.py: ``LORA_PREFIX`` for any other model, which neither of the two loads.

    Examples
    --------
    >>> _flattened("unet", "mid_block.attentions.0.proj_in", numbered=False)
    'lora_unet_mid_block_attentions_0_proj_in'
    >>> _flattened("", "model.layers.0.q_proj", numbered=False)
    'lycoris_model_layers_0_q_proj'
    """
    if is_flat(path):
        return path
    word = "lora_te1" if model == "text_encoder" and numbered else _WORDS.get(model, "lycoris")
    return f"{word}_{path.replace('.', '_')}"


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
    flattened=True,
)
