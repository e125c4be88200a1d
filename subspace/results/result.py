"""What every result can do: records, a data frame, strict JSON values, a table in a notebook."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.text import shown

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Result", "cell", "plain"]

_PLAIN = frozenset({str, int, bool})  # by far the most, and as they should be


class Result:
    """Base of the frozen results: subclasses say their `records` and a `headline`."""

    def records(self) -> list[dict[str, Any]]:
        """Return one flat dictionary per row; a value that does not exist is None."""
        raise NotImplementedError

    def headline(self) -> str:
        """Return the finding in a sentence or two."""
        raise NotImplementedError

    def to_pandas(self) -> pd.DataFrame:
        """Return `records` as a data frame; needs pandas."""
        import pandas as pd

        return pd.DataFrame.from_records(self.records())

    def columns(self) -> list[str]:
        """Names of the columns that a table shows; all of the records' by default."""
        records = self.records()
        return list(records[0]) if records else []

    def _repr_html_(self) -> str:
        import html

        columns, records = self.columns(), self.records()
        head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell(record[column]))}</td>" for column in columns) + "</tr>"
            for record in records
        )
        return (
            f"<p>{html.escape(self.headline())}</p>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        )


def cell(value: Any) -> str:
    """A value as a table shows it: four significant digits, a dash for one that does not exist.

    Examples
    --------
    >>> cell(0.0104167), cell(None), cell(["a", "b"]), cell(64), cell(1e-30)
    ('0.01042', '-', 'a b', '64', '1e-30')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(cell(item) for item in value)
    return shown(value)


def plain(value: Any) -> Any:
    """A value as strict JSON has it: lists for arrays, None for what is not finite.

    Examples
    --------
    >>> plain({"phi": np.array([1.0, np.nan])})
    {'phi': [1.0, None]}
    """
    if value is None or type(value) in _PLAIN:
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
