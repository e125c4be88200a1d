"""The result of `explain`: why the leading directions of every delta_W are those."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from subspace.flags import Flag
from subspace.results.cells import plain
from subspace.results.columns import Column, column, row
from subspace.results.nulls import ISOTROPIC
from subspace.results.result import Result, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["DirectionExplanation", "Explanation", "ModuleHeads", "NamedToken"]


def _control(meaning: str) -> Any:
    return column(meaning, place="record", range="[0, 1]", default=None)


@row
class NamedToken(Row):
    """A token that stands out in a direction."""

    place: int = column("Place of the token by the size of its score, from 1")
    id: int = column("Id of the token")
    token: str = column("Text of the token in quotes, or its id after # where the tokenizer is not known")
    score: float = column(
        "Cosine of the direction with the token's row of the embedding, through the norm's gain and without the mean "
        "over all tokens; u and v may both change their sign",
        range="[-1, 1]",
    )
    p: float = column(
        "Share of isotropic random directions of which some token scores as much, at least 1 / (draws + 1)",
        range="(0, 1]",
    )
    p_modules: float | None = column(
        "The same of the directions of modules in other layers",
        range="(0, 1]",
        default=None,
    )


@row
class ModuleHeads(Row):
    """How delta_W of one module is spread over attention heads."""

    module: str = column("Name of the module")
    side: str = column(
        "rows, where a head is a block of outputs (q, k, v), or columns (the output projection)"
    )
    names: tuple[str, ...] = column("Number of each head, in a fused layer behind q, k or v")
    share: tuple[float, ...] = column("Share of ||delta_W||_F^2 in each head; they add up to 1")
    isotropic: float = column("Mean of that share for isotropic random updates: 1 / heads")
    largest_isotropic: float = column(
        "Mean of the largest share over heads for isotropic random updates of the same singular values"
    )
    largest_p: float = column("Share of such updates whose largest share is as large, at least 0.001")
    output: tuple[float, ...] | None = column(
        "Mean square of what delta_W adds through each head on the inputs; of rows they add up to that of the module; "
        "None without inputs",
        default=None,
    )


@row
class DirectionExplanation(Row):
    """One leading direction of one module: sigma u v^T, with v in the space of the inputs and u in that of the outputs.

    A share without a control or a chance level beside it does not exist; None says that what it needs was not given.
    """

    module: str = column("Name of the module")
    k: int = column("Number of the direction, from the largest singular value; 0 where delta_W has none")
    d_in: int = column("Columns of delta_W", place="record")
    d_out: int = column("Rows of delta_W", place="record")
    rank: int | None = column(
        "Numerical rank of delta_W; of a dense one how many directions were looked at", place="record"
    )
    sigma: float | None = column("Singular value; that of B A where the scale is unknown", drop=9)
    energy_share: float | None = column(
        "Share of ||delta_W||_F^2 that the direction has", label="energy", range="[0, 1]", drop=8
    )
    output_square: float | None = column(
        "Functional size: mean square of what the direction adds to the module's output, sigma^2 E[(v^T x)^2]",
        place="record",
        default=None,
    )
    output_variance: float | None = column(
        "The part of output_square that depends on the token: sigma^2 times the variance of v^T x",
        place="record",
        default=None,
    )
    output_share: float | None = column(
        "Share of the mean square of all that delta_W adds",
        label="of output",
        range="[0, 1]",
        drop=7,
        default=None,
    )
    constant_share: float | None = column(
        "Share of output_square that is the same for every token: (v^T mean)^2 / E[(v^T x)^2]",
        label="constant",
        range="[0, 1]",
        default=None,
    )
    constant_isotropic: float | None = column(
        "The same for isotropic random directions, as a ratio of means: share of the input energy along the mean",
        label="constant isotropic",
        range="[0, 1]",
        drop=3,
        default=None,
    )
    constant_control: float | None = _control("Mean of constant_share over the control directions")
    null: str = column(
        "What the chance levels are of: isotropic random directions", place="record", default=ISOTROPIC
    )
    control: str = column(
        "What the control directions are: trailing, the other directions of this delta_W; or isotropic, random ones, "
        "where it has no other",
        place="record",
        default="",
    )
    mean_share: float | None = column(
        "Squared cosine of v and the mean input", label="in mean", range="[0, 1]", default=None
    )
    mean_isotropic: float | None = column(
        "The same, expected for isotropic random directions: 1 / d_in",
        label="mean isotropic",
        range="[0, 1]",
        drop=3,
        default=None,
    )
    mean_control: float | None = _control("Mean of mean_share over the control directions")
    input_leading: int | None = column(
        "How many leading eigenvectors of E[x x^T] input_share is of", place="record", default=None
    )
    input_share: float | None = column(
        "Squared length of v within the leading directions of the inputs",
        label="in inputs",
        range="[0, 1]",
        default=None,
    )
    input_isotropic: float | None = column(
        "The same, expected for isotropic random directions: input_leading / d_in",
        label="inputs isotropic",
        range="[0, 1]",
        drop=3,
        default=None,
    )
    input_control: float | None = _control("Mean of input_share over the control directions")
    W_leading: int | None = column(
        "How many singular vectors of W W_share is of", place="record", default=None
    )
    W_share: float | None = column(
        "Squared length of v within the leading right singular vectors of W",
        label="in W",
        range="[0, 1]",
        default=None,
    )
    W_isotropic: float | None = column(
        "The same, expected for isotropic random directions: W_leading / d_in",
        label="W isotropic",
        range="[0, 1]",
        drop=3,
        default=None,
    )
    W_control: float | None = _control("Mean of W_share over the control directions")
    gradient_leading: int | None = column(
        "How many directions of the first gradient gradient_share is of", place="record", default=None
    )
    gradient_share: float | None = column(
        "Squared length of v within the leading right singular vectors of the loss's gradient by W, before training",
        label="in gradient",
        range="[0, 1]",
        default=None,
    )
    gradient_isotropic: float | None = column(
        "The same, expected for isotropic random directions: gradient_leading / d_in",
        label="gradient isotropic",
        range="[0, 1]",
        drop=3,
        default=None,
    )
    gradient_control: float | None = _control("Mean of gradient_share over the control directions")
    head: str | None = column("Attention head that holds most of the direction", drop=4, default=None)
    head_share: float | None = column(
        "Share of the direction in that head: of u for q, k and v, of v for the output projection",
        label="in head",
        range="[0, 1]",
        drop=4,
        default=None,
    )
    head_isotropic: float | None = column(
        "Mean of the largest share over heads for isotropic random directions",
        label="head isotropic",
        range="[0, 1]",
        drop=3,
        default=None,
    )
    head_p: float | None = column(
        "Share of isotropic random directions that have as much in one head, at least 0.0001",
        place="record",
        range="(0, 1]",
        default=None,
    )
    heads: tuple[float, ...] = column("Share of the direction in every head", place="json", default=())
    read_as: str = column(
        "What tokens are compared with: input, v with the embedding; output, u with the unembedding; empty for none",
        place="record",
        default="",
    )
    token: str | None = column(
        "Token that stands out; none where no token does at the level; None where tokens were not compared",
        drop=5,
        default=None,
    )
    token_score: float | None = column(
        "Score of the token with the largest one, whether it stands out or not",
        place="record",
        range="[-1, 1]",
        default=None,
    )
    token_p: float | None = column(
        "Share of isotropic random directions of which some token scores as much, at least 1 / (draws + 1)",
        label="token p",
        range="(0, 1]",
        drop=5,
        default=None,
    )
    token_p_modules: float | None = column(
        "The same of the directions of modules in other layers, of which there are few; None without any",
        label="token p modules",
        range="(0, 1]",
        drop=5,
        default=None,
    )
    tokens: tuple[NamedToken, ...] = column("Tokens that stand out at the level", place="json", default=())
    without_tokens: str = column(
        "Why no tokens were compared; empty where they were", place="record", default=""
    )
    flags: tuple[Flag, ...] = column("What to know before reading the row, see the list of flags", default=())

    def document(self, *, grid: bool = False) -> dict[str, Any]:
        """Return the row as an object of strict JSON, its tokens as objects."""
        return {**super().document(grid=grid), "tokens": [each.document() for each in self.tokens]}


@dataclass(frozen=True, eq=False, repr=False)
class Explanation(Result[DirectionExplanation]):
    """Why the leading directions of an adapter are those.

    Attributes
    ----------
    path : of the adapter
    base : of the base weights, None without
    inputs : which inputs these are, None without
    level : p-value up to which a token stands out
    draws : how many isotropic random directions tokens are tested against
    modules : one row per module and leading direction
    heads : how every module of attention is spread over heads, empty where the heads are not known
    tokenizer : what names the tokens: "bytes", a file, or "" where they have ids alone
    limits : what these numbers cannot say, a sentence each
    missing : modules that the base does not have
    notes : what to know before reading the numbers
    """

    SCHEMA: ClassVar[str] = "subspace.explain/1"
    ROW: ClassVar[type[Row]] = DirectionExplanation
    KEYS: ClassVar[tuple[str, ...]] = ("module", "k")

    path: str
    modules: tuple[DirectionExplanation, ...]
    base: str | None = None
    inputs: Mapping[str, Any] | None = None
    level: float = 0.05
    draws: int = 0
    heads: tuple[ModuleHeads, ...] = ()
    tokenizer: str = ""
    limits: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def table_columns(self) -> list[Column]:
        """Return the columns of the short table, without those of what was not given."""
        from subspace.results.explanation_facts import without_numbers

        hidden = without_numbers(self.modules)
        return [each for each in super().table_columns() if each.name not in hidden]

    def document(self) -> dict[str, Any]:
        """Return the JSON document ``subspace.explain/1``."""
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        rows = {
            "modules": [each.document() for each in self.modules],
            "heads": [each.document() for each in self.heads],
        }
        return {"schema": self.SCHEMA, "headline": self.headline(), **plain(own | rows)}

    def headline(self) -> str:
        """Return where the median module's leading direction lies, then which heads and tokens stand out."""
        return " ".join(self.facts())

    def facts(self) -> tuple[str, ...]:
        """Return the sentences of the headline, each of which stands alone; `limits` is what they leave out."""
        from subspace.results.explanation_facts import facts

        return tuple(facts(self))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the shares of every module's leading direction by layer and return the axes."""
        from subspace.plots import explained_shares

        return explained_shares(self, ax=ax)
