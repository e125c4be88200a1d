"""The heavy products of base weights on another device, through torch: in float32, within 1e-6 of the norm of W."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.errors import SubspaceError, ValueRangeError
from subspace.geometry.products import products_by
from subspace.text import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.geometry.lapack import Floats
    from subspace.geometry.row_chunks import Rows

__all__ = ["TorchProducts", "products_on", "require_device"]

_BLOCK = 2**26  # numbers of W on the device at once, 256 MB, where all of it does not fit
_SHARE = 0.5  # of the free memory of the device that W may take


def require_device(device: str) -> None:
    """Check that there is such a device; "cpu" asks nothing of torch.

    Raises
    ------
    ValueRangeError : torch has no such device, or is not installed
    """
    if device == "cpu":
        return
    try:
        import torch
    except ImportError:
        raise ValueRangeError(
            f"The package torch is not installed; it is needed for the device {shown(device)!r}: pip install torch, "
            "or leave `device` out"
        ) from None
    try:
        torch.empty(1, device=torch.device(device))
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ValueRangeError(
            f"No device {shown(device)!r} that torch {shown(torch.__version__)} can use: {shown(reason, longest=200)}; "
            "leave `device` out to use the CPU"
        ) from None


@contextmanager
def products_on(device: str) -> Iterator[None]:
    """Compute the heavy products on a device meanwhile; "cpu" is NumPy."""
    if device == "cpu":
        yield
        return
    with products_by(TorchProducts(device)):
        yield


class TorchProducts:
    """The products on a device of torch, on which W stays between two passes where half of the free memory holds it.

    Parameters
    ----------
    device : str
        As torch calls it.
    most : int, optional
        Numbers of W that may stay on the device; by default what half of the free memory holds.
    """

    def __init__(self, device: str, *, most: int | None = None) -> None:
        self._device = device
        self._most = most
        self._of: Any = None
        self._blocks: list[tuple[int, int, Any]] = []

    def gram_step(
        self, rows: Rows, V: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return ``W V`` and ``V.T W.T W``."""
        import torch

        Y = np.empty((rows.shape[0], V.shape[1]), dtype=np.float32)
        with self._exact():
            narrow = torch.from_numpy(V).to(self._device)
            Z = torch.zeros((V.shape[1], V.shape[0]), device=self._device)
            for start, stop, block in self._read(rows):
                y = block @ narrow
                Y[start:stop] = y.cpu().numpy()
                Z += y.T @ block
            return Y, Z.cpu().numpy()

    def core(self, rows: Rows, U: Floats, V: Floats) -> Floats:
        """Return ``U.T W V``."""
        import torch

        core = np.zeros((U.shape[1], V.shape[1]))
        with self._exact(), np.errstate(all="ignore"):
            narrow = torch.from_numpy(V.astype(np.float32)).to(self._device)
            for start, stop, block in self._read(rows):
                core += U[start:stop].T @ (block @ narrow).cpu().numpy().astype(np.float64)
        return core

    @contextmanager
    def _exact(self) -> Iterator[None]:
        """Products in float32, whatever precision another part of the program has asked torch for."""
        import torch

        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            with torch.no_grad():
                yield
        except torch.OutOfMemoryError:
            raise SubspaceError(
                f"Out of memory on the device {shown(self._device)!r}; leave `device` out to use the CPU"
            ) from None
        finally:
            torch.set_float32_matmul_precision(before)

    def _read(self, rows: Rows) -> Iterator[tuple[int, int, Any]]:
        """Blocks of W on the device: those that are there from the last pass, or read now."""
        if self._of is not None and self._of() is rows:
            yield from self._blocks
            return
        self._of, self._blocks = None, []
        keep = rows.shape[0] * rows.shape[1] <= (self._room() if self._most is None else self._most)
        for block in _uploaded(rows, self._device):
            if keep:
                self._blocks.append(block)
            yield block
        if keep:
            self._of = weakref.ref(rows)

    def _room(self) -> int:
        """Numbers of W that may stay on the device."""
        import torch

        with contextlib.suppress(RuntimeError, ValueError, AttributeError):
            return int(_SHARE * torch.cuda.mem_get_info(self._device)[0]) // 4
        return _BLOCK


def _uploaded(rows: Rows, device: str) -> Iterator[tuple[int, int, Any]]:
    """W in few large blocks of rows: start, stop and the rows on the device."""
    import torch

    height = max(1, _BLOCK // max(1, rows.shape[1]))
    block, begin, end = None, 0, 0
    for start, stop, chunk in rows.chunks():
        if block is None or stop - begin > len(block):
            if block is not None:
                yield begin, end, block[: end - begin]
            begin = start
            block = torch.empty(
                (max(stop - start, min(height, rows.shape[0] - start)), rows.shape[1]), device=device
            )
        block[start - begin : stop - begin].copy_(torch.from_numpy(chunk))
        end = stop
    if block is not None:
        yield begin, end, block[: end - begin]
