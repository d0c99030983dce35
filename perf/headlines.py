"""The figures at the top of perf.json, with their meanings and goals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..training.reports.text import MISSING


@dataclass(frozen=True)
class Headline:
    """One figure: its key in perf.json (a dot between levels), its meaning and its goal in words."""

    key: str
    words: str
    goal: str


def _before_after(corpus: str, words: str, **p50_goals: str) -> Iterator[Headline]:
    """This installation against another one, in each of its forms."""
    for form, goal in p50_goals.items():
        what = f"{words}, {'scorer by BLS' if form == 'bls' else 'one process'}: this installation / --before"
        yield Headline(f"served_{corpus}_p50_ratio.{form}", f"served p50 on {what}", goal)
        yield Headline(
            f"served_{corpus}_throughput_ratio.{form}", f"throughput of 16 clients on {what}", "at least 1.5"
        )


_WHERE_SLOW = "at most 1.3, where onnxruntime scores"
"""Natively the scorer takes less than half of that time, and what is around it weighs the more."""
HEADLINES = (
    Headline("marking.native_over_numpy", "marking visited items: NumPy set operations / native bitmap", "at least 10"),
    Headline("marking.native_over_python", "marking visited items: Python sets / native bitmap", "at least 50"),
    Headline(
        "served_over_scorer_p50",
        "served p50 / the same candidates in plain calls of the scorer, one thread each",
        _WHERE_SLOW,
    ),
    *(
        Headline(
            f"retrieval_over_cascade.{corpus}",
            f"time of the search / of hnswlib and re-ranking, where both cover 95% or more, {words}",
            "at most 1.0",
        )
        for corpus, words in (("real", "real corpus"), ("table1", "Table 1's corpus"))
    ),
    Headline("served_over_scorer_p50_in_process", "the same, scorer in the process of the search", _WHERE_SLOW),
    *_before_after("real", "the real corpus", bls="at most 0.75", fastest="at most 0.45"),
    *_before_after("table1", "Table 1's corpus", bls="at most 0.65", fastest="at most 0.5"),
    Headline(
        "by_id_more_ms.redis", "served p50 by user id from Redis, above the same with its history [ms]", "at most 1"
    ),
    Headline("scorer_over_naive", "naive export in onnxruntime / the scorer as served", "at least 2.5"),
    Headline(
        "cpu_bf16_over_fp32",
        "the paper's network natively, in bfloat16 / in onnxruntime, 17,000 candidates, one thread",
        "at most 0.5",
    ),
    Headline("native_kept.table1", "exact top 200 that the native form keeps [%]", "at least 99"),
    Headline("native_points_lost.table1", "coverage that a search loses by it (points)", "at most 0.3"),
    Headline("extra_instance_pss_mb", "memory of a further instance, PSS [MB]", "at most 100"),
    Headline("cost_10m_over_100k", "cost of a search at 10 million items / at 100 thousand", "at most 2"),
    Headline("two_instances_over_one", "throughput of two instances by BLS, two cores / one, one core", "at least 1.7"),
    Headline("two_processes_over_one", "the same with --steps one, the default without a GPU", "at least 1.7"),
    Headline("exclude_history_over_none", "served latency with exclude_history / without", "at most 1.02"),
    Headline("filter_each_over_none", "served p50 of 8 clients with a filter each / without", "at most 1.5"),
    Headline("full_delta_over_empty", "served p50 with as many added items as may be / without", "at most 1.15"),
    Headline(
        "insert_to_retrievable_p99_ms",
        "from an upsert to an answer with the item, under load, p99 [ms]",
        "at most 1,000",
    ),
    Headline("deleted_items_returned", "deleted items in answers to later searches", "0"),
    Headline(
        "refresh_over_anew",
        "`nann refresh` with 1% new items in a million / the graph built anew, core time",
        "at most 0.5",
    ),
    Headline("refresh_points_lost", "coverage that a refresh loses against a graph built anew (points)", "at most 0.5"),
    Headline("start_s", "from process start to ready at 1.3 million items [s]", "at most 5"),
)


def value_at(body: Mapping[str, Any], key: str) -> float | None:
    """The figure at a key; None if it is missing."""
    value: Any = body
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return None if value is None else float(value)


def measured_headlines(body: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Rows of a table: every figure's meaning, its value in the body of perf.json, and its goal."""
    values = [(headline, value_at(body, headline.key)) for headline in HEADLINES]
    return [(one.words, MISSING if value is None else f"{value:,.2f}", one.goal) for one, value in values]
