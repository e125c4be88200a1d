"""Settings of a run that an older version began, which had fewer of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from subspace.training.job import Job
from subspace.training.methods import every

__all__ = ["completed"]


def completed(begun: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a run was begun with, by an older version, with the defaults of those that are new.

    Parameters
    ----------
    begun, now : as `Job.settings` gives them; what `now` lacks is not added

    Examples
    --------
    >>> now = Job().settings()
    >>> begun = {name: value for name, value in now.items() if name != "schedule"}
    >>> completed(begun, now) == now
    True
    """
    method = begun.get("method")
    defaults = Job().settings()
    added = {name: defaults[name] for name in now if name in defaults and name not in begun}
    if isinstance(method, Mapping) and method.get("kind") in every():
        # what is not compared is no setting
        kind = [each for each in fields(every()[method["kind"]]) if each.compare]
        added["method"] = {**{f.name: f.default for f in kind if f.default is not MISSING}, **method}
    return {**begun, **added}
