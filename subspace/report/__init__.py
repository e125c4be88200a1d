"""A study as one self-contained page: no script, no font and no picture from elsewhere.

Importing this package does not import jinja2.
"""

from subspace.report.page import page, page_content, write_page

__all__ = ["page", "page_content", "write_page"]


def __dir__() -> list[str]:
    return list(__all__)
