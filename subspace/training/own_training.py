"""The steps of a model of one's own, in a directory or in memory; interrupted, they go on to the same bits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor, nn

from subspace.errors import ValueRangeError
from subspace.text import listed
from subspace.training import loading
from subspace.training.export import full_files, kept_parameters
from subspace.training.finished_run import Run
from subspace.training.injection import adapted, inject, remove
from subspace.training.loop import Trainer, autocast_dtype
from subspace.training.merged_update import merged_update, warn_of_loss
from subspace.training.method import Method
from subspace.training.models.targets import default_targets
from subspace.training.module_patterns import bare_name
from subspace.training.own_batches import Batches, OwnTask
from subspace.training.recipe import Recipe
from subspace.training.run import Progress
from subspace.training.run_checks import fingerprint, naming_last_good, never_reached
from subspace.training.run_folder import RunFolder
from subspace.training.saving import adapter_files, start_files

__all__ = ["OwnRun", "OwnTraining"]

_DIGEST = "batches/sha256"


@dataclass(frozen=True)
class OwnRun(Run):
    """A run of a model of one's own that is finished.

    Attributes
    ----------
    log : a row for each step of this call, as ``log.jsonl`` has them
    """

    log: tuple[dict[str, Any], ...] = ()


@dataclass
class OwnTraining:
    """A model, its batches, and how it is trained.

    Attributes
    ----------
    model : the module itself, without wrappers
    task : gives the loss of each batch
    recipe : how it is trained
    method : that is put in; None: the adapter that is there is trained
    targets, keep : patterns, as `inject` takes them
    tell : called with each note for the user
    folder : the run's directory; None: nothing is written
    record : content of ``run.json``
    log : rows of the steps that were made
    """

    model: nn.Module
    task: OwnTask
    recipe: Recipe
    method: Method | None
    targets: Sequence[str]
    keep: Sequence[str]
    tell: Callable[[str], None]
    folder: RunFolder | None = None
    record: dict[str, Any] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)

    @property
    def batches(self) -> Batches:
        """The batches of the task."""
        assert isinstance(self.task.batches, Batches)
        return self.task.batches

    def run(self, save_every: int, progress: Progress, stopping: Callable[[], bool]) -> OwnRun:
        """Do all of it, or put what a finished run left into the model."""
        base = fingerprint(self.model)
        if self.record.get("computed", {}).get("base", base) != base:
            raise ValueRangeError(
                "The weights of the model have changed since this run began; put the old ones back, or begin anew with "
                "`overwrite`"
            )
        if self.folder is not None and self.folder.done:
            self._take_back(self.folder.path)
            return OwnRun(self.folder.path, self.recipe.steps, self.record, ())
        trained = self._put_in()
        self._tell_of_statistics()
        self._begin(base, trained)
        trainer = Trainer(self.model.train(), self.task, self.recipe)
        resumed = self._resume(trainer)
        self._steps(trainer, save_every, progress, stopping)
        files = tuple(self._end(trainer, trained))
        return OwnRun(self.folder.path if self.folder else None, resumed, self.record, files, tuple(self.log))

    def _put_in(self) -> list[str]:
        """Put the adapter in; return the names of the adapted modules."""
        if self.method is None:
            return [bare_name(name) for name, layer in adapted(self.model) if layer.active is not None]
        targets = self.targets or (default_targets(self.model) if self.method.needs_targets else ())
        return inject(self.model, self.method, targets, keep=self.keep)

    def _tell_of_statistics(self) -> None:
        """Name batch normalisation that changes in training and is no part of an adapter."""
        kept = {bare_name(name).rpartition(".")[0] for name in kept_parameters(self.model)}
        changing = [
            name
            for name, module in self.model.named_modules()
            if getattr(module, "running_mean", None) is not None and bare_name(name) not in kept
        ]
        if changing and adapted(self.model):
            self.tell(
                f"the running statistics of {listed(changing)} change in training and are not saved with the adapter; "
                "name these modules in `keep`"
            )

    def _take_back(self, folder: Path) -> None:
        """Give the model what a finished run trained."""
        if self.method is not None and not self.method.parts:
            self._put_in()
            self.model.load_state_dict(load((folder / "model.safetensors").read_bytes()), strict=False)
            return
        names = list({layer.active: None for _, layer in adapted(self.model) if layer.active is not None})
        for name in names:
            remove(self.model, name)
        loading.load(self.model, folder, **({"name": names[0]} if names else {}))

    def _files(self) -> dict[str, bytes]:
        return adapter_files(self.model) if adapted(self.model) else full_files(self.model)

    def _begin(self, base: str, trained: list[str]) -> None:
        """Write what is trained, how it is computed and its start, unless an interrupted run has done so."""
        if "computed" not in self.record:
            parameters = list(self.model.parameters())
            dtype = autocast_dtype(self.recipe.dtype, parameters[0].device)
            computed = {
                "dtype": "bfloat16" if dtype is not None else "float32",
                "threads": torch.get_num_threads(),
                "device": parameters[0].device.type,
                "torch": torch.__version__,
                "base": base,
            }
            described = {
                "targets": trained,
                "kept": [bare_name(name) for name in kept_parameters(self.model)],
                "trainable": sum(p.numel() for p in parameters if p.requires_grad),
                "computed": computed,
            }
            start = start_files(self.model) if self.folder and adapted(self.model) else {}
            self._write(start, **described, done=False, step=0)
        torch.set_num_threads(self.record["computed"]["threads"])
        self.recipe = replace(self.recipe, dtype=self.record["computed"]["dtype"])

    def _write(self, files: dict[str, bytes], **entries: Any) -> list[Path]:
        if self.folder is not None:
            return self.folder.write(files, **entries)
        self.record |= entries
        return []

    def _resume(self, trainer: Trainer) -> int:
        """Go on from the last checkpoint, with the batches that follow those that it was trained on."""
        if self.folder is None:
            return 0
        last = self.folder.last()
        if last is not None:
            step, state = last
            self._require_same_batches(step * self.recipe.accumulate, state.pop(_DIGEST))
            trainer.restore(step, state)
            self.tell(f"resuming from step {step} of {self.recipe.steps}")
        self.folder.rewind(trainer.step)
        return trainer.step

    def _require_same_batches(self, count: int, digest: Tensor) -> None:
        self.batches.at(count - 1)
        if not torch.equal(self._digest(), digest):
            raise ValueRangeError(
                f"The run cannot go on: the first {count} batches are not those that it was trained on; give the same "
                "ones in the same order, or begin anew with `overwrite`"
            )

    def _digest(self) -> Tensor:
        return torch.frombuffer(bytearray.fromhex(self.batches.sha256()), dtype=torch.uint8)

    def _steps(self, trainer: Trainer, every: int, progress: Progress, stopping: Callable[[], bool]) -> None:
        steps = self.recipe.steps
        while trainer.step < steps:
            with self._naming_last_good():
                row = trainer.advance()
            self.log.append(row)
            if self.folder is not None:
                self.folder.log(row)
            progress(trainer.step, steps, f"loss {row['loss']:.3f}")
            stop = stopping()
            if stop or (every and trainer.step % every == 0 and trainer.step < steps):
                self._save(trainer)
            if stop:
                raise KeyboardInterrupt

    def _save(self, trainer: Trainer) -> None:
        if self.folder is not None:
            with self._naming_last_good():
                trainer.require_finite()
            self.folder.save(trainer.step, self._files(), {**trainer.state(), _DIGEST: self._digest()})

    def _naming_last_good(self) -> AbstractContextManager[None]:
        return naming_last_good(self.folder.last_good) if self.folder is not None else nullcontext()

    def _end(self, trainer: Trainer, trained: list[str]) -> list[Path]:
        """Write what was trained, and remove the optimiser's states."""
        with self._naming_last_good():
            trainer.require_finite()
        unreached = never_reached(trainer, trained, self.tell)
        files = self._files() if self.folder else {}
        ended = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        entries: dict[str, Any] = {
            "never_reached": unreached,
            "step": trainer.step,
            "done": True,
            "finished": ended,
        }
        if (merged := merged_update(self.model)) is not None:
            warn_of_loss(merged, self.tell)
            entries["merged"] = merged
        paths = self._write(files, written=sorted(files), **entries)
        if self.folder is not None:
            with suppress(OSError):
                self.folder.remove_states()
        return paths
