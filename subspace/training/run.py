"""A training run from its settings to the files that it leaves; interrupted, it goes on to the same bits."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.text import shown
from subspace.training.finished_run import Run, complete
from subspace.training.interruption import saying_what_is_saved
from subspace.training.job import Job
from subspace.training.recipe import Recipe
from subspace.training.run_costs import costs
from subspace.training.run_folder import RunFolder

if TYPE_CHECKING:
    from subspace.training.data import Examples
    from subspace.training.loop import Trainer
    from subspace.training.models import Base
    from subspace.training.tasks import Task

__all__ = ["Run", "train"]

Progress = Callable[[int, int, str], None]
Tell = Callable[[str], None]


def train(
    job: Job,
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    stopping: Callable[[], bool] = lambda: False,
    tell: Tell = lambda note: None,
) -> Run:
    """Train an adapter; write it with its start, its log and its checkpoints into a directory.

    The same job with the same directory goes on where an interrupted run was last saved, to the same bits as one that
    was never interrupted. Where the run is done, only its costs are measured, if they are asked for and not known. What
    a model and data are is their content, not their path.

    Parameters
    ----------
    job : what is trained on what, and how
    out : the run's directory, which is made where it is missing
    overwrite : begin anew where a run is in the directory already
    progress : called after each step with (steps done, steps in all, a short message)
    stopping : called after each step; once it returns true, the state is saved and `KeyboardInterrupt` raised, whose
        message says at which step
    tell : called with each note for the user, one sentence

    Returns
    -------
    Run : the finished run

    Raises
    ------
    SubspaceError : model, data or settings that do not fit, a directory of something else, a full disk
    DivergedError : the loss is not finite
    KeyboardInterrupt : it was stopped, and can go on
    """
    from subspace.training.content import content_of
    from subspace.training.data import READING, load_examples

    show = progress or (lambda *_: None)
    with saying_what_is_saved(Path(out), overwrite=overwrite, accounts=job.accounts):
        examples = load_examples(job.data, **{name: getattr(job, name) for name in READING})
        settings = job.settings() | content_of(job.model, examples)
        if examples.labels is None and (examples.prompts or examples.messages):
            settings["train_on"] = job.train_on
        with RunFolder.opened(Path(out), settings, overwrite=overwrite) as folder:
            if not folder.done:
                return _Training(job, examples, folder, tell).run(show, stopping)
            complete(
                folder,
                job.accounts,
                lambda: _Training(job, examples, folder, tell, quiet=True).measure_costs(show, stopping),
                tell,
            )
            return Run(folder.path, folder.record["step"], folder.record, ())


class _Training:
    """One run in its directory."""

    def __init__(
        self, job: Job, examples: Examples, folder: RunFolder, tell: Tell, *, quiet: bool = False
    ) -> None:
        from subspace.training.injection import inject
        from subspace.training.models import default_targets, load_base
        from subspace.training.run_checks import device_of, require_begun_with
        from subspace.training.run_measures import RunMeasures
        from subspace.training.tasks import task_of

        self.job, self.examples, self.folder, self.tell = job, examples, folder, tell
        notes = tell if not quiet else lambda note: None  # a finished run has shown them before
        for note in examples.notes:
            notes(note)
        labels, seed = examples.label_names, job.recipe.seed
        self.base: Base = load_base(
            job.model, labels=labels, seed=seed, tokenizer=job.tokenizer, length=job.recipe.length
        )
        model = self.base.model
        require_begun_with(folder.record, model, job.model)
        targets = job.targets or (default_targets(model) if job.method.needs_targets else ())
        model.to(device_of(job.device))
        heads = self.base.heads
        keep = (*job.keep, *heads)
        self.targets = inject(model, job.method, targets, keep=keep, but=heads, exclude=job.exclude)
        recipe = self._resolved()
        self.task: Task = task_of(self.base, examples, recipe, train_on=job.train_on)
        for note in (*self.base.notes, *job.method.notes, *self.task.notes):
            notes(note)
        self.recipe = recipe.with_steps(self.task.epoch)
        self.model = model.train()
        self.measures = RunMeasures(model, self.task, self.recipe, job.evaluate_every, tell)
        if job.gradient_checkpointing:
            from subspace.training.less_memory import checkpoint_gradients

            checkpoint_gradients(model, job.model)

    def _resolved(self) -> Recipe:
        """The recipe with the dtype that is computed in, which a run keeps on whatever machine it goes on."""
        from subspace.training.loop import autocast_dtype

        known = self.folder.record.get("computed", {}).get("dtype")
        dtype = autocast_dtype(self.job.recipe.dtype, next(self.base.model.parameters()).device)
        limit = self.base.limit or self.job.recipe.length
        if self.job.recipe.length > limit and self.base.task != "classify":  # whose own note says so
            self.tell(f"the model takes at most {limit} tokens, so windows have that length")
        return replace(
            self.job.recipe,
            dtype=known or ("bfloat16" if dtype is not None else "float32"),
            length=min(self.job.recipe.length, limit),
        )

    def run(self, progress: Progress, stopping: Callable[[], bool]) -> Run:
        """Do all of it; the caller's random state and number of threads are put back."""
        with self._undisturbed():
            return self._run(progress, stopping)

    def measure_costs(self, progress: Progress, stopping: Callable[[], bool]) -> None:
        """Measure what the run cost, which is done, with the values in its files; nothing is trained."""
        import torch

        from subspace.training.trained_values import restore

        with self._undisturbed():
            torch.set_num_threads(self.folder.record["computed"]["threads"])
            restore(self.model, self.folder.path, self._files)
            self._account(progress, stopping)

    def _undisturbed(self) -> AbstractContextManager[None]:
        from subspace.training.run_checks import not_computed, undisturbed

        return undisturbed(
            lambda error: not_computed(error, self.recipe, self.job.model, self.folder.last_good())
        )

    def _run(self, progress: Progress, stopping: Callable[[], bool]) -> Run:
        from subspace.training.loop import Trainer

        self._begin()
        trainer = Trainer(self.model, self.task, self.recipe)
        resumed = self._resume(trainer)
        self._steps(trainer, progress, stopping)
        files = self._end(trainer, progress, stopping)
        return Run(self.folder.path, resumed, self.folder.record, tuple(files))

    def _begin(self) -> None:
        """Choose the threads, measure before training and write the start, unless an interrupted run has done so."""
        import torch

        from subspace.training.run_checks import require_finite
        from subspace.training.threads import faster_threads

        threads = self.folder.record.get("computed", {}).get("threads") or self.job.threads
        torch.set_num_threads(threads or faster_threads(self.model, self.task, self.recipe))
        if "computed" in self.folder.record:
            return
        before = self.measures.at(0)
        require_finite(
            before,
            what=f"The model {shown(self.job.model, longest=1000)} has no finite loss before it is trained",
            cure="check its weights, or give `dtype` float32",
        )
        files = {f"start/{name}": content for name, content in self._files(start=True).items()}
        self.folder.write(files, **self._described(), held_out={"before": before}, done=False, step=0)

    def _described(self) -> dict[str, Any]:
        """Entries of the record that say what is trained, and how it is computed."""
        import torch

        from subspace.training.export import kept_parameters
        from subspace.training.without_training import layers_of

        parameters = list(self.model.parameters())
        return {
            "model_type": self.base.model_type,
            "task": self.base.task,
            "targets": self.targets,
            "kept": list(kept_parameters(self.model)),
            "trainable": sum(p.numel() for p in parameters if p.requires_grad),
            "data": self.examples.summary(),
            **self.task.facts,
            "layers": layers_of(self).document(),
            "notes": list(self.job.method.notes),
            "computed": {
                "dtype": self.recipe.dtype,
                "threads": torch.get_num_threads(),
                "length": self.recipe.length,
                "steps": self.recipe.steps,
                "device": parameters[0].device.type,
                "torch": torch.__version__,
            },
        }

    def _resume(self, trainer: Trainer) -> int:
        last = self.folder.last(self.tell)
        if last is not None:
            trainer.restore(*last)
            self.tell(f"resuming from step {last[0]} of {self.recipe.steps}")
        logged = self.folder.rewind(trainer.step)
        if logged < trainer.step:
            self.tell(f"the log is damaged: the rows of steps {logged + 1} to {trainer.step} are lost")
        return trainer.step

    def _steps(self, trainer: Trainer, progress: Progress, stopping: Callable[[], bool]) -> None:
        every, steps = self.job.save_every, self.recipe.steps
        while trainer.step < steps:
            with self._naming_last_good():
                row = trainer.advance()
            self.folder.log({**row, **self.measures.entry(trainer.step)})
            progress(trainer.step, steps, f"loss {row['loss']:.3f}")
            stop = stopping()
            if stop or (every and trainer.step % every == 0 and trainer.step < steps):
                with self._naming_last_good():
                    trainer.require_finite()
                self.folder.save(trainer.step, self._files(), trainer.state())
            if stop:
                raise KeyboardInterrupt

    def _naming_last_good(self) -> AbstractContextManager[None]:
        from subspace.training.run_checks import naming_last_good

        return naming_last_good(self.folder.last_good)

    def _end(self, trainer: Trainer, progress: Progress, stopping: Callable[[], bool]) -> list[Path]:
        """Measure, write what was trained, and remove the optimiser's states."""
        from subspace.training.card import card_of
        from subspace.training.merged_update import merged_update, warn_of_loss
        from subspace.training.run_checks import never_reached, require_finite

        progress(trainer.step, self.recipe.steps, "measuring on held-out data")
        with self._naming_last_good():
            trainer.require_finite()
        after = self.measures.at(trainer.step)
        require_finite(
            after,
            what=f"Training diverged by step {trainer.step}",
            cure=f"lower `lr` (now {self.recipe.lr:g}), or give `dtype` float32; {self.folder.last_good()}",
        )
        held_out = {**self.folder.record["held_out"], "after": after}
        files, merged = self._files(), merged_update(self.model)
        warn_of_loss(merged, self.tell)
        card = card_of(self.folder.path, {**self.folder.record, "held_out": held_out}, self.job.method)
        paths = self.folder.write(
            {**files, **card},
            written=sorted(files),
            sha256={name: sha256(content).hexdigest() for name, content in files.items()},
            never_reached=never_reached(trainer, self.targets, self.tell),
            held_out=held_out,
            **({} if merged is None else {"merged": merged}),
            step=trainer.step,
            done=True,
            finished=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )
        with suppress(OSError):
            self.folder.remove_states()
        if self.job.accounts:
            self._account(progress, stopping)
        if stopping():  # while it was measured and written, when nothing is asked
            raise KeyboardInterrupt
        return paths

    def _account(self, progress: Progress, stopping: Callable[[], bool]) -> None:
        """Measure what it cost. The run is done and written, so what cannot be measured is a note and no error."""
        found = costs(self.model, self.task, self.recipe, progress, stopping, self.tell)
        if found is not None:
            self.folder.write({}, accounts=found)

    def _files(self, *, start: bool = False) -> dict[str, bytes]:
        from subspace.training.export import files_of

        base = self.base
        return files_of(self.model, base=base.name, task=base.task, format=self.job.format, start=start)
