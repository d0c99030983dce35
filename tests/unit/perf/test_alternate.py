from __future__ import annotations

import time

from nann.perf.alternate import alternate


def test_alternatives_take_turns_after_a_run_each_before_the_clock() -> None:
    calls: list[str] = []
    times = alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3)
    assert calls == ["a", "b"] * 4
    assert times.keys() == {"a", "b"}


def test_the_time_is_the_median_in_ms() -> None:
    pauses = iter([0.5, 0.01, 0.01, 0.5])  # the first is not counted, the last is an outlier
    times = alternate({"pause": lambda: time.sleep(next(pauses))}, repeats=3)
    assert 9 < times["pause"] < 400
