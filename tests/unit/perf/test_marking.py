from __future__ import annotations

import numpy as np
import pytest
from support.written import tables

from nann.beam_search import beam_search
from nann.kernels import NATIVE, Kernels
from nann.perf.benchmarks.marking import (
    BENCHMARK,
    LABELS,
    NativeMarks,
    NumpyMarks,
    PythonMarks,
    RecordedScorer,
    paper_setting,
    record,
    time_marking,
    time_searches,
)
from nann.perf.corpora.offline import OfflineUsers
from nann.search_params import SearchParams

PARAMS = SearchParams(20, (20, 40, 80), (1, 1, 3))


@pytest.mark.parametrize("marks", [NativeMarks, NumpyMarks, PythonMarks])
def test_marks_are_those_of_plain_sets(users: OfflineUsers, marks: type) -> None:
    graph = users.bundle.graph
    expansions = record(users.bundle.index, users.scorer, users.batch[:1], PARAMS)
    assert {one.layer for one in expansions} == {0, 1}
    visited: set[int] = set()
    for one, found in zip(expansions, marks(graph).replay(expansions), strict=True):
        if one.start is not None:
            visited = set(one.start[one.start != -1].tolist())
        frontier = one.frontier[one.frontier != -1]
        fresh = {int(item) for node in frontier for item in graph.layers[one.layer].neighbors_of(node)} - visited
        visited |= fresh
        assert found.dtype == np.int32
        assert sorted(found[0].tolist()) == sorted(fresh)


@pytest.mark.parametrize("marks", [NumpyMarks, PythonMarks])
def test_a_search_with_sets_gives_the_same(users: OfflineUsers, marks: type) -> None:
    graph = users.bundle.graph
    for params in (PARAMS, users.bundle.search_by_entry["seeds"]):
        answers = [
            beam_search(users.bundle.index, users.scorer, users.batch[:1], params, kernels=kernels)
            for kernels in (NATIVE, Kernels("sets", marks(graph)))
        ]
        np.testing.assert_array_equal(answers[0].items, answers[1].items)
        np.testing.assert_array_equal(answers[0].items_scored, answers[1].items_scored)


def test_a_recorded_scorer_says_what_the_real_one_said(users: OfflineUsers) -> None:
    index, scorer = users.bundle.index, RecordedScorer(users.scorer, users.bundle.item_count)
    before = beam_search(index, scorer, users.batch[:1], PARAMS)
    scorer.stop_recording()
    after = beam_search(index, scorer, users.batch[1:2], PARAMS)  # the scores of the first user
    np.testing.assert_array_equal(before.items, after.items)
    np.testing.assert_array_equal(before.scores, after.scores)


def test_sets_that_mark_other_items_are_not_timed(users: OfflineUsers, monkeypatch: pytest.MonkeyPatch) -> None:
    expansions = record(users.bundle.index, users.scorer, users.batch[:1], PARAMS)
    monkeypatch.setattr(PythonMarks, "replay", lambda self, some: [one.frontier for one in some])
    with pytest.raises(AssertionError, match="python marks other items than the bitmap"):
        time_marking(users.bundle.graph, expansions, 1)


def test_the_report_has_all_ratios(users: OfflineUsers) -> None:
    graph, expansions = paper_setting(item_count=2000, degree=8, frontier=50, count=2)
    paper = time_marking(graph, expansions, 1)
    assert paper["neighbors"] == sum(one.frontier.size for one in expansions) * 8
    assert 0 < paper["fresh"] < paper["neighbors"]
    scorer = RecordedScorer(users.scorer, users.bundle.item_count)
    recorded = record(users.bundle.index, scorer, users.batch[:1], PARAMS)
    result = {
        "paper": {**paper, "items": 2000, "degree": 8, "frontier": 50},
        "paper_expansions": 2,
        "items": 3000,
        "degree": 9.5,
        "users": 1,
        "replayed": time_marking(users.bundle.graph, recorded, 1),
        "search": {"ms": time_searches(users.bundle.index, [scorer], users.batch[:1], PARAMS, 1)},
    }
    ms = result["replayed"]["ms"]
    assert BENCHMARK.headline(result)["marking"]["native_over_python"] == ms["python"] / ms["native"]
    (table,) = tables(BENCHMARK.markdown(result))
    assert [row[0] for row in table] == ["marks", *LABELS.values()]
    assert [row[1] for row in table[1:]] == [f"{ms[name]:.2f} ({ms[name] / ms['native']:.1f})" for name in LABELS]
