"""What a training method is: its settings and options, what it puts into a layer, computes there, merges and saves.

Importing this module imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from subspace.errors import FormatError, ValueRangeError
from subspace.text import shown

if TYPE_CHECKING:
    from torch import Tensor, nn
    from typing_extensions import Self

    from subspace.training.adapted_layer import AdaptedLayer

__all__ = ["Layers", "Method", "Option"]

Layers = Sequence[tuple[str, "AdaptedLayer"]]


@dataclass(frozen=True)
class Option:
    """One setting of a method as an option of ``subspace train``; its default is that of the setting.

    Attributes
    ----------
    flag : as it is typed, such as "--rank"
    setting : field of the method that it sets
    help : a whole phrase
    kind : "number" (of the type of the default), "flag", "choice", "names" (may be repeated) or "groups" (q,v or
        1,0,1)
    choices : the words of a "choice"
    least, below : limits of a "number": least <= value < below
    """

    flag: str
    setting: str
    help: str
    kind: Literal["number", "flag", "choice", "names", "groups"] = "number"
    choices: tuple[str, ...] = ()
    least: float | None = None
    below: float | None = None

    def require(self, value: Any, default: Any) -> None:
        """Refuse a value that the option would not take, wherever it comes from.

        Parameters
        ----------
        value : of the setting
        default : of the setting; None is allowed where it is the default, and a whole number asks for whole numbers

        Raises
        ------
        ValueRangeError : no number, out of the limits, or none of the choices
        """
        wanted = "" if value is None and default is None else self._wanted(value, default)
        if wanted:
            written = f"'{shown(value)}'" if isinstance(value, str) else shown(repr(value), longest=60)
            raise ValueRangeError(f"Invalid `{self.setting}` {written}: it must be {wanted}")

    def _wanted(self, value: Any, default: Any) -> str:
        """What a value must be and is not; "" where it is."""
        many = not isinstance(value, str) and isinstance(value, Iterable)
        fits, words = {
            "choice": (value in self.choices, f"one of {', '.join(self.choices)}"),
            "flag": (value in (True, False), "true or false"),
            "names": (many, "a list of names"),
            # their names are the method's to check
            "groups": (
                isinstance(value, str)
                or (many and all(isinstance(on, str) or on in (True, False) for on in value)),
                "a list of names, or of true and false",
            ),
        }.get(self.kind, (False, ""))
        if words:
            return "" if fits else words
        whole = isinstance(default, int)
        if isinstance(value, bool) or not isinstance(value, Integral if whole else Real):
            return "a whole number" if whole else "a number"
        number = float(value)
        least = -math.inf if self.least is None else self.least
        below = math.inf if self.below is None else self.below
        return "" if math.isfinite(number) and least <= number < below else self._limits()

    def _limits(self) -> str:
        if self.least is not None and self.below is not None:
            return f"in [{self.least:g}, {self.below:g})"
        if self.least is not None:
            return f"finite and at least {self.least:g}"
        return "finite" if self.below is None else f"finite and below {self.below:g}"


@dataclass(frozen=True)
class Method:
    """How a model is adapted: the base of the dataclasses in `subspace.training.methods`, whose fields are settings.

    A method either puts parameters of its own into layers (`parts`, `start`, `output`, `delta_weight`), or trains some
    of those that the model has (`own_parameters`). Settings are checked against their options when one is made; a
    method with a ``__post_init__`` of its own calls this one.

    Attributes
    ----------
    name : on the command line and in records
    about : what it trains, as a phrase for the help
    lr : peak learning rate where none is given
    options : of ``subspace train``
    parts : names of the parameters that it adds to a layer, of which `start` may leave some out; () for a method that
        adds none
    formats : in which it can be saved: "peft", "loralib"
    keeps_start : whether a run saves what it started from, because the start is not zero or one everywhere
    stored : part by the last words of its name in a saved adapter, for `from_peft`
    """

    name: ClassVar[str]
    about: ClassVar[str]
    lr: ClassVar[float]
    options: ClassVar[tuple[Option, ...]] = ()
    parts: ClassVar[tuple[str, ...]] = ()
    formats: ClassVar[tuple[str, ...]] = ("peft",)
    keeps_start: ClassVar[bool] = False
    stored: ClassVar[Mapping[str, str]] = {}

    def __post_init__(self) -> None:
        defaults = {setting.name: setting.default for setting in fields(self)}
        for option in self.options:
            option.require(getattr(self, option.setting), defaults[option.setting])

    @classmethod
    def from_options(cls, given: Mapping[str, Any], *, seed: int, targets: Sequence[str]) -> Self:
        """Return the method of a command line.

        Parameters
        ----------
        given : value of each option that was given, by its setting
        seed : of the run
        targets : patterns of the modules to adapt; () where none was given
        """
        return cls(**given)

    def document(self) -> dict[str, Any]:
        """Return the settings as plain values by name, and the method's name as ``kind``."""
        return {"kind": self.name, **asdict(self)}

    @property
    def needs_targets(self) -> bool:
        """Whether the modules to adapt are chosen by default where none are named."""
        return True

    @property
    def fixed(self) -> tuple[str, ...]:
        """Which of the `parts` are not trained: they are buffers of a layer, so that a checkpoint has them too."""
        return ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user has to know of what is saved, each one sentence."""
        return ()

    def rate(self, part: str) -> float:
        """Return the learning rate of one of the `parts`, as a multiple of the run's."""
        return 1.0

    def require_format(self, format: str) -> None:
        """Refuse a format that cannot hold what is trained.

        Raises
        ------
        ValueRangeError : it cannot
        """
        if format not in self.formats:
            raise ValueRangeError(
                f"The format {format} cannot hold what the method {self.name} trains; give `format` "
                f"{' or '.join(self.formats)}"
            )

    def own_parameters(self, model: nn.Module, chosen: Sequence[str]) -> Iterable[nn.Parameter]:
        """Return which of the model's own parameters are trained, for a method without `parts`.

        Parameters
        ----------
        model : whose parameters are all frozen otherwise
        chosen : names of the targets
        """
        raise NotImplementedError

    def require_targets(self, chosen: Sequence[str]) -> None:
        """Refuse targets that the method's settings do not fit.

        Raises
        ------
        ValueRangeError : they do not
        """

    def for_layer(self, model: nn.Module, module: str) -> Self:
        """Return the method as it applies to one layer, where that depends on the model.

        Parameters
        ----------
        model : before anything is changed in it
        module : name of the layer

        Raises
        ------
        ShapeError, ValueRangeError : the settings do not fit the layer
        """
        return self

    def remembered(self, module: str) -> Any:
        """Return what the method has to know of a layer besides its parameters: `AdaptedLayer.remembered`."""
        return None

    def start(self, layer: nn.Module, module: str) -> dict[str, Tensor]:
        """Return the parameters at the start, by the names in `parts`; nothing is changed.

        Parameters
        ----------
        layer : of a kind that can be adapted; see `kind_of`
        module : its name

        Raises
        ------
        ShapeError, ValueRangeError : the layer is not one that the method can adapt
        """
        raise NotImplementedError

    def output(self, layer: AdaptedLayer, adapter: str, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the output of a layer with its adapter applied.

        Parameters
        ----------
        layer : whose ``plain(x, *args, **kwargs)`` is the output without it
        adapter : name of the adapter, for ``layer.factors(adapter)`` and ``layer.remembered[adapter]``
        """
        raise NotImplementedError

    def delta_weight(self, layer: AdaptedLayer, adapter: str) -> Tensor:
        """Return ``delta_W`` of one adapter in the layout of the layer's own weight, in float32 at least."""
        raise NotImplementedError

    def merged_bias(self, layer: AdaptedLayer, adapter: str, bias: Tensor) -> Tensor | None:
        """Return the bias of a merged layer, None where it stays."""
        return None

    def require_mergeable(self, layer: AdaptedLayer, merged: nn.Parameter, delta_W: Tensor) -> None:
        """Refuse to merge into a layer that would not give merged what it gives unmerged.

        Raises
        ------
        ValueRangeError : it would not
        """

    def tensors(self, layer: AdaptedLayer, adapter: str) -> dict[str, Tensor]:
        """Return what makes ``delta_W`` of the layer's own weight, by the names in `parts`."""
        return layer.factors(adapter)

    def peft_tensors(self, layer: AdaptedLayer, adapter: str) -> dict[str, Tensor]:
        """Return what is saved of a layer, by the last part of its name in the file."""
        return {part: value.detach() for part, value in self.tensors(layer, adapter).items()}

    def peft_config(self, model: nn.Module, layers: Layers, common: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``adapter_config.json``.

        Parameters
        ----------
        layers : the adapted ones, with their names
        common : entries that every method's configuration has; one of the same name here replaces it
        """
        return {"peft_type": self.name.upper(), **common}

    @classmethod
    def is_in(cls, config: Mapping[str, Any]) -> bool:
        """Return whether ``adapter_config.json`` is of this method, for `from_peft`."""
        return bool(cls.stored) and config.get("peft_type") == cls.name.upper()

    @classmethod
    def from_peft(cls, config: Mapping[str, Any], module: str, stored: Mapping[str, Tensor]) -> Self:
        """Return the method of one module of a saved adapter.

        Parameters
        ----------
        config : ``adapter_config.json``
        module : its name
        stored : its tensors, by the names in `parts`

        Raises
        ------
        FormatError : the configuration says something that the method does not do
        """
        raise FormatError(
            f"Adapters of the method {cls.name} cannot be loaded; inject the method and train it"
        )
