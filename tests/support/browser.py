"""Chromium for tests: the machine's own, or that of an npm package, and axe, which looks for barriers on a page."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.helm import ROOT
from support.npm import npm_package

_CHROMIUM, _AXE = "@sparticuz/chromium@147.0.0", "axe-core@4.14.1"
_CACHE = ROOT / "build" / "tools" / "browser"
_UNPACK = """
const {brotliDecompressSync} = require("zlib"), {readFileSync, writeFileSync} = require("fs");
for (const name of ["chromium", "al2023.tar"]) writeFileSync(name, brotliDecompressSync(readFileSync(`package/bin/${name}.br`)));
"""  # noqa: E501
_WORKS = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium() -> Iterator[Any]:
    """A running Chromium, as Playwright's `Browser`; skips the test if there is none and none can be fetched."""
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, _WORKS)), None)
    path, env = (Path(found), dict(os.environ)) if found else _fetched_chromium()
    with sync_playwright() as playwright:
        # Chromium refuses to run as root within its sandbox; it only opens pages of ours.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"], env=env)
        yield browser
        browser.close()


def axe() -> str:
    """The source of axe."""
    path = _CACHE / "axe.min.js"
    if not path.exists():
        with npm_package(_AXE, "no axe") as folder:
            _CACHE.mkdir(parents=True, exist_ok=True)
            shutil.move(folder / "package/axe.min.js", path)
    return path.read_text(encoding="utf-8")


def _fetched_chromium() -> tuple[Path, dict[str, str]]:
    path, libraries = _CACHE / "chromium", _CACHE / "lib"
    if not path.exists():
        with npm_package(_CHROMIUM, "no chromium") as folder:
            _CACHE.mkdir(parents=True, exist_ok=True)
            subprocess.run(["node", "-e", _UNPACK], cwd=folder, check=True, timeout=120)
            with tarfile.open(folder / "al2023.tar") as archive:
                archive.extractall(_CACHE, filter="data")
            (folder / "chromium").chmod(0o755)
            shutil.move(folder / "chromium", path)
    return path, {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
