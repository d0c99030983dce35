"""The hand-written Markdown pages, cut into parts that tests can check."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/*.md"))
    if page.name != "CHANGELOG.md"  # it also names removed things
)
REPORTS = sorted(ROOT.glob("docs/results/*.md"))
"""Written by commands: only their links are checked."""
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def tracked_files() -> set[str]:
    """Paths of the repository, relative to its root; in a copy without git, all files."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0:
        return set(listed.stdout.splitlines())
    return {str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file()}


def python_blocks(page: Path) -> list[str]:
    """The page's blocks of Python, from the first to the last."""
    return [code for language, code in _FENCE.findall(page.read_text(encoding="utf-8")) if language == "python"]


def run_blocks(page: Path, blocks: list[str], names: dict[str, object]) -> None:
    """Runs blocks of Python one after the other, in one namespace; a failure names page and block."""
    for number, code in enumerate(blocks, start=1):
        exec(compile(code, f"{page.name}, block {number}", "exec"), names)


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def commands(page: Path) -> list[str]:
    """All text that may be a command line: inline code, and the lines of blocks without a language, uncommented."""
    blocks = [code for language, code in _FENCE.findall(page.read_text(encoding="utf-8")) if not language]
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return lines + [re.sub(r"\s+", " ", code) for code in re.findall(r"`([^`]+)`", prose(page))]
