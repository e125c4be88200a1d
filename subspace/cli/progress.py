"""Progress on work over two seconds, with the time that is left: on standard error, and only on a terminal."""

from __future__ import annotations

import sys
from threading import Lock, Timer
from types import TracebackType
from typing import Any

__all__ = ["Progress"]

_PATIENCE = 2.0
_MEMORY = 600.0  # seconds of steps that the time left is estimated from; a module of a large model can take a minute


class Progress:
    """A callback ``(done, all)`` that shows a bar once the work has taken two seconds, even before its first step.

    The bar says how many steps of how many are done, and how long the rest will take at the pace of the last ones.

    Examples
    --------
    >>> with Progress("comparing") as progress:
    ...     progress(1, 2)
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._state: tuple[int, int | None] = (0, None)
        self._timer: Timer | None = None
        self._bar: Any = None
        self._task: Any = None
        self._lock = Lock()
        self._ended = False

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            self._timer = Timer(_PATIENCE, self._show)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            self._ended = True
            if self._bar is not None:
                self._bar.stop()

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Set how many of how many steps are done, and a few words to show next to the bar."""
        self._state = done, total
        if self._bar is not None:
            words = f"{self._what}: {note}" if note else self._what
            self._bar.update(self._task, completed=done, total=total, description=words)

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        with self._lock:
            if self._ended:
                return
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            bar = Bar(*columns, console=Console(stderr=True), transient=True, speed_estimate_period=_MEMORY)
            done, total = self._state
            self._task = bar.add_task(self._what, completed=done, total=total)
            bar.start()
            self._bar = bar
