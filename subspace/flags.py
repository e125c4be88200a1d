"""Every flag that a module of a result can carry: its meaning, the sentence of the note that it causes, and the cure.

A flag says why a number is missing, or what to know before reading it. Notes, tables, JSON, pages and the glossary are
made from this list: a new flag is a new member. A member is its name as text: ``Flag.DORA == "dora"``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from enum import Enum

from subspace.text import counted, listed, module_shown

__all__ = ["Flag", "flag_notes"]


def __dir__() -> list[str]:
    return sorted(__all__)


class Flag(str, Enum):
    """A flag, as text, with what it means.

    Attributes
    ----------
    meaning : what is so of a module that has the flag, as a phrase
    warns : whether modules that have the flag are named in a note
    cure : what to do about it, empty where there is nothing to do; parameters are named in backquotes
    """

    meaning: str
    warns: bool
    cure: str

    def __new__(cls, name: str, meaning: str, cure: str = "", warns: bool = False) -> Flag:
        """Make a member; `Enum` calls this with the values below."""
        flag = str.__new__(cls, name)
        flag._value_ = name
        flag.meaning, flag.warns, flag.cure = meaning, warns or bool(cure), cure
        return flag

    def __str__(self) -> str:
        return str.__str__(self)

    def __format__(self, format_spec: str) -> str:
        return str.__format__(self, format_spec)

    # what kind of update a module has
    DENSE = ("dense", "delta_W is a full matrix, stored or computed, not a product of two factors")
    BASE = ("base", "the matrix is a weight of the base model, in the place of an adapter")
    FINE_TUNE = ("fine_tune", "delta_W is the difference between a full fine-tune and its base")
    FUSED = ("fused", "the update is of one group of a fused layer, such as q of q, k and v")
    INTERLEAVED = ("interleaved", "the rows of the group lie between the rows of other groups")
    EXPERT = ("expert", "the update is of one of several experts that share a stored pair")
    STACKED = ("stacked", "the update is one of several parametrizations of a weight, which add up")
    TUCKER = (
        "tucker",
        "the update is a convolution in three factors (Tucker), one of which is multiplied into A",
    )
    COMPOSED = (
        "composed",
        "A and B are made of several trained factors (LoHa, LoKr, VeRA) and were not trained themselves",
    )
    GUESSED = (
        "guessed",
        "A and B were found by words such as lora_A or down in their names and by their shapes, as no known format "
        "has such names",
    )
    IA3 = ("ia3", "the adapter is IA3, which rescales the base weight")
    OFT = ("oft", "the adapter is OFT, which rotates the base weight")
    BOFT = ("boft", "the adapter is BOFT, which rotates the base weight")
    GLORA = (
        "glora",
        "the adapter is GLoRA, which multiplies the base weight by one product and adds another",
    )
    LAYER_REPLICATION = (
        "layer_replication",
        "the layers are counted in a model whose layers were replicated",
    )
    UNCHANGED = ("unchanged", "the module was not cut and keeps its own factors")

    ROUNDING_ONLY = (
        "rounding_only",
        "nothing in the change of the weight stands above the rounding of the stored numbers: the module is left out",
    )
    NO_LOW_RANK = (
        "no_low_rank",
        "more than half of all directions of the change, or more than were looked for, stand above the rounding of the "
        "stored numbers, as after a full fine-tune",
    )
    UNMOVED = (
        "unmoved",
        "more than half of the numbers of the weight are the same in both models: the change is of few of them, or "
        "rounding took a part of it when it was merged",
        "",
        True,
    )
    ENERGY_IN_ROUNDING = (
        "energy_in_rounding",
        "the directions above the rounding of the stored numbers hold less energy than was asked for; all are kept",
        "",
        True,
    )

    # why a number is missing
    UNTRAINED = ("untrained", "delta_W is exactly zero (untrained), so it has no directions", "", True)
    UNTRAINED_FIRST = (
        "untrained_first",
        "delta_W is exactly zero (untrained) in the first adapter, so there is no score",
        "",
        True,
    )
    UNTRAINED_SECOND = (
        "untrained_second",
        "delta_W is exactly zero (untrained) in the second adapter, so there is no score",
        "",
        True,
    )
    CANCELLED = (
        "cancelled",
        "the weighted updates cancel to less than the rounding of their numbers, so that nothing is written of them",
        "",
        True,
    )
    ONE_ADAPTER = (
        "one_adapter",
        "only one of the adapters changes the module, so that nothing is added to its update there",
    )
    SHAPE_DIFFERS = (
        "shape_differs",
        "the module has another shape in the other adapter, so there is no score",
        "",
        True,
    )
    ROWS_REORDERED = (
        "rows_reordered",
        "the second adapter's writer may keep the rows of B in another order, so sides b and left have no score",
    )
    ZERO_FIRST = (
        "zero_first",
        "no direction of the first adapter stands above the rounding of its numbers, so there is no score",
        "",
        True,
    )
    ZERO_SECOND = (
        "zero_second",
        "no direction of the second adapter stands above the rounding of its numbers, so there is no score",
        "",
        True,
    )
    NOT_FINITE = (
        "not_finite",
        "a factor or a weight holds values that are not finite (NaN or Inf)",
        "",
        True,
    )
    OVERFLOW = ("overflow", "the norm of delta_W is too large for float64", "", True)
    SCALE_UNKNOWN = (
        "scale_unknown",
        "the scale of delta_W is unknown, so numbers that depend on it are missing",
        "give `scale` (alpha / r, or alpha / sqrt(r) for rsLoRA)",
    )
    NEEDS_BASE = (
        "needs_base",
        "delta_W is defined by the base weight; without it, norm_A and norm_B are of what changes its columns and rows",
        "give the model that the adapter was trained on as `base`",
    )
    BASE_ZERO = ("base_zero", "the base weight is zero, so nothing can be measured relative to it", "", True)
    NOT_IN_BASE = ("not_in_base", "the base has no weight for the module, so nothing is measured against it")
    BASE_NOT_FINITE = (
        "base_not_finite",
        "the base weight holds values that are not finite (NaN or Inf), so nothing is measured against it",
        "",
        True,
    )
    PROJECTION_ZERO = (
        "projection_zero",
        "the base weight has nothing in the leading directions of delta_W",
        "",
        True,
    )

    NOTHING_LEFT = (
        "nothing_left",
        "no entry of the base weight changes when delta_W is added and the sum is rounded, so nothing is left of it",
        "store the merged weights in a wider type, or keep the adapter apart",
    )
    TOO_LARGE_TO_STORE = (
        "too_large_to_store",
        "some merged weights are too large for the stored type and become infinite, so that there is no norm left",
        "give `store` bfloat16 or float32",
    )

    # of intruder dimensions
    TOO_SMALL_TO_INTRUDE = (
        "too_small_to_intrude",
        "no leading direction of W + delta_W is an intruder at any multiple of the scale that was tried",
    )
    COSINE_UNSETTLED = (
        "cosine_unsettled",
        "a largest cosine is only known to lie between two bounds around epsilon, so that it counts as no intruder",
        "give `exact`",
    )
    MERGED_UNSETTLED = (
        "merged_unsettled",
        "the leading directions of W + delta_W are not settled, since its singular values lie too close",
        "give `exact`",
    )
    SCALE_OF_LEADING = (
        "scale_of_leading",
        "s_star is of the 64 leading directions of a dense delta_W",
        "give `exact` for all of them",
    )

    # what to know before reading a number
    ROUNDED_FIRST = (
        "rounded_first",
        "the base is stored in another type and is rounded to the stored type first, as if it had been stored so",
        "",
        True,
    )
    LEFT_ESTIMATED = (
        "left_estimated",
        "the leading directions of what is left of delta_W are not settled, since most of it is rounding with a flat "
        "spectrum",
        "",
        True,
    )
    LEAST_RANK = (
        "least_rank",
        "no direction passes the rule, and 1 is advised because no rank is below it; the module could be left out",
    )
    NO_RULE = ("no_rule", "the rule gives no rank here, so the numerical rank is advised: nothing is cut")
    DEQUANTISED = (
        "dequantised",
        "the base weight is stored as short codes with scales, and its numbers were computed from them",
    )
    DORA = (
        "dora",
        "the numbers are of DoRA's direction part, scale * B @ A, without its magnitudes",
        "give `base` for norm_whole, the norm with them",
    )
    GROUP_UNKNOWN = (
        "group_unknown",
        "the file does not say which group of a fused layer (q, k or v) the update is of",
        "give `enable_lora`, such as 1,0,1 for q and v",
    )
    RANK_BELOW_R = ("rank_below_r", "the numerical rank is below r")
    RANK_BELOW_R_FIRST = ("rank_below_r_first", "the numerical rank is below r in the first adapter")
    RANK_BELOW_R_SECOND = ("rank_below_r_second", "the numerical rank is below r in the second adapter")
    RANK_BELOW_WANTED = (
        "rank_below_wanted",
        "delta_W has a lower rank than asked for, and its own rank was used",
        "",
        True,
    )
    ENERGY_BELOW_WANTED = (
        "energy_below_wanted",
        "rounding the factors to the type they are stored in loses more energy than was asked to, at any rank",
        "give `dtype` float32",
    )
    DIRECTIONS_ESTIMATED = (
        "directions_estimated",
        "the leading directions of the dense delta_W are not settled, since its spectrum is flat",
        "",
        True,
    )
    NEAR_TIE = (
        "near_tie",
        "the singular value is so near that of the direction before or after it that rounding turns the two into each "
        "other, and only their span is determined",
    )
    NEAR_TIE_FIRST = (
        "near_tie_first",
        "singular values of the first adapter are so near each other that some of its top-i spans are not determined",
    )
    NEAR_TIE_SECOND = (
        "near_tie_second",
        "singular values of the second adapter are so near each other that some of its top-j spans are not determined",
    )
    BASE_LEADING = (
        "base_leading",
        "the base weight is too large to be factored in full, so re-weighting is that of its `k` leading directions "
        "alone and the spectral shift lies between two bounds",
        "",
        True,
    )
    BASE_RANK_BELOW_K = (
        "base_rank_below_k",
        "the base weight has fewer directions than `k`, and all of them were taken",
        "",
        True,
    )
    BASE_TIES = (
        "base_ties",
        "singular values of the base weight are equal, so that its single directions, and with them the share that "
        "re-weights, are not determined",
        "",
        True,
    )
    SPAN_UNDETERMINED = (
        "span_undetermined",
        "the gap after the k-th singular value of the base weight is so small that rounding, or a random update of "
        "this size, turns its leading span by 30 degrees or more, so a rotation says little",
        "",
        True,
    )
    UNCHANGED_IN_BF16 = (
        "unchanged_in_bf16",
        "no entry of the base weight changes when its sum with delta_W is rounded to bfloat16, so there is no overlap "
        "with the principal mask",
        "",
        True,
    )
    WHOLE_SPACE = (
        "whole_space",
        "one span is the whole space, so that phi_full is 1 for any other and nothing can be tested",
    )
    FORCED_OVERLAP = (
        "forced_overlap",
        "i + j is above d, so that any two spans share i + j - d directions; those are not counted",
    )
    BLIND = (
        "blind",
        "the two spans fill so much of the space that even a direction shared to cos^2 = 0.99 would not stand out from "
        "isotropic random spans; a shared dimension of 0 says nothing there",
        "",
        True,
    )
    NO_COSINE = (
        "no_cosine",
        "the whole updates are not compared, as their shapes or the order of their rows differ, or a start of B is "
        "not zero",
    )
    NOT_CALLED = ("not_called", "no forward pass called the module, so that it was given nothing", "", True)
    PADDING_COUNTED = (
        "padding_counted",
        "padding counts as input, since no attention mask fits the shape of what the module is given",
        "",
        True,
    )
    FEW_TOKENS = (
        "few_tokens",
        "there were fewer tokens than twice the dimensions of the input, too few for the smaller eigenvalues",
        "give more `tokens`",
    )
    NO_INPUTS = (
        "no_inputs",
        "the inputs of the module were not measured, or have another dimension, so that nothing is said of them",
        "measure them with the targets of these adapters, and give `inputs`",
    )
    SHARED_START = (
        "shared_start",
        "the rows of A agree one by one: the two runs began from one random start, which is part of what A shares",
        "compare side b, or remove the start with `init`",
    )
    START_OR_INPUT = (
        "start_or_input",
        "A agrees almost perfectly and B does not: the two have a start or an input direction in common, which cannot "
        "be told apart at this rank",
        "compare side b, or remove the start with `init`",
    )


def flag_notes(
    flags_of: Mapping[str, Collection[Flag]], *, noun: str = "module", without: Collection[Flag] = ()
) -> tuple[str, ...]:
    """A note for each flag that warns and that a module has: in how many, what it means, what to do.

    Parameters
    ----------
    flags_of : module -> its flags
    noun : what the keys are
    without : flags that are left out

    Examples
    --------
    >>> flag_notes({"q": (Flag.OVERFLOW,), "v": ()})
    ('In 1 of 2 modules (q) the norm of delta_W is too large for float64',)
    """
    having: dict[Flag, list[str]] = defaultdict(list)
    for module, flags in flags_of.items():
        for flag in flags:
            having[flag].append(module)
    warned = (flag for flag in Flag if flag in having and flag.warns and flag not in without)
    return tuple(
        f"{_where(having[flag], len(flags_of), noun)} {flag.meaning}{'; ' if flag.cure else ''}{flag.cure}"
        for flag in warned
    )


def _where(having: list[str], total: int, noun: str) -> str:
    """Which modules, and how many of how many."""
    named = listed(map(module_shown, having))
    if total == 1:
        return f"In {named}"
    if len(having) == total:
        return f"In all {counted(total, noun)} ({named})"
    return f"In {len(having)} of {counted(total, noun)} ({named})"
