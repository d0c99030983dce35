"""The search beside hnswlib and re-ranking: each level has the cheapest setting of each way that reaches it."""

from __future__ import annotations

import json

import numpy as np
from support.written import tables

from nann.perf.benchmarks import cascade
from nann.training.reports.text import MISSING
from nann.training.studies.measures.inner_product_index import InnerProductIndex


def test_the_first_stage_finds_the_largest_inner_products(users, tmp_path):
    items = cascade.two_sided(users)
    asked = np.ascontiguousarray(users.batch.states[:, -items.shape[1] :])
    found = InnerProductIndex(items, tmp_path / "index").best(asked, 20)
    best = np.argsort(-(asked @ items.T), axis=1)[:, :20]
    assert np.mean([len(np.intersect1d(*rows)) / 20 for rows in zip(found, best, strict=True)]) > 0.95
    np.testing.assert_array_equal(InnerProductIndex(items, tmp_path / "index").best(asked, 20), found)


def test_both_ways_stand_at_each_level(users, tmp_path):
    stage = InnerProductIndex(cascade.two_sided(users))
    one = cascade.compare(users, stage, timed=2, repeats=1, say=lambda line: None)
    assert [(row["metric"], row["level"]) for row in one["levels"]] == [
        *(("coverage", level) for level in cascade.LEVELS),
        *(("recall", share) for share in cascade.RECALLS),
    ]
    for row in one["levels"]:
        for way in ("search", "cascade"):
            found = row[way]
            if found is not None and row["metric"] == "coverage":
                assert found["coverage"] >= row["level"]
            assert found is None or found["ms"] > 0
    costs = [row["search"]["evaluations"] for row in one["levels"][: len(cascade.LEVELS)] if row["search"]]
    assert costs == sorted(costs), "more coverage does not cost less"
    text = cascade.BENCHMARK.markdown(json.loads(json.dumps({"tiny": one})))
    (table,) = tables(text)
    for shown, row in zip(table[1:], one["levels"], strict=True):
        for way, cell in (("search", 3), ("cascade", 6)):
            assert shown[cell] == (MISSING if row[way] is None else f"{row[way]['ms']:.2f}")


def test_the_worst_of_the_demanding_levels_is_the_headline():
    def row(level, ours, theirs):
        way = {"how": "x", "evaluations": 1.0}
        return {
            "metric": "coverage",
            "level": level,
            "search": None if ours is None else {**way, "ms": ours},
            "cascade": None if theirs is None else {**way, "ms": theirs},
        }

    levels = [row(0.9, 9.0, 1.0), row(0.95, 1.0, 2.0), row(0.98, 3.0, 4.0), row(0.99, 5.0, None)]
    sizes = {"items": 10, "users": 2, "timed_users": 1, "top_k": 5}
    result = {"real": {**sizes, "levels": levels}, "table1": {**sizes, "levels": levels[:1]}}
    assert cascade.BENCHMARK.headline(result) == {"retrieval_over_cascade": {"real": 0.75}}
    text = cascade.BENCHMARK.markdown(result)
    assert "The cascade is faster at coverage 90%." in text
    assert "no setting" in text
