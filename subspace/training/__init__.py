"""Makes adapters and hands them on as files, in the layouts that others read."""

from subspace.training.linear import Lesson, trained
from subspace.training.save import save_base, save_peft

__all__ = ["Lesson", "save_base", "save_peft", "trained"]
