"""Each benchmark's tables and plots against the numbers in its result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from matplotlib.figure import Figure

from nann.perf.benchmark import Benchmark
from nann.perf.benchmarks import (
    before,
    by_user,
    cascade,
    gate,
    instances,
    lockstep,
    marking,
    prepare,
    refresh,
    retrieval,
    served,
    start,
)
from nann.perf.benchmarks.scorer import CANDIDATE_COUNTS
from nann.training.reports.text import MISSING

from .reports import curve, drawn, level, tables

Tables = list[list[dict[str, str]]]
Figures = dict[str, Figure]


def check_benchmark(benchmark: Benchmark, result: Any, folder: Path) -> None:
    """Compares every cell and mark that shows a number with that number."""
    found = tables(benchmark.markdown(result))
    figures = {name: drawn(plot, result, folder / name) for name, plot in benchmark.plots.items()}
    _CHECKS[benchmark.name](result, found, figures)


def percents(point: dict[str, float]) -> list[str]:
    """Coverage and recall as cells."""
    return [f"{100 * point[key]:.2f}%" for key in ("coverage", "recall")]


def column(rows: list[dict[str, str]], name: str) -> list[str]:
    """One column of a table."""
    return [row[name] for row in rows]


def _scorer(result: Any, found: Tables, figures: Figures) -> None:
    forms, engines, *native = found
    for row, form in zip(forms, result["forms"], strict=True):
        assert list(row.values()) == [
            str(form["users"]),
            f"{form['candidates']:,}",
            *(f"{form[key]:.2f}" for key in ("served_ms", "naive_over_served", "shipped_over_served")),
        ]
    for row, engine in zip(engines, result["engines"], strict=True):
        assert row["engine"] == engine["engine"]
        times = {f"{count:,}": f"{count}_ms_per_1000" for count in CANDIDATE_COUNTS} | {"walk": "walk_ms_per_1000"}
        assert [row[header] for header in times] == [f"{engine[key]:.3f}" for key in times.values()]
    for kept, one in zip(*native, result["native"], strict=True):
        shares = (one["agreement"], one["coverage"]["served"], one["coverage"]["native"])
        assert list(kept.values()) == [one["corpus"], *(f"{100 * share:.2f}%" for share in shares)]
    (axes,) = figures["perf_scorer.png"].axes
    for users in {form["users"] for form in result["forms"]}:
        assert curve(axes, f"users per call: {users}") == [
            (form["candidates"], form["naive_over_served"]) for form in result["forms"] if form["users"] == users
        ]
    assert axes.get_ylabel() == "naive export / served scorer"


def _marking(result: Any, found: Tables, figures: Figures) -> None:
    (rows,) = found
    assert column(rows, "marks") == list(marking.LABELS.values())
    for name, times, count in (
        ("marking", result["replayed"]["ms"], result["users"]),
        ("marking, cold", result["replayed"]["cold_ms"], result["users"]),
        ("planted", result["paper"]["ms"], result["paper_expansions"]),
        ("search", result["search"]["ms"], result["users"]),
    ):
        expected = [f"{times[key] / count:.2f} ({times[key] / times['native']:.1f})" for key in marking.LABELS]
        assert column(rows, name) == expected


def _lockstep(result: Any, found: Tables, figures: Figures) -> None:
    all_axes = figures["perf_lockstep_stages.png"].axes
    for rows, one, axes in zip(found, result.values(), all_axes, strict=True):
        assert column(rows, "users in a batch") == list(one["ms_per_user"])
        assert column(rows, "ms per user") == [f"{ms:.2f}" for ms in one["ms_per_user"].values()]
        for part, bars in zip(lockstep.PARTS, axes.containers, strict=True):
            stages = [one["stages_ms_per_user"][str(batch)][part] for batch in lockstep.BATCHES]
            assert column(rows, part) == [f"{ms:.2f}" for ms in stages]
            assert [bar.get_height() for bar in bars] == pytest.approx(stages)
            assert bars.get_label() == part
        assert axes.get_title() == f"{one['items']:,} items"
    assert all_axes[0].get_ylabel() == "ms per user"


def _cascade(result: Any, found: Tables, figures: Figures) -> None:
    for rows, one in zip(found, result.values(), strict=True):
        for row, at in zip(rows, one["levels"], strict=True):
            for way in cascade.WAYS:
                wanted = at[way] or {"how": "no setting"}
                shown = [row[way], row[f"{way}: evaluations"], row[f"{way}: ms"]]
                numbers = (
                    [MISSING, MISSING] if at[way] is None else [f"{wanted['evaluations']:,.0f}", f"{wanted['ms']:.2f}"]
                )
                assert shown == [wanted["how"], *numbers]
            if at["search"] and at["cascade"]:
                assert row["search / cascade"] == f"{at['search']['ms'] / at['cascade']['ms']:.2f}"


def _retrieval(result: Any, found: Tables, figures: Figures) -> None:
    for rows, one in zip(found, result.values(), strict=True):
        methods = {retrieval.LABELS[name]: method for name, method in one["methods"].items()}
        assert set(column(rows, "method")) == set(methods)
        ours = one["methods"][one["entry"]]
        for row in rows:
            method = methods[row["method"]]
            assert [row["ms per user"], row["evaluations"]] == [f"{method['ms']:.2f}", f"{method['evaluations']:,.0f}"]
            assert [row[f"coverage@{one['top_k']}"], row["recall"]] == percents(method)
            if method is not ours:
                assert row["relative to ours"] == f"{method['ms'] / ours['ms']:.1f}"


def _served(result: Any, found: Tables, figures: Figures) -> None:
    requests, parts = found
    for row, one in zip(requests, result.values(), strict=True):
        assert row["corpus and search"].startswith(f"{one['items']:,} items, {served.PLACES[one['scorer']]}")
        times = [row[f"{name} p50 ms"] for name in ("served", "scorer alone", "Triton alone")]
        assert times == [f"{one[key]:.2f}" for key in ("served_p50_ms", "plain_p50_ms", "hops_p50_ms")]
        assert row["ratio"].split(" ")[0] == f"{one['served_over_scorer_p50']:.2f}"
        assert [row["coverage@K"], row["recall@K"]] == percents(one)
    (axes,) = figures["perf_stages.png"].axes
    for row, bars, (key, words) in zip(parts, axes.containers, served.STAGES.items(), strict=True):
        name, *cells = row.values()
        assert name == bars.get_label() == words
        stages = [one["stages_ms"][key] for one in result.values()]
        assert [float(cell.split(" ")[0]) for cell in cells] == pytest.approx(stages, abs=0.006)
        assert [bar.get_width() for bar in bars] == pytest.approx([max(0.0, ms) for ms in stages])
    assert axes.get_xlabel() == "mean time of a request [ms]"


def _by_user(result: Any, found: Tables, figures: Figures) -> None:
    (rows,) = found
    for row, (name, one) in zip(rows, result["stores"].items(), strict=True):
        assert row["histories in"] == by_user.STORES[name]
        times = [row["shipped p50 ms"], row["by id p50 ms"], row["more ms"]]
        assert times == [f"{one['shipped_p50_ms']:.2f}", f"{one['by_id_p50_ms']:.2f}", f"{one['more_ms']:+.2f}"]


def _load(result: Any, found: Tables, figures: Figures) -> None:
    closed, opened = figures["perf_latency_throughput.png"].axes
    (gains,) = figures["perf_lockstep.png"].axes
    for number, (rows, one) in enumerate(zip(found, result, strict=True)):
        points = [*one["closed"], *one["open"]]
        for row, point in zip(rows, points, strict=True):
            cells = [f"{point[key]:.1f}" for key in ("qps", "p50_ms", "p90_ms", "p99_ms", "users_per_search")]
            assert list(row.values())[1:] == [*cells, f"{point['items_scored']:,.0f}", *percents(point)]
        assert [row["load"].split(" ")[0] for row in rows[: len(one["closed"])]] == [
            f"{point['value']:.0f}" for point in one["closed"]
        ]
        for axes, loop in ((closed, "closed"), (opened, "open")):
            for line, key in zip(axes.lines[2 * number :], ("p50_ms", "p99_ms"), strict=False):
                assert list(line.get_xdata()) == [point["qps"] for point in one[loop]]
                assert list(line.get_ydata()) == [point[key] for point in one[loop]]
        throughput = [point["qps"] for point in one["closed"]]
        assert list(gains.lines[number].get_ydata()) == [qps / throughput[0] for qps in throughput]
    assert closed.get_xlabel() == opened.get_xlabel() == "throughput [requests/s]"


def _instances(result: Any, found: Tables, figures: Figures) -> None:
    (rows,) = found
    base = result["servers"]["one_core"]["qps"]
    ratios = [one["qps"] / base for one in result["servers"].values()]
    for row, (name, one), ratio in zip(rows, result["servers"].items(), ratios, strict=True):
        assert row["server"] == instances.WORDS[name]
        assert row["QPS (least to most)"].split(" ")[0] == f"{one['qps']:.1f}"
        assert row["over the first"] == f"{ratio:.2f}"
        assert row["PSS MB"] == f"{sum(one['pss_mb'].values()):,.0f}"
    (axes,) = figures["perf_instances.png"].axes
    assert [bar.get_height() for bar in axes.containers[0]] == pytest.approx(ratios)
    limit = result["engine_two_processes_over_one"]
    assert level(axes, f"the scorer alone, two processes: {limit:.2f}") == limit


def _index_load(result: Any, found: Tables, figures: Figures) -> None:
    (rows,) = found
    assert column(rows, "ms") == [f"{result['ms'][name]:.0f}" for name in ("mapped", "copied", "verified")]
    assert rows[1]["ratio"] == f"{result['ms']['copied'] / result['ms']['mapped']:.1f}"


def _start(result: Any, found: Tables, figures: Figures) -> None:
    (rows,) = found
    assert [list(row.values()) for row in rows] == [
        [start.WORDS[name], f"{seconds:.2f}"] for name, seconds in result["parts_s"].items()
    ]


def _growth(result: Any, found: Tables, figures: Figures) -> None:
    (rows,) = found
    for row, point in zip(rows, result["points"], strict=True):
        assert [row["items"], row["ms per query"]] == [f"{point['items']:,}", f"{point['ms']:.2f}"]
        assert [row["evaluations"], row["entry points"]] == [
            f"{point['evaluations']:,.0f}",
            f"{point['entry_points']:,}",
        ]
        assert row["coverage@200"] == f"{100 * point['coverage']:.2f}%"
    for axes, key in zip(figures["perf_growth.png"].axes, ("ms", "evaluations"), strict=True):
        (line,) = axes.lines
        assert list(line.get_xdata()) == [point["items"] for point in result["points"]]
        assert list(line.get_ydata()) == [point[key] for point in result["points"]]


def _refresh(result: Any, found: Tables, figures: Figures) -> None:
    (rows,) = found
    assert column(rows, "the next graph") == list(refresh.WORDS.values())
    for row, name in zip(rows, refresh.WORDS, strict=True):
        one = result[name]
        assert row["seconds"] == f"{one['seconds']:.1f}"
        assert row["seconds of a core"] == f"{one['core_seconds']:.1f}"
        assert row["coverage@200"] == f"{100 * one['coverage']:.2f}%"
        assert row["of building anew"] == f"{100 * one['core_seconds'] / result['anew']['core_seconds']:.1f}%"


def _filters(result: Any, found: Tables, figures: Figures) -> None:
    alone, together = found
    for row, (name, one) in zip(alone, result["one"].items(), strict=True):
        counts = [f"{one[key]:,.0f}" for key in ("items_matching", "items_scored")]
        times = [f"{one[key]:.2f}" for key in ("p50_ms", "p99_ms")]
        assert list(row.values()) == [name, *counts, *times, f"{one['ratio']:.3f}"]
    for row, (name, one) in zip(together, result["together"].items(), strict=True):
        assert row["conditions"] == name
        assert row["QPS"] == f"{one['qps']:.1f} ({one['qps_ratio']:.2f})"
        assert row["p50 ms"] == f"{one['p50_ms']:.1f} ({one['p50_ms_ratio']:.2f})"


def _catalog(result: Any, found: Tables, figures: Figures) -> None:
    retrievable, cost = found
    for row, one in zip(retrievable, result["corpora"], strict=True):
        assert [row["items"], row["watched"]] == [f"{one['items']:,}", f"{one['watched']:,}"]
        times = [row[name] for name in ("retrievable p50 ms", "retrievable p99 ms")]
        assert times == [f"{one[key]:.1f}" for key in ("retrievable_p50_ms", "retrievable_p99_ms")]
    for row, one in zip(cost, result["corpora"], strict=True):
        assert [row["with ms"], row["ratio"]] == [f"{one['full_p50_ms']:.2f}", f"{one['full_over_empty']:.3f}"]


def _prepare(result: Any, found: Tables, figures: Figures) -> None:
    (rows,) = found
    for row, (name, one) in zip(rows, result["runs"].items(), strict=True):
        assert row["log"] == prepare.WORDS[name]
        assert row["million rows/s"] == f"{result['rows'] / one['s'] / 1e6:.2f}"
        assert row["peak memory MB"] == f"{one['peak_mb']:,.0f}"


def _gate(result: Any, found: Tables, figures: Figures) -> None:
    (rows,) = found
    assert [row["ratio"].strip("`") for row in rows] == [one.key for one in gate.GATED]
    assert column(rows, "measured") == [f"{result[one.key]:.2f}" for one in gate.GATED]
    assert rows[0]["passes"] == f"up to {1.5 * result[gate.GATED[0].key]:.2f}"


def _before(result: Any, found: Tables, figures: Figures) -> None:
    (rows,) = found
    compared = [one[form] for one in result.values() for form in before.FORMS]
    assert len(rows) == len(compared)
    for row, one in zip(rows, compared, strict=True):
        for side in ("before", "after"):
            assert row[f"p50 ms {side}"] == f"{one[side]['p50_ms']:.2f}"
            assert row[f"QPS {side}"] == f"{one[side]['qps']:.0f}"
        assert row["ratio"].split()[0] == f"{median(one['p50_ratios']):.2f}"
        assert row["throughput ratio"].split()[0] == f"{median(one['throughput_ratios']):.2f}"


_CHECKS: dict[str, Callable[[Any, Tables, Figures], None]] = {
    "scorer": _scorer,
    "marking": _marking,
    "lockstep": _lockstep,
    "retrieval": _retrieval,
    "cascade": _cascade,
    "served": _served,
    "by_user": _by_user,
    "load": _load,
    "instances": _instances,
    "before": _before,
    "filters": _filters,
    "catalog": _catalog,
    "index_load": _index_load,
    "start": _start,
    "growth": _growth,
    "prepare": _prepare,
    "refresh": _refresh,
    "gate": _gate,
}
