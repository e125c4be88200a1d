"""The canonical form of an update of a file, as an index keeps it too."""

from subspace.index.update_form import MOST_OF_DENSE, canonical_of

__all__ = ["MOST_OF_DENSE", "canonical_of"]
