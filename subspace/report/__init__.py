"""One self-contained page of a study: no script, no font, no picture from elsewhere.

Importing this package does not import jinja2.
"""

from subspace.report.page import page, write_page

__all__ = ["page", "write_page"]


def __dir__() -> list[str]:
    return list(__all__)
