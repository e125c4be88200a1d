"""Tests whose oracle is younger than the oldest version that the package works with."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import pytest


def needs(package: str, least: str, why: str) -> pytest.MarkDecorator:
    """Skip where the installed oracle is older or missing; `why` says what that version brought."""
    try:
        found = version(package)
    except PackageNotFoundError:
        return pytest.mark.skip(reason=f"needs {package} {least}, which is not installed: {why}")
    return pytest.mark.skipif(
        _numbers(found) < _numbers(least), reason=f"needs {package} {least}, and {found} is installed: {why}"
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2])
