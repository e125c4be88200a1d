"""The JSON contract, field by field: what every document must have, and of which kind."""

from __future__ import annotations

import json
import math

NUMBER, TEXT, COUNT, MAYBE = "number", "text", "count", "number or null"


def document(line):
    """One line of strict JSON: NaN and Infinity are refused."""

    def refuse(word):
        raise ValueError(f"not strict JSON: {word}")

    assert "\n" not in line
    return json.loads(line, parse_constant=refuse)


def _is(kind, value):
    if kind is MAYBE and value is None:
        return True
    if kind in (NUMBER, MAYBE):
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind is COUNT:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if kind is TEXT:
        return isinstance(value, str)
    if isinstance(kind, list):
        return isinstance(value, list) and all(_is(kind[0], item) for item in value)
    if isinstance(kind, dict):
        return isinstance(value, dict) and all(key in value and _is(k, value[key]) for key, k in kind.items())
    return kind == value


def check(value, contract, where="document"):
    """Assert that a document has every field of a contract, and name the one that it has not."""
    for key, kind in contract.items():
        assert key in value, f"{where} lacks {key}"
        if isinstance(kind, dict):
            check(value[key], kind, f"{where}.{key}")
        elif isinstance(kind, list) and isinstance(kind[0], dict):
            for n, item in enumerate(value[key]):
                check(item, kind[0], f"{where}.{key}[{n}]")
        else:
            assert _is(kind, value[key]), f"{where}.{key} is {value[key]!r}"


_SIDE = {"path": TEXT, "format": TEXT, "modules": COUNT}
COMPARE = {
    "schema": "subspace.compare/1",
    "first": _SIDE,
    "second": _SIDE,
    "modules": [
        {
            "module": TEXT,
            "side": TEXT,
            "d": COUNT,
            "r_first": COUNT,
            "r_second": COUNT,
            "rank_first": MAYBE,
            "rank_second": MAYBE,
            "null": "isotropic",
            "cosine": MAYBE,
            "energy_first_in_second": MAYBE,
            "energy_second_in_first": MAYBE,
            "phi_control": MAYBE,
            "shared_dim_control": MAYBE,
            "excess": MAYBE,
            "controls": [
                {"kind": TEXT, "pairs": COUNT, "phi_11": NUMBER, "phi_full": NUMBER, "shared_dim": MAYBE}
            ],
            "phi_11": MAYBE,
            "phi_full": MAYBE,
            "chance_full": MAYBE,
            "z_full": MAYBE,
            "theta": [NUMBER],
            "shared_dim": MAYBE,
            "shared_p": [MAYBE],
            "flags": [TEXT],
        }
    ],
    "only_first": [TEXT],
    "only_second": [TEXT],
    "sides": {},
}
LIBRARY = {
    "schema": "subspace.library/1",
    "headline": TEXT,
    "by": TEXT,
    "metric": TEXT,
    "common": COUNT,
    "adapters": [
        {"path": TEXT, "name": TEXT, "format": TEXT, "modules": COUNT, "start_group": MAYBE, "flags": [TEXT]}
    ],
    "pairs": [
        {
            "first": TEXT,
            "second": TEXT,
            "side": TEXT,
            "modules": COUNT,
            "phi_full": MAYBE,
            "chance": MAYBE,
            "phi_control": MAYBE,
            "p_library": MAYBE,
            "distance": MAYBE,
            "cosine": MAYBE,
            "flags": [TEXT],
        }
    ],
    "pairs_in_all": COUNT,
    "neighbours": [{"path": TEXT, "nearest": TEXT, "cosine": NUMBER}],
    "clusters": [{"adapters": [TEXT], "similarity": NUMBER}],
    "duplicates": [[TEXT]],
    "near_duplicates": [[TEXT]],
    "start_groups": [[TEXT]],
    "lineage": [{"from": TEXT, "to": TEXT, "kind": TEXT}],
    "nested": [{"inner": TEXT, "outer": TEXT, "side": TEXT, "share": NUMBER, "chance": NUMBER}],
    "shared": [{"module": TEXT, "side": TEXT, "directions": COUNT, "directions_random": NUMBER}],
    "skipped": [{"path": TEXT, "why": TEXT}],
    "notes": [TEXT],
}
AMPLIFY = {
    "schema": "subspace.amplify/1",
    "modules": [
        {
            "module": TEXT,
            "d_out": COUNT,
            "d_in": COUNT,
            "scale": MAYBE,
            "scale_source": TEXT,
            "norm_W": MAYBE,
            "norm_delta_W": MAYBE,
            "ranks": [
                {
                    "r": COUNT,
                    "proj_delta_W": NUMBER,
                    "proj_W": NUMBER,
                    "proj_W_error": NUMBER,
                    "proj_random": NUMBER,
                    "amplification": MAYBE,
                }
            ],
            "flags": [TEXT],
        }
    ],
}
ALIGN = {
    "schema": "subspace.align/1",
    "headline": TEXT,
    "base": TEXT,
    "delta": TEXT,
    "modules": [
        {
            "module": TEXT,
            "d_out": COUNT,
            "d_in": COUNT,
            "scale": MAYBE,
            "scale_source": TEXT,
            "k": MAYBE,
            "null": "isotropic",
            "input_share": MAYBE,
            "input_isotropic": MAYBE,
            "output_share": MAYBE,
            "output_isotropic": MAYBE,
            "subspace_share": MAYBE,
            "reweighting": MAYBE,
            "spectral_shift": MAYBE,
            "input_rotation": MAYBE,
            "output_rotation": MAYBE,
            "mask_overlap": MAYBE,
            "mask_gaussian": MAYBE,
            "input_angles": [NUMBER],
            "curves": {"i": [COUNT], "input": [NUMBER], "output": [NUMBER], "input_isotropic": [NUMBER]},
            "flags": [TEXT],
        }
    ],
    "missing": [TEXT],
    "notes": [TEXT],
}
INTRUDERS = {
    "schema": "subspace.intruders/1",
    "headline": TEXT,
    "base": TEXT,
    "delta": TEXT,
    "epsilon": NUMBER,
    "k": COUNT,
    "convention": TEXT,
    "modules": [
        {
            "module": TEXT,
            "side": TEXT,
            "route": TEXT,
            "sigma": [NUMBER],
            "max_cos": [NUMBER],
            "max_cos_least": [NUMBER],
            "captured": [NUMBER],
            "intruders": MAYBE,
            "chance_max_cos": MAYBE,
            "s_star": MAYBE,
            "s_star_law": MAYBE,
            "edge": TEXT,
            "flags": [TEXT],
        }
    ],
    "sweep": {"epsilon": [NUMBER], "counts": [COUNT], "k": [COUNT], "counts_k": [COUNT]},
    "notes": [TEXT],
}
SPECTRUM = {
    "schema": "subspace.spectrum/1",
    "path": TEXT,
    "headline": TEXT,
    "rule": TEXT,
    "modules": [
        {
            "module": TEXT,
            "r": COUNT,
            "sigma": [NUMBER],
            "rank": MAYBE,
            "stable_rank": MAYBE,
            "entropy_rank": MAYBE,
            "participation": MAYBE,
            "energy_rank": {"0.9": COUNT, "0.95": COUNT, "0.99": COUNT},
            "knee": MAYBE,
            "gavish_donoho": MAYBE,
            "null": TEXT,
            "random_sigma": MAYBE,
            "above_random": MAYBE,
            "advised_rank": MAYBE,
            "why": TEXT,
            "flags": [TEXT],
        }
    ],
    "missing": [TEXT],
    "notes": [TEXT],
}
EXPLAIN = {
    "schema": "subspace.explain/1",
    "headline": TEXT,
    "path": TEXT,
    "level": NUMBER,
    "draws": COUNT,
    "modules": [
        {
            "module": TEXT,
            "k": COUNT,
            "sigma": MAYBE,
            "energy_share": MAYBE,
            "output_square": MAYBE,
            "output_share": MAYBE,
            "constant_share": MAYBE,
            "null": "isotropic",
            "control": TEXT,
            "mean_share": MAYBE,
            "mean_isotropic": MAYBE,
            "mean_control": MAYBE,
            "input_share": MAYBE,
            "W_share": MAYBE,
            "gradient_share": MAYBE,
            "head_share": MAYBE,
            "heads": [NUMBER],
            "token_p": MAYBE,
            "without_tokens": TEXT,
            "flags": [TEXT],
        }
    ],
    "heads": [{"module": TEXT, "side": TEXT, "names": [TEXT], "share": [NUMBER], "isotropic": NUMBER}],
    "limits": [TEXT],
    "missing": [TEXT],
    "notes": [TEXT],
}
INSPECT = {
    "schema": "subspace.inspect/1",
    "path": TEXT,
    "format": TEXT,
    "container": TEXT,
    "sha256": TEXT,
    "modules": [
        {
            "module": TEXT,
            "r": COUNT,
            "d_in": COUNT,
            "d_out": COUNT,
            "alpha": MAYBE,
            "scale": MAYBE,
            "scale_source": TEXT,
            "norm_A": MAYBE,
            "norm_B": MAYBE,
            "norm_delta_W": MAYBE,
            "rank": MAYBE,
            "stable_rank": MAYBE,
            "effective_rank": MAYBE,
            "flags": [TEXT],
        }
    ],
    "ignored": [{"key": TEXT, "why": TEXT}],
    "unknown": [TEXT],
}
EVALUATE = {
    "schema": "subspace.evaluate/1",
    "model": TEXT,
    "reference": TEXT,
    "headline": TEXT,
    "rows": [
        {
            "update": TEXT,
            "data": TEXT,
            "kind": TEXT,
            "loss": NUMBER,
            "loss_difference": MAYBE,
            "loss_low": MAYBE,
            "loss_high": MAYBE,
            "kept": MAYBE,
            "kept_low": MAYBE,
            "kept_high": MAYBE,
            "bits_per_byte": MAYBE,
            "accuracy": MAYBE,
            "accuracy_difference": MAYBE,
            "accuracy_low": MAYBE,
            "accuracy_high": MAYBE,
            "macro_f1": MAYBE,
            "macro_f1_difference": MAYBE,
            "macro_f1_low": MAYBE,
            "macro_f1_high": MAYBE,
        }
    ],
    "adapters": [{"name": TEXT, "path": TEXT, "format": TEXT, "modules": COUNT, "kept": [TEXT]}],
    "data": [
        {
            "name": TEXT,
            "path": TEXT,
            "summary": TEXT,
            "sha256": TEXT,
            "noun": TEXT,
            "unit": TEXT,
            "examples": COUNT,
            "predictions": COUNT,
            "held_out": NUMBER,
        }
    ],
    "interval": {"method": TEXT, "level": NUMBER, "resamples": COUNT, "seed": COUNT},
    "notes": [TEXT],
}


def nulls_are_flagged(module):
    """Assert that a module with a value that does not exist has a flag that says why."""
    plain = {
        "alpha",
        "control",
        "excess",
        "phi_control",
        "phi_full_control",
        "phi_control_grid",
        "shared_dim_control",
    }
    missing = [key for key, value in module.items() if value is None and key not in plain]
    assert not missing or module["flags"], f"{module['module']}: {missing} without a flag"
