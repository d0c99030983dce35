"""Test files have names of their own: pytest imports them by name, and refuses the second of two."""

from collections import Counter
from pathlib import Path

TESTS = Path(__file__).resolve().parents[2]


def test_no_two_test_files_have_one_name():
    counts = Counter(path.name for path in TESTS.rglob("test_*.py"))
    assert {name for name, count in counts.items() if count > 1} == set()
