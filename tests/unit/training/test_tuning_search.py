"""The search for settings that reach an aim: no setting of the grid that reaches it is cheaper."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.searching import TableScorer

from nann.bundle import Bundle
from nann.metrics import coverage
from nann.search_input import SearchIndex, UserBatch
from nann.search_params import SearchParams, SeedParams
from nann.search_requests import SERVED_BOUNDS
from nann.training.config import IndexConfig
from nann.training.data.prepared import Queries
from nann.training.scorers import OnnxScorer
from nann.training.search.ground_rounds import search_by_ground_round
from nann.training.search.index import build_hnsw, graph_from_hnswlib
from nann.training.search.measured_users import MeasuredUsers, bundle_users, search_users
from nann.training.search.tuning_search import tune_search
from nann.training.search.tuning_spaces import LayersSpace, SeedsSpace
from nann.training.search.tuning_trials import Aim
from nann.training.studies.measures.seeded_entry import light_top

pytestmark = pytest.mark.heavy

MAX_EF = SERVED_BOUNDS.max_ef


@pytest.fixture
def bundle(exported_bundle):
    return Bundle.open(exported_bundle)


@pytest.fixture
def users(data, bundle):
    """The scorer, and the validation users with their exact top 10 but without own items."""
    queries, batch = bundle_users(bundle, data, "validation", None)
    scorer, batch = OnnxScorer(bundle.path / "scorer.onnx"), UserBatch(batch.states, None)
    return scorer, MeasuredUsers.of(scorer, batch, queries, bundle.item_count, 10)


def to_tune_for(scorer, batch, item_count, top_k):
    """Users whose ground truth is item 0."""
    behaviors, ids = np.zeros((len(batch), 0), np.int32), np.zeros((len(batch), 0), np.int64)
    nothing = np.zeros(len(batch) + 1, np.int64), np.zeros(0, np.int32)
    users = np.arange(len(batch), dtype=np.int32)
    truth = np.arange(len(batch) + 1), np.zeros(len(batch), np.int32)
    queries = Queries(behaviors, ids, behaviors, *truth, users, *nothing)
    return MeasuredUsers.of(scorer, batch, queries, item_count, top_k)


class VectorScorer:
    """Nearer items score higher; a user's state is a point among the vectors."""

    def __init__(self, vectors):
        self.vectors = vectors

    def score(self, user_states, candidates):
        return -((self.vectors[candidates] - user_states[:, None]) ** 2).sum(axis=2)


@pytest.mark.parametrize("ef", [(10, 20), (30, 60)])
def test_one_walk_measures_every_number_of_ground_rounds(bundle, users, ef):
    scorer, batch = users[0], users[1].batch
    found = search_by_ground_round(bundle.index, scorer, users[1], SearchParams(10, ef, (1, 6)))
    assert len(found.items) == 6
    for place in range(6):
        one = search_users(bundle.index, scorer, batch, SearchParams(10, ef, (1, place + 1)), block=3)
        np.testing.assert_array_equal(found.items[place], one.items)
        np.testing.assert_array_equal(found.items_scored[place], one.items_scored)
    costs = found.items_scored.mean(axis=1)
    assert costs[0] < costs[1]
    for rounds in range(1, 4):
        # Rounds that cost more are left out, and the walk ends early. The other rounds stay the same.
        cut = search_by_ground_round(bundle.index, scorer, users[1], SearchParams(10, ef, (1, 6)), costs[rounds - 1])
        kept = np.count_nonzero(costs <= costs[rounds - 1])
        np.testing.assert_array_equal(cut.items, found.items[:kept])
        np.testing.assert_array_equal(cut.items_scored, found.items_scored[:kept])
    assert len(search_by_ground_round(bundle.index, scorer, users[1], SearchParams(10, ef, (1, 6)), 1).items) == 0


@pytest.mark.parametrize(("wanted", "before"), [(0.6, None), (0.9, None), (0.95, None), (0.6, 0.95), (0.9, 0.95)])
def test_the_pick_reaches_the_coverage_and_no_grid_point_is_cheaper(bundle, users, wanted, before):
    scorer, measured = users
    batch, exact = measured.batch, measured.exact
    after = None if before is None else tune_search(bundle.index, scorer, measured, Aim(before))
    tuning = tune_search(bundle.index, scorer, measured, Aim(wanted), after=after)
    assert tuning.best is not None
    again = search_users(bundle.index, scorer, batch, tuning.best.params)
    assert coverage(again.items, exact) == tuning.best.coverage >= wanted
    assert again.items_scored.mean() == tuning.best.items_scored
    reached = 0
    space = LayersSpace(bundle.graph, 10, MAX_EF)
    for most in (space.params(upper, ef) for upper in space.uppers() for ef in space.ground_efs()):
        for rounds in range(1, most.rounds[-1] + 1):
            point = search_users(bundle.index, scorer, batch, replace(most, rounds=(*most.rounds[:-1], rounds)))
            if coverage(point.items, exact) >= wanted:
                reached += 1
                assert tuning.best.items_scored <= point.items_scored.mean()
    assert reached > 0
    shares = [trial.share_scored for trial in tuning.frontier]
    assert shares == sorted(shares)
    assert tuning.best in tuning.frontier


def test_three_layers_are_tuned(tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(600, 4)).astype(np.float32)
    graph = graph_from_hnswlib(build_hnsw(vectors, IndexConfig(m=3), threads=1), 2)
    assert graph.entry_layer == 2
    batch = UserBatch(rng.normal(size=(12, 4)).astype(np.float32), None)
    scorer = VectorScorer(vectors)
    measured = to_tune_for(scorer, batch, 600, 5)
    done = []
    index = SearchIndex(graph, None)
    tuning = tune_search(index, scorer, measured, Aim(0.95), progress=lambda place, total: done.append((place, total)))
    assert tuning.best is not None
    assert tuning.best.coverage >= 0.95
    assert tuning.best.share_scored < 0.6
    assert len(tuning.best.params.ef) == 3
    assert done[-1][0] == done[-1][1]
    assert len(tuning.trials) < 8 * tuning.walks  # some walks were stopped early


@pytest.mark.parametrize("entry", ["layers", "seeds"])
def test_settings_beyond_the_grid_are_tried_if_none_in_it_is_good_enough(entry):
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(500, 4)).astype(np.float32)
    graph = graph_from_hnswlib(build_hnsw(vectors, IndexConfig(m=4), threads=1), 1)
    scorer = TableScorer(rng.normal(size=(6, 500)))  # the scores know nothing of the graph
    batch = UserBatch(np.arange(6, dtype=np.float32)[:, None], np.full((6, 1), -1, np.int32))
    measured = to_tune_for(scorer, batch, 500, 5)
    index = SearchIndex(graph, rng.normal(size=(500, 1)).astype(np.float32) if entry == "seeds" else None)
    tuning = tune_search(index, scorer, measured, Aim(0.9), entry=entry)
    assert tuning.best is not None
    assert tuning.best.coverage >= 0.9
    space = LayersSpace(graph, 5, MAX_EF) if entry == "layers" else SeedsSpace(graph, 5, MAX_EF)
    assert tuning.best.params.ef[-1] > max(space.ground_efs())
    assert tune_search(index, scorer, measured, Aim(0.9), entry=entry, max_share=0.3).best is None


@pytest.mark.parametrize("wanted", [0.6, 0.95])
def test_no_grid_point_of_seeds_is_cheaper(bundle, users, wanted):
    scorer, measured = users
    batch, exact = measured.batch, measured.exact
    tuning = tune_search(bundle.index, scorer, measured, Aim(wanted), entry="seeds")
    best = tuning.best
    again = search_users(bundle.index, scorer, batch, best.params)
    assert coverage(again.items, exact) == best.coverage >= wanted
    assert again.items_scored.mean() == best.items_scored
    space = SeedsSpace(bundle.graph, 10, MAX_EF)
    reached = 0
    for upper in space.uppers():
        for ef in space.ground_efs():
            most = space.params(upper, ef)
            for rounds in range(1, most.rounds[-1] + 1):
                params = replace(most, rounds=(rounds,))
                point = search_users(bundle.index, scorer, batch, params)
                if coverage(point.items, exact) >= wanted:
                    reached += 1
                    assert best.items_scored <= 1.01 * point.items_scored.mean()
    assert reached > 0
    assert best in tuning.frontier
    assert [trial.coverage for trial in tuning.frontier] == sorted(trial.coverage for trial in tuning.frontier)


def test_seeds_alone_are_the_cascade(bundle, users):
    scorer, measured = users
    batch, exact = measured.batch, measured.exact
    params = SearchParams(10, (10,), (0,), SeedParams(40, 300))  # an ef of all items: the light walk is exhaustive
    found = search_users(bundle.index, scorer, batch, params)
    candidates = light_top(bundle.light_vectors, batch.states, 40)
    assert coverage(found.items, exact) == np.mean(
        [np.isin(*pair).mean() for pair in zip(exact, candidates, strict=True)]
    )
    assert (found.items_scored == 40).all()
    tuning = tune_search(bundle.index, scorer, measured, Aim(0.3), entry="seeds")
    assert any(trial.params.rounds == (0,) for trial in tuning.trials)
