"""Some tensors of a file under other names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from subspace.checkpoints.tensor_file import StoredMatrix, TensorFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from subspace.checkpoints.held_file import Stamp

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
        self.keys = dict(keys)

    @classmethod
    def joined(cls, tensors: TensorFile, views: Iterable[TensorFile]) -> TensorView:
        """The tensors of several views of one file together."""
        keys: dict[str, str] = {}
        for view in views:
            keys |= view.keys_in(tensors) if isinstance(view, TensorView) else {k: k for k in view.layout}
        return cls(tensors, keys)

    def keys_in(self, tensors: TensorFile) -> dict[str, str]:
        """Name -> name in a file, of which this is a view, or a view of a view."""
        if self._tensors is tensors or not isinstance(self._tensors, TensorView):
            return self.keys
        below = self._tensors.keys_in(tensors)
        return {new: below[old] for new, old in self.keys.items()}

    def raw(self, key: str) -> NDArray[Any]:  # noqa: D102
        self.info(key)
        return self._tensors.raw(self.keys[key])

    def stored(self, key: str, shape: tuple[int, int] | None = None) -> StoredMatrix:  # noqa: D102
        self.info(key)
        return self._tensors.stored(self.keys[key], shape)

    def sha256(self) -> str:
        """SHA-256 of the whole file."""
        return self._tensors.sha256()

    def stamps(self) -> tuple[Stamp, ...]:  # noqa: D102
        return self._tensors.stamps()

    def release(self) -> None:  # noqa: D102
        self._tensors.release()
