"""Some tensors of a file under other names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from subspace.checkpoints.tensor_file import StoredMatrix, TensorFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["TensorView"]


class TensorView(TensorFile):
    """Tensors of another file under names of their own; nothing is read or copied.

    Parameters
    ----------
    tensors : TensorFile
        The file.
    keys : mapping of str to str
        New name -> name in the file; tensors that are not in it are not in the view.

    Examples
    --------
    >>> import numpy as np
    >>> from subspace.checkpoints import from_memory
    >>> list(TensorView(from_memory({"module.q": np.eye(2), "x": np.eye(3)}), {"q": "module.q"}).layout)
    ['q']
    """

    def __init__(self, tensors: TensorFile, keys: Mapping[str, str]) -> None:
        layout = {new: tensors.layout[old] for new, old in keys.items()}
        super().__init__(tensors.path, layout=layout, metadata=tensors.metadata, skipped=tensors.skipped)
        self.container = tensors.container
        self.settings = tensors.settings
        self._tensors = tensors
        self._keys = dict(keys)

    def raw(self, key: str) -> NDArray[Any]:  # noqa: D102
        self.info(key)
        return self._tensors.raw(self._keys[key])

    def stored(self, key: str, shape: tuple[int, int] | None = None) -> StoredMatrix:  # noqa: D102
        self.info(key)
        return self._tensors.stored(self._keys[key], shape)

    def sha256(self) -> str:
        """SHA-256 of the whole file."""
        return self._tensors.sha256()

    def release(self) -> None:  # noqa: D102
        self._tensors.release()
