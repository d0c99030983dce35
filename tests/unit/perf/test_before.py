"""The comparison with another installation: its medians, its quality, and what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.benchmark_checks import check_benchmark

from nann.errors import ConfigError, ServerError
from nann.perf.benchmark import BenchSettings
from nann.perf.benchmarks import before
from nann.perf.corpora.table1 import Corpus
from nann.perf.headlines import HEADLINES, value_at
from nann.perf.load.perf_analyzer import Answer, LoadPoint

NOWHERE = Corpus(Path("nowhere"), Path("nowhere"))


class Asked:
    """In place of users whose exact lists are known."""

    def quality(self, answers):
        return {"coverage": len(answers) / 10}


def block(latency_ms: float, count: int, items: tuple[int, ...] = (1, 2)) -> LoadPoint:
    answers = tuple(Answer((user,), latency_ms, items, 5) for user in range(count))
    return LoadPoint("concurrency", 1, 2.0, answers)


def measured() -> dict:
    points = {
        1: {
            "before": [block(8, 2), block(10, 2), block(12, 2)],
            "after": [block(4, 2, (1, 3)), block(2, 2), block(6, 2)],
        },
        16: {"before": [block(30, 10)] * 3, "after": [block(20, 20)] * 2 + [block(20, 10)]},
    }
    return before.summary(Asked(), points)


def test_ratios_are_medians_over_pairs_of_blocks():
    found = measured()
    assert found["p50_ratios"] == [0.5, 0.2, 0.5]
    assert found["throughput_ratios"] == [2.0, 2.0, 1.0]
    assert [found[side]["p50_ms"] for side in ("before", "after")] == [10, 4]
    assert [found[side]["qps"] for side in ("before", "after")] == [5, 10]
    assert [found[side]["coverage"] for side in ("before", "after")] == [0.6, 0.6]
    assert found["equal_items"] == 1, "the last answers to each user"


def test_equal_items_are_the_shared_ones():
    found = before.summary(
        Asked(), {clients: {"before": [block(1, 2)], "after": [block(1, 2, (2, 9))]} for clients in before.CLIENTS}
    )
    assert found["equal_items"] == 0.5


def test_the_report_and_its_headlines(tmp_path):
    one = {"items": 5000, "search": "top 2", **{form: measured() for form in before.FORMS}}
    result = {"real": one, "table1": one}
    check_benchmark(before.BENCHMARK, result, tmp_path)
    headlines = before.BENCHMARK.headline(result)
    assert headlines["served_real_p50_ratio"] == {"bls": 0.5, "fastest": 0.5}
    assert headlines["served_table1_throughput_ratio"] == {"bls": 2.0, "fastest": 2.0}
    known = [headline.key for headline in HEADLINES if value_at(headlines, headline.key) is not None]
    assert len(known) == 8, "all of them are in the report"


def test_without_another_installation_nothing_is_compared(tmp_path):
    with pytest.raises(ConfigError, match="the benchmark before needs --before, the command `nann` of another"):
        before.run(BenchSettings(NOWHERE, NOWHERE, tmp_path), print)


def test_an_installation_that_does_not_start_is_named_with_its_last_words(tmp_path):
    command = [sys.executable, "-c", "raise SystemExit('no bundle')"]
    with pytest.raises(ServerError, match=r"serve --json .* did not start: no bundle"):  # noqa: SIM117
        with before._serving(command, tmp_path / "bundle", tmp_path / "server"):
            pass
