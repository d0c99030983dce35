"""Packages that may not be installed."""

from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec


def find_package(name: str) -> ModuleSpec:
    """Where an optional package is, without importing it. Commands answer what it raises with the extra to install.

    Raises:
        ModuleNotFoundError: as importing it would.
    """
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return spec
