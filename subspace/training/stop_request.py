"""Ctrl-C and SIGTERM: as a question that a training run asks after each step, or as `KeyboardInterrupt` at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

__all__ = ["INTERRUPTED", "stop_requests", "terminable"]

INTERRUPTED = 130  # exit code of a process that was interrupted, as shells have it


@contextmanager
def stop_requests(announce: Callable[[], None] = lambda: None) -> Iterator[Callable[[], bool]]:
    """Give a function that tells whether Ctrl-C or SIGTERM has come; a second one raises `KeyboardInterrupt`.

    Before the function is first called, while models are loaded and in the first step, there is nothing to save: then
    the first one raises `KeyboardInterrupt` too.

    Parameters
    ----------
    announce : called when the first one comes and is left to be asked about
    """
    came: list[int] = []
    asked: list[bool] = []

    def ask(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) > 1 or not asked:
            raise KeyboardInterrupt
        announce()

    def stopping() -> bool:
        asked[:] = [True]
        return bool(came)

    with _handled(ask, signal.SIGINT, signal.SIGTERM):
        yield stopping


@contextmanager
def terminable() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C, in the main thread; the handler that was set is put back."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _handled(interrupt, signal.SIGTERM):
        yield


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None], *numbers: int) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler_before in before.items():
            with suppress(TypeError):  # one that was not set from Python
                signal.signal(number, handler_before)
