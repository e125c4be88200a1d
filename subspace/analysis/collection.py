"""Many adapters of one base, as a question is asked of them; `subspace.index.collection` holds the types."""

from subspace.index.collection import Collection, Member

__all__ = ["Collection", "Member"]
