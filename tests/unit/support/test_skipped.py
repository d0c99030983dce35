"""A run says what it skipped, and fails in CI where that is not expected."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

EXPECTED = """
import pytest

def test_runs():
    pass

@pytest.mark.skipif(True, reason="torch sees no GPU")
def test_gpu():
    pass

"""
MISSING = """
@pytest.mark.parametrize("number", range(2))
def test_engine(number):
    pytest.importorskip("no_such_engine")
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    pytester.makeconftest("from support.skipped import pytest_sessionfinish, pytest_terminal_summary")

    def run(ci: bool, tests: str, *options: str) -> pytest.RunResult:
        monkeypatch.setenv("CI", "true" if ci else "")
        pytester.makepyfile(test_it=tests)
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", *options)

    return run


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "with workers"])
def test_in_ci_what_is_missing_is_an_error(run, options):
    pytest.importorskip("xdist")
    result = run(True, EXPECTED + MISSING, *options)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "*= skipped =*",
            "ERROR: 2 tests: could not import 'no_such_engine': No module named 'no_such_engine'",
            "    test_it.py",
            "    CI skips nothing but what tests/support/skipped.py lists: install what is missing",
            "1 tests: torch sees no GPU",
        ]
    )


def test_in_ci_what_is_expected_is_none(run):
    result = run(True, EXPECTED)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["1 tests: torch sees no GPU", "    test_it.py"])
    result.stdout.no_fnmatch_line("*ERROR*")


def test_elsewhere_it_is_only_told(run):
    result = run(False, EXPECTED + MISSING)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["2 tests: could not import 'no_such_engine': *", "1 tests: torch sees no GPU"])
