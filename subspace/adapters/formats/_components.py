"""PEFT configurations per component of a pipeline, as diffusers packs them into the metadata of one file.

The keys are those of each component's ``LoraConfig`` behind its name: ``transformer.r``, ``text_encoder.lora_alpha``.
A component's patterns are of names without the component.

References
----------
huggingface/diffusers 0.42.1, loaders/lora_base.py: ``_pack_dict_with_prefix``, ``_load_lora_into_text_encoder``;
loaders/peft.py: ``load_lora_adapter``; utils/peft_utils.py: ``_create_lora_config``.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from subspace.adapters.format import Source, scale_unknown
from subspace.adapters.formats import _dialects as dialects
from subspace.adapters.formats import _down_up as downup
from subspace.adapters.formats._peft_config import PeftConfig
from subspace.adapters.update import LowRankUpdate, Scale
from subspace.flags import Flag
from subspace.text import listed, shown

__all__ = ["Components", "fields_by_component"]


def fields_by_component(source: Source) -> dict[str, dict[str, Any]]:
    """Component -> its fields, empty where the configuration is not one per component."""
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    if source.config is not None and dialects.is_per_component(source.config):
        for key, value in source.config.items():
            component, dot, name = key.partition(".")
            if dot:
                found[component][name] = value
    return dict(found)


class Components:
    """The configurations of a file by component, none where the file has no configuration per component.

    Raises
    ------
    FormatError : a field that decides a scale has an invalid value
    """

    def __init__(self, source: Source) -> None:
        where = source.config_place
        self._source = source
        self._configs = {
            component: PeftConfig.parse(fields, f"{shown(component)} in {where}")
            for component, fields in fields_by_component(source).items()
        }
        self._contradicted: list[str] = []

    def scale(self, module: str, keys: dict[str, str], *, otherwise: str) -> Scale:
        """Scale by the configuration of the module's component, else by its alpha, else 1.

        Parameters
        ----------
        otherwise : where a scale of 1 comes from, for the user

        Raises
        ------
        FormatError : the configuration declares another rank for the module
        """
        component, _, name = module.partition(".")
        config = self._configs.get(component)
        if config is None or module in self._source.scales:
            return downup.scale_or_1(module, keys, self._source, otherwise=otherwise)
        scale = config.scale(name, self._source.factor(keys["down"]).shape[0])
        if "alpha" in keys and scale.alpha is not None:
            alpha = self._source.tensors.read_scalar(keys["alpha"])
            # diffusers refuses a file with both; the same number twice leaves no doubt
            if not math.isclose(alpha, scale.alpha, rel_tol=1e-3):
                self._contradicted.append(module)
                return Scale(None, "unknown")
        return scale

    def notes(self, updates: Sequence[LowRankUpdate]) -> list[str]:
        """What the configurations leave open, and where they contradict the file; after `scale` of every module."""
        notes = [note for config in self._configs.values() for note in config.notes()]
        dora = {update.module.partition(".")[0] for update in updates if Flag.DORA in update.flags}
        notes += [
            f"The file has no magnitude vectors of DoRA, although use_dora is true in {config.where}"
            for component, config in self._configs.items()
            if config.use_dora and component not in dora
        ]
        if self._contradicted:
            notes.append(
                scale_unknown(
                    f"the alpha in the file and {self._source.config_place} differ, in {listed(self._contradicted)}"
                )
            )
        return notes
