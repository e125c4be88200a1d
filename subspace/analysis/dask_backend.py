"""joblib's Dask back end, so that a task that Dask gives up ends the call: joblib 1.6 waits for it for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from joblib._dask import DaskDistributedBackend

__all__ = ["AnsweringDask"]


class AnsweringDask(DaskDistributedBackend):  # type: ignore[misc]
    """joblib's own back end, which hands over errors of Dask itself too, such as a worker that is lost too often."""

    def submit(self, func: Any, callback: Callable[[Any], None] | None = None) -> Any:
        """Submit a task; the callback hears of an error of Dask as of a result."""
        future = super().submit(func, callback)

        def answered(done: Any) -> None:
            error = done.exception()
            if error is not None and callback is not None:
                callback(error)

        future.add_done_callback(answered)
        return future

    def retrieve_result_callback(self, out: Any) -> Any:
        """Return the result of a task, or raise its error."""
        if isinstance(out, BaseException):
            raise out
        return super().retrieve_result_callback(out)
