from __future__ import annotations

from nann.training.reports.alternate import alternate


def test_alternatives_take_turns_after_a_run_each_before_the_clock() -> None:
    calls: list[str] = []
    times = alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3)
    assert calls == ["a", "b"] * 4
    assert times.keys() == {"a", "b"}


def test_the_time_is_the_median_in_ms() -> None:
    now_ns = 0
    pauses_ms = iter([500, 10, 12, 500])  # the first is not counted, the last is an outlier

    def pause() -> None:
        nonlocal now_ns
        now_ns += next(pauses_ms) * 1_000_000

    assert alternate({"pause": pause}, repeats=3, clock=lambda: now_ns) == {"pause": 12.0}
