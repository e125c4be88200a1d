"""The reading of inputs, step by step: what is needed for it, the sums that are kept and taken up again, the result."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.analysis.evaluation_plan import in_words
from subspace.analysis.inputs_rows import DIRECTIONS, gradients_of, rows_of
from subspace.analysis.inputs_source import InputsSource, layers_of, source_of
from subspace.analysis.resolve import Loading
from subspace.errors import FileError, ValueRangeError
from subspace.flags import flag_notes
from subspace.results.inputs import Inputs
from subspace.results.inputs_file import vectors_bytes
from subspace.text import counted, shown

if TYPE_CHECKING:
    from subspace.training.input_reading import InputReading

__all__ = ["InputsPlan", "Reach", "planned"]

_KIND, _VERSION = "subspace.inputs.partial", "1"
_OWN = "subspace.inputs"
_EVERY, _PATIENCE = 60.0, 10.0  # seconds between two savings, and how many times as long as one takes
_SHARE = 0.9  # of the free memory, above which a reading would not end well
_WHOLE = 1024  # dimension up to which all eigenpairs are kept


@dataclass(frozen=True)
class Reach:
    """How much is read and kept; fields as the parameters of `inputs`."""

    tokens: int
    eigenpairs: int
    full: int
    gradients: bool

    def __post_init__(self) -> None:
        for name in ("tokens", "eigenpairs", "full"):
            if getattr(self, name) < (0 if name == "full" else 1):
                raise ValueRangeError(f"Invalid `{name}` {getattr(self, name)}: it is too small")

    def kept(self, d: int) -> int:
        """How many eigenpairs of d are kept."""
        return d if d <= min(_WHOLE, self.full) else min(self.eigenpairs, d)


def planned(
    model: Any,
    data: Any,
    *,
    targets: Sequence[str] | None,
    adapter: Any,
    reach: Reach,
    loss: Any,
    out: str | os.PathLike[str] | None,
    overwrite: bool,
    reading: Mapping[str, Any],
    showing: Mapping[str, Any],
    device: str,
    loading: Loading,
) -> InputsPlan:
    """What `inputs` will do, after one forward pass over one batch; parameters and errors as there."""
    place = None if out is None else _free(Path(out), overwrite=overwrite)
    source = source_of(
        model,
        data,
        adapter=adapter,
        tokens=reach.tokens,
        loss=loss,
        reading=reading,
        showing=showing,
        device=device,
    )
    names, notes = layers_of(source.model, targets, adapter, loading)
    first, source = source.looked_at()
    from subspace.training.input_reading import InputReading

    state = InputReading(source.model, names, reach.eigenpairs, reach.full, reach.gradients)
    with in_words(source.name):
        state.look(first)
    shown_as = {name: str(value) for name, value in showing.items() if value is not None}
    return InputsPlan(source, state, reach, place, overwrite, notes, shown_as)


def _free(out: Path, *, overwrite: bool) -> Path:
    """The place of the result, which has to be free, or to have a file of inputs that may be replaced."""
    from subspace.checkpoints import open_tensors

    if not out.name.lower().endswith(".safetensors"):
        raise ValueRangeError(f"Inputs are a .safetensors file; give `out` such a name, not {shown(out)}")
    if os.path.lexists(out):
        if not overwrite:
            raise FileError(
                f"{shown(out, longest=1000)} exists already; choose another name, or give `overwrite`"
            )
        if _OWN not in open_tensors(out).metadata:
            raise FileError(
                f"Cannot replace {shown(out, longest=1000)}: it is a file of another kind; choose another name"
            )
    return out


@dataclass
class InputsPlan:
    """What is read, and what it takes.

    Attributes
    ----------
    source, reading, reach : what is read, the sums, how far
    out : the place of the result; None: it is not written
    notes : what to know beforehand
    settings : that change what is read
    """

    source: InputsSource
    reading: InputReading
    reach: Reach
    out: Path | None
    overwrite: bool
    notes: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    _saved: float = 0.0
    _took: float = 0.0

    @property
    def file_bytes(self) -> int:
        """About how large the file is."""
        kept = [(site.d, self.reach.kept(site.d)) for site in self.reading.sites if site.called]
        return sum(vectors_bytes(d, k) + 8 * (d + k) for d, k in kept) + self._gradients_bytes()

    def _gradients_bytes(self) -> int:
        if not self.reach.gradients:
            return 0
        from subspace.training.layer_shapes import sizes

        shapes = [sizes(self.reading.model.get_submodule(name)) for name in self.reading.targets]
        return sum(vectors_bytes(d, min(DIRECTIONS, *shape)) for shape in shapes for d in shape)

    def size(self) -> str:
        """How much is read, in a sentence, and what memory and what file it takes."""
        sites = [site for site in self.reading.sites if site.called]
        sketched = [site for site in sites if site.d > max(self.reach.full, 4 * self.reach.eigenpairs)]
        how = (
            f", {len(sketched)} of them sketched (more than {self.reach.full} dimensions)" if sketched else ""
        )
        file = (
            "" if self.out is None else f", and {_size(self.file_bytes)} in {shown(self.out, longest=1000)}"
        )
        return (
            f"{counted(len(self.reading.targets), 'module')} with {counted(len(sites), 'different input')}{how}, "
            f"{self.reach.tokens:,} tokens: {_size(self.reading.bytes)} of memory for the sums{file}"
        )

    def carried_out(self, progress: Callable[[int, int], None]) -> Inputs:
        """Read, and write the result if it has a place.

        Raises
        ------
        ValueRangeError : there is not enough memory, an input is not finite
        FileError : partial sums of other settings are in the way, or the file cannot be written
        """
        from subspace.checkpoints.atomic_writing import one_writer
        from subspace.training.stop_request import stop_requests

        self._require_memory()
        self.reading.begin()
        with ExitStack() as stack:
            if self.out is not None:
                stack.enter_context(one_writer(self.out))
                self._take_up()
            stopping = stack.enter_context(stop_requests())
            self._saved = time.monotonic()

            def after() -> None:
                progress(min(self.reading.tokens, self.reach.tokens), self.reach.tokens)
                self._save_at_times(stop=stopping())

            with in_words(self.source.name):
                self.reading.read(self.source.passes, tokens=self.reach.tokens, after=after)
            result = self._result()
            if self.out is not None:
                result.save(self.out, overwrite=self.overwrite)
                self._partial.unlink(missing_ok=True)
        return result

    def _require_memory(self) -> None:
        from subspace.training.batches import place_of
        from subspace.training.meters import available_bytes

        free = available_bytes(place_of(self.reading.model))
        if free is not None and self.reading.bytes > _SHARE * free:
            raise ValueRangeError(
                f"Not enough memory: the sums need {_size(self.reading.bytes)} and {_size(free)} are free; give fewer "
                f"`targets`, or a lower `full` than {self.reach.full} to sketch more of them"
            )

    # --- what is summed up so far, next to the file that will be

    @property
    def _partial(self) -> Path:
        assert self.out is not None
        return self.out.with_name(f"{self.out.name}.partial")

    @property
    def _settings_sha256(self) -> str:
        what = {
            "model": self.source.model_sha256,
            "data": self.source.data_sha256,
            "targets": self.reading.targets,
            "reach": [self.reach.eigenpairs, self.reach.full, self.reach.gradients],
            "settings": dict(self.settings),
        }
        return sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

    def _save_at_times(self, *, stop: bool) -> None:
        if self.out is None:
            if stop:
                raise KeyboardInterrupt
            return
        began = time.monotonic()
        if stop or began - self._saved > max(_EVERY, _PATIENCE * self._took):
            self._save()
            self._saved, self._took = time.monotonic(), time.monotonic() - began
        if stop:
            raise KeyboardInterrupt(
                f"what was summed up is in {self._partial}; the same call goes on from there"
            )

    def _save(self) -> None:
        from subspace.checkpoints.atomic_writing import write_whole
        from subspace.checkpoints.tensor_bytes import StoredTensor, safetensors_bytes

        arrays = {name: value.numpy() for name, value in self.reading.state().items()}
        marks = {
            _KIND: _VERSION,
            "settings": self._settings_sha256,
            "done": str(self.reading.done),
            "digest": self.reading.digest,
        }
        stored = {name: StoredTensor(M, str(M.dtype)) for name, M in arrays.items()}
        write_whole({self._partial: safetensors_bytes(stored, marks)})

    def _take_up(self) -> None:
        import numpy as np
        import torch

        from subspace.checkpoints import open_tensors

        if not os.path.lexists(self._partial):
            return
        file = open_tensors(self._partial)
        if (file.metadata.get(_KIND), file.metadata.get("settings")) != (_VERSION, self._settings_sha256):
            raise FileError(
                "Partial sums of another model, data or settings are in the way: "
                f"{shown(self._partial, longest=1000)}; remove that file, or choose another name"
            )
        state = {name: torch.from_numpy(np.array(file.raw(name))) for name in file.layout}
        self.reading.restore(state, done=int(file.metadata["done"]), digest=file.metadata["digest"])

    def _result(self) -> Inputs:
        self.reading.require_finite()
        moments, rows = rows_of(self.reading, self.reach.kept)
        gradients = gradients_of(self.reading)
        flags = {row.module: row.flags for row in rows}
        return Inputs(
            model=self.source.name,
            data=self.source.data,
            model_sha256=self.source.model_sha256,
            data_sha256=self.source.data_sha256 or self.reading.digest,
            tokens=self.reading.tokens,
            modules=tuple(rows),
            moments=moments,
            gradients=gradients,
            notes=(*self.source.notes, *self.notes, *flag_notes(flags)),
        )


def _size(n: float) -> str:
    """A number of bytes, for people.

    Examples
    --------
    >>> _size(999), _size(45_104_768), _size(4e12)
    ('999 bytes', '45 MB', '4000 GB')
    """
    units = ["bytes", "kB", "MB", "GB"]
    while n >= 999.5 and len(units) > 1:
        n /= 1000
        del units[0]
    return f"{n:.0f} {units[0]}"
