"""Searches compared by time: under a clock that only the scorer moves."""

from __future__ import annotations

import shutil

import pytest

from nann.bundle import Bundle
from nann.search_params import SearchParams
from nann.training.scorers import OnnxScorer
from nann.training.search.timed_search import SearchTimer, finalists
from nann.training.search.tune import tune_bundle
from nann.training.search.tuning_trials import Aim, SearchTuning, Trial, cheapest, merged


class ClockedScorer:
    """A call takes so many ns, and each candidate."""

    def __init__(self, scorer, call_ns, item_ns):
        self.scorer, self.call_ns, self.item_ns, self.now_ns = scorer, call_ns, item_ns, 0

    def score(self, user_states, candidates):
        assert len(user_states) == 1, "one user at a time"
        self.now_ns += self.call_ns + self.item_ns * int((candidates >= 0).sum())
        return self.scorer.score(user_states, candidates)


def timer(call_ns, item_ns):
    def of_bundle(bundle):
        scorer = ClockedScorer(OnnxScorer.of_bundle(bundle, 1), call_ns, item_ns)
        return SearchTimer(scorer, "clocked", lambda: scorer.now_ns)

    return of_bundle


def trial(items_scored, ms=None, *, rounds=2, coverage=1.0, every=False):
    params = SearchParams(10, (10 if every else items_scored,), (0 if every else rounds,), every_item=every)
    return Trial(params, coverage, None, 0.0, items_scored, items_scored / 1000, ms)


@pytest.fixture
def bundle(exported_bundle, tmp_path):
    """A copy that the test may change."""
    return Bundle.open(shutil.copytree(exported_bundle, tmp_path / "bundle"))


@pytest.mark.heavy
def test_all_items_are_scored_where_calls_are_dear_and_not_where_items_are(data, bundle):
    report = tune_bundle(bundle, data, Aim(0.9), top_k=10, timer=timer(1_000_000, 100))
    assert report.params == SearchParams(10, (10,), (0,), every_item=True)
    tuned = Bundle.open(bundle.path)
    assert tuned.search_params == report.params
    record = tuned.notes["tuning"]["timed"]
    assert record["engine"] == "clocked"
    assert record["searches"][0]["entry"] == "all"
    assert {one["entry"] for one in record["searches"]} >= {"all", "seeds"}, "layers only if about as cheap"
    times = [one["ms"] for one in record["searches"]]
    assert times == sorted(times)
    assert times[0] == pytest.approx(1 + 300 * 100e-6)
    assert all(one["coverage"] >= 0.9 for one in record["searches"])

    report = tune_bundle(tuned, data, Aim(0.9), top_k=10, timer=timer(0, 1000))
    assert not report.params.every_item
    (slow,) = (one for one in report.timed if one.params.every_item)
    (picked,) = (one for one in report.timed if one.params == report.params)
    assert slow.ms == pytest.approx(0.3)
    assert picked.ms == pytest.approx(picked.items_scored / 1000)
    assert picked.ms <= 1.05 * min(one.ms for one in report.timed)
    assert set(Bundle.open(bundle.path).search_by_entry) == {"layers", "seeds"}, "to score all needs no entry"


@pytest.mark.heavy
def test_a_search_with_fewer_rounds_wins_where_calls_are_dear(data, bundle):
    report = tune_bundle(bundle, data, Aim(0.9), top_k=10, entry="seeds", max_share=1.0, timer=timer(1_000_000, 1))
    counted = tune_bundle(bundle, data, Aim(0.9), top_k=10, entry="seeds", max_share=1.0)
    assert report.params.rounds <= counted.params.rounds
    assert report.params.rounds[0] == min(one.params.rounds[0] for one in report.timed)
    assert counted.timed == ()
    assert "timed" not in counted.record


def test_of_those_as_fast_the_fewest_evaluations_count():
    fastest, close, slow = trial(500, 1.0), trial(300, 1.04), trial(100, 1.2)
    assert cheapest([fastest, close, slow]) is close
    assert cheapest([fastest, slow]) is fastest
    assert cheapest([]) is None
    tunings = [SearchTuning(Aim(0.9), one, (one,), 1) for one in (fastest, slow)]
    assert merged(tunings).best is fastest


def test_without_times_all_items_at_once_count_less():
    every = trial(300, every=True)
    assert cheapest([every, trial(201)]) is every
    assert cheapest([every, walk := trial(199)]) is walk
    assert "ms" not in every.summary()
    assert trial(300, 0.5).summary()["ms"] == 0.5


def test_finalists_are_the_cheapest_of_each_number_of_rounds():
    best, fewer = trial(100, rounds=3), trial(110, rounds=2)
    others = (trial(90, coverage=0.5, rounds=1), trial(115, rounds=2), trial(126, rounds=1), trial(105, rounds=3))
    assert finalists(SearchTuning(Aim(0.9), best, (best, fewer, *others), 1)) == [best, fewer]
    more = tuple(trial(101 + rounds, rounds=rounds) for rounds in (4, 5, 6))
    assert finalists(SearchTuning(Aim(0.9), best, (*more, best), 1)) == [best, *more[:2]]
    assert finalists(SearchTuning(Aim(0.9), None, others[:1], 1)) == []
