"""LoHa and LoKr of PEFT: ``base_model.model.<module>.hada_w1_a``, ``.lokr_w1`` ..., with alpha in the configuration.

Raw state dicts have the name of the adapter behind the part (``hada_w1_a.default``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from subspace.adapters.format import Format, Reading, Source, scale_unknown
from subspace.adapters.formats import _dialects as dialects
from subspace.adapters.formats import _loha_lokr as composed
from subspace.adapters.formats import _pairs as pairs
from subspace.adapters.formats import _peft_keys as peftkeys
from subspace.adapters.formats import _structured as structured
from subspace.adapters.formats._components import fields_by_component
from subspace.adapters.formats._peft_config import PeftConfig
from subspace.adapters.update import DenseUpdate, Factor, Scale, Update
from subspace.flags import Flag
from subspace.text import shown

__all__ = ["FORMAT"]

_KEY = peftkeys.pattern(r"hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2)")


def _read(source: Source) -> Reading:
    configs = _configs(source)
    modules, ignored = peftkeys.sorted_by_module(source, _KEY)
    updates: list[Update] = []
    used = {entry.key for entry in ignored}
    for module, keys in modules.items():
        used.update(keys.values())
        updates.append(_update(module, keys, configs, source))
    other, unknown = pairs.other_tensors(source, used)
    notes = [note for config in configs.values() for note in config.notes()]
    if not configs:
        notes.append(scale_unknown("there is no adapter_config.json next to the file"))
    return Reading(tuple(updates), (*ignored, *other), unknown, (*notes, *structured.dense_note(updates)))


def _configs(source: Source) -> dict[str, PeftConfig]:
    """The configuration of all modules under "", or those of the components of a pipeline; none without one."""
    if source.config is None:
        return {}
    where = source.config_place
    by_component = fields_by_component(source)
    if not by_component:
        return {"": _config(source.config, where, outer=source.outer)}
    return {name: _config(fields, f"{shown(name)} in {where}") for name, fields in by_component.items()}


def _config(config: Mapping[str, Any], where: str, *, outer: str = "") -> PeftConfig:
    """A configuration, in which alpha has another name than in LoRA's."""
    fields = ("r", "rank_pattern", "alpha_pattern", "target_modules", "peft_type")
    values: dict[str, Any] = {name: config[name] for name in fields if name in config}
    return PeftConfig.parse({**values, "lora_alpha": config.get("alpha")}, where, outer=outer)


def _update(
    module: str, keys: Mapping[str, str], configs: Mapping[str, PeftConfig], source: Source
) -> Update:
    build = composed.loha if composed.is_loha(keys) else composed.lokr
    built, scale = (
        build(module, keys, source),
        composed.by_own_rank(_scale(module, keys, configs, source), keys, source),
    )
    if "lokr_w2" in keys and len(source.shape(keys["lokr_w2"])) == 3:
        return _conv1d(module, built, source.shape(keys["lokr_w2"]), scale)
    return structured.update(module, built, scale, kind=composed.kind(keys, source))


def _conv1d(module: str, built: structured.Built, block: tuple[int, ...], scale: Scale) -> DenseUpdate:
    """A convolution of one dimension whose second block (c, d, k) is full, as PEFT multiplies it.

    PEFT multiplies w1 (a, b) with the last two dimensions of the block, not with the first two, so the numbers of
    ``kron(w1, w2)`` are in another order and the matrix does not have a low rank.

    References
    ----------
    huggingface/peft 0.21.2, tuners/lokr/layer.py: ``make_kron``, which gives w1 its kernel for 4 dimensions only.
    """
    P, Q = built.factors
    c, d, k = block
    a, b = P.shape[0] // c, Q.shape[1] // (d * k)

    def load() -> NDArray[Any]:
        # (a, c, b, d, k) as kron has them -> (c, a, d, b, k) as PEFT has them
        M: NDArray[Any] = built.load().reshape(a, c, b, d, k).transpose(1, 0, 3, 2, 4)
        return M.reshape(a * c, b * d * k)

    matrix = Factor((a * c, b * d * k), P.dtype, load, numbers=P.numbers)
    return DenseUpdate(module, matrix, scale, kind="conv", flags=(Flag.DENSE,))


def _scale(module: str, keys: Mapping[str, str], configs: Mapping[str, PeftConfig], source: Source) -> Scale:
    """``alpha / r``, also for full blocks; in a model in memory, that of the layer where it has been changed.

    References
    ----------
    huggingface/peft 0.21.2, tuners/loha/layer.py and tuners/lokr/layer.py: ``update_layer``, ``scaling = alpha / r``.
    """
    configured = Scale(None, "unknown")
    component, _, rest = module.partition(".")
    config, name = (configs[""], module) if "" in configs else (configs.get(component), rest)
    if config is not None:
        r = composed.own_rank(keys, source) or config.rank(name)
        configured = config.scale(name, r) if r else configured
    return peftkeys.current_scale(configured, module, source)


FORMAT = Format(
    name="peft_lycoris",
    about="LoHa and LoKr of PEFT: scale alpha / r of adapter_config.json (peft/tuners/loha/layer.py, lokr/layer.py)",
    claims=dialects.is_peft_lycoris,
    read=_read,
)
