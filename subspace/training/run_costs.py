"""The costs of a run that is done: what cannot be measured is a note and no error."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from subspace.errors import SubspaceError
from subspace.text import shown

if TYPE_CHECKING:
    from torch import nn

    from subspace.training.recipe import Recipe
    from subspace.training.tasks import Task

__all__ = ["costs", "unmeasured"]


def costs(
    model: nn.Module,
    task: Task,
    recipe: Recipe,
    progress: Callable[[int, int, str], None],
    stopping: Callable[[], bool],
    tell: Callable[[str], None],
) -> dict[str, Any] | None:
    """Return what `account` measures, as a document; None and a note where it cannot be.

    Parameters
    ----------
    model, task, recipe : of the run
    progress : called with (done, in all, a short message)
    stopping : called between two measures; once it returns true, `KeyboardInterrupt` is raised
    tell : called with the note

    Raises
    ------
    KeyboardInterrupt : it was stopped; the run is done and written all the same
    """

    def measured(done: int, total: int) -> None:
        progress(done, total, "measuring its costs")
        if stopping():
            raise KeyboardInterrupt

    from subspace.training.accounts import account

    try:
        return account(model, task, recipe, progress=measured).document()
    except (SubspaceError, RuntimeError) as error:
        tell(unmeasured(error))
        return None


def unmeasured(error: Exception) -> str:
    """Return the note on an error because of which costs were not measured."""
    message = str(error).partition("\n")[0]
    return f"the costs of this run were not measured: {shown(message, longest=1000)}"
