"""Retrieval without a deep model: each baseline against a plain version of it, and what all of them promise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nann.errors import ConfigError
from nann.training.baselines import baseline, item_knn
from nann.training.baselines.als import Als
from nann.training.baselines.baseline import history_matrix, known_interactions, rank_by_scores
from nann.training.baselines.by_frequency import CLASSES, count_targets, recall_by_frequency
from nann.training.baselines.compare import BASELINES, LABELS, Comparison, best_baseline
from nann.training.baselines.item_knn import ItemKnn
from nann.training.baselines.plain import OwnItems, Popular

NAMES = [pytest.param(name, marks=pytest.mark.heavy if name == "als" else ()) for name in BASELINES]


@pytest.fixture(scope="module")
def queries(data):
    """Test users; the first has no history."""
    found = data.queries("test", 8)
    behaviors = found.behaviors.copy()
    behaviors[0] = -1
    return replace(found, behaviors=behaviors)


def test_popular_items_are_the_same_for_all():
    popular = Popular.of(np.array([3, 9, 0, 9, 5]))
    np.testing.assert_array_equal(popular.rank(np.empty((2, 1), np.int32), 3), [[1, 3, 4], [1, 3, 4]])
    np.testing.assert_array_equal(popular.positions, [3, 0, 4, 1, 2])


def test_own_most_frequent_items_filled_up_with_popular_ones():
    own = OwnItems(Popular.of(np.array([3, 9, 0, 9, 5, 1])))
    behaviors = np.array([[-1, 2, 5, 2, 5, 5, 0], [-1, -1, -1, -1, -1, -1, -1], [0, 1, 2, 3, 4, 5, 4]], np.int32)
    # 5 three times, 2 twice, 0 once; then the most popular. Equally frequent ones by popularity.
    np.testing.assert_array_equal(own.rank(behaviors, 5), [[5, 2, 0, 1, 3], [1, 3, 4, 0, 5], [4, 1, 3, 0, 5]])
    np.testing.assert_array_equal(own.rank(behaviors[:1], 2), [[5, 2]])
    # More asked for than there are items.
    np.testing.assert_array_equal(own.rank(behaviors[:1], 8), [[5, 2, 0, 1, 3, 4]])


def dense_similarities(data, neighbors):
    """Of all items to all, `[N, N]`, in float32 as the sparse version computes them."""
    met = (known_interactions(data).toarray() > 0).astype(np.float32)
    together, counts = met.T @ met, met.sum(axis=0)
    similar = (together / (np.sqrt(np.outer(counts, counts)) + np.float32(5))).astype(np.float32)
    for row in similar:
        row[np.lexsort((np.arange(len(row)), -row))[neighbors:]] = 0
    return similar


@pytest.mark.parametrize("neighbors", [1000, 7])
@pytest.mark.parametrize("pairs", [1 << 24, 50])
def test_item_knn_is_the_dense_computation(data, queries, monkeypatch, neighbors, pairs):
    monkeypatch.setattr(item_knn, "_NEIGHBORS", neighbors)
    monkeypatch.setattr(item_knn, "_BLOCK_PAIRS", pairs)
    knn = ItemKnn.fit(data)
    similar = dense_similarities(data, neighbors)
    some = np.array([0, 5, 6, 299], np.int32)
    np.testing.assert_allclose(knn.similarities(some).toarray(), similar[some], rtol=1e-6)
    weights = np.zeros((len(queries.users), data.item_count))
    for user, row in enumerate(queries.behaviors):
        for age, item in enumerate(row[::-1]):
            if item >= 0:
                weights[user, item] += 0.8**age
    scores = weights @ similar.astype(np.float64)
    popular = Popular.fit(data).positions
    found = knn.rank(queries.behaviors, 25)
    for user in range(len(found)):
        expected = np.lexsort((popular, -scores[user]))[:25]
        # Sums of the same terms in another order differ in their last bits.
        np.testing.assert_allclose(scores[user][found[user]], scores[user][expected], rtol=1e-5)
        unscored = scores[user][expected] == 0
        np.testing.assert_array_equal(found[user][unscored], expected[unscored])


@pytest.mark.heavy
def test_als_lists_what_implicit_recommends(data, queries):
    als = Als.fit(data)
    histories = history_matrix(queries.behaviors, data.item_count)
    users = np.arange(len(queries.users))
    expected, scores = als.model.recommend(
        users, histories, N=20, recalculate_user=True, filter_already_liked_items=False
    )
    found = als.rank(queries.behaviors, 20)
    np.testing.assert_array_equal(found[0], Popular.fit(data).order[:20])
    np.testing.assert_array_equal(found[1:], expected[1:])
    factors = als.model.recalculate_user(users, histories)
    np.testing.assert_allclose(
        np.einsum("uf,ukf->uk", factors, als.model.item_factors[found])[1:], scores[1:], atol=1e-5
    )
    assert (als.model.factors, als.model.alpha, als.model.regularization, als.model.iterations) == (128, 20, 0.05, 15)


@pytest.mark.parametrize("name", NAMES)
def test_each_baseline_lists_distinct_items_for_every_user(data, queries, name):
    fitted = BASELINES[name].fit(data)
    found = fitted.rank(queries.behaviors, 12)
    assert (found.dtype, found.shape) == (np.int32, (len(queries.users), 12))
    np.testing.assert_array_equal(found[0], Popular.fit(data).order[:12])
    np.testing.assert_array_equal(BASELINES[name].fit(data).rank(queries.behaviors, 12), found)
    everything = fitted.rank(queries.behaviors, 10_000)
    np.testing.assert_array_equal(everything[:, :12], found)
    np.testing.assert_array_equal(np.sort(everything, axis=1), np.tile(np.arange(data.item_count), (len(found), 1)))


@pytest.mark.parametrize("name", NAMES)
def test_excluded_items_make_room_for_others(data, queries, name):
    fitted = BASELINES[name].fit(data)
    everything = fitted.rank(queries.behaviors, data.item_count)
    left_out = [np.setdiff1d(row[:9:2], queries.targets_of(query)) for query, row in enumerate(everything)]
    indptr = np.cumsum([0, *map(len, left_out)])
    excluding = replace(queries, excluded_indptr=indptr, excluded_items=np.concatenate(left_out))
    hits = []
    for query, row in enumerate(everything):
        kept = [item for item in row if item not in left_out[query]][:20]
        hits.append(np.isin(queries.targets_of(query), kept).mean())
    assert Comparison(data, excluding, (20,)).baseline(name)["recall_20"] == pytest.approx(np.mean(hits))


def test_baselines_learn_from_the_rows_that_the_model_trains_on(data):
    known = known_interactions(data)
    for user in range(data.user_count):
        rows = slice(data.user_first[user], data.user_train_end[user])
        counts = np.bincount(data.behavior_items[rows], minlength=data.item_count)
        np.testing.assert_array_equal(known[user].toarray()[0], counts)
    np.testing.assert_array_equal(np.asarray(known.sum(axis=0)).ravel(), data.train_counts)


def test_a_history_weighs_what_is_late_more():
    behaviors = np.array([[-1, 3, 1, 3], [-1, -1, -1, -1]], np.int32)
    np.testing.assert_allclose(history_matrix(behaviors, 4, 0.5).toarray(), [[0, 0.5, 0, 1.25], [0, 0, 0, 0]])
    np.testing.assert_allclose(history_matrix(behaviors, 4).toarray(), [[0, 1, 0, 2], [0, 0, 0, 0]])


@pytest.mark.parametrize("scores_at_a_time", [1, 1 << 24])
def test_equal_scores_are_listed_by_smaller_item(monkeypatch, scores_at_a_time):
    monkeypatch.setattr(baseline, "_BLOCK_SCORES", scores_at_a_time)
    scores = np.array([[1, 2, 2, 0, 2], [0, 0, 0, 0, 0]], np.float32)
    found = rank_by_scores(lambda users: scores[users], 2, 5, 4)
    np.testing.assert_array_equal(found, [[1, 2, 4, 0], [0, 1, 2, 3]])


def test_lists_are_measured_by_what_users_did_next(data):
    queries = data.queries("test", 8, 2)
    first, second = (queries.targets_of(user)[0] for user in (0, 1))
    others = [item for item in range(data.item_count) if item not in (first, second)][:3]
    items = np.array([[first, *others], [*others, second]], np.int32)
    measured = Comparison(data, queries, (1, 4)).measure(lambda count: items[:, :count])
    assert measured.pop("seconds") >= 0
    assert measured.pop("by_frequency") == recall_by_frequency(
        items, queries.target_indptr, queries.target_items, data.train_counts
    )
    share = [1 / len(queries.targets_of(user)) for user in (0, 1)]
    assert share == [1, 1], "a log without baskets has one target"
    assert measured == pytest.approx(
        {"recall_1": 0.5, "recall_4": 1.0, "ndcg_1": 0.5, "ndcg_4": (1 + 1 / np.log2(5)) / 2}
    )


def test_targets_are_told_apart_by_how_often_training_saw_them():
    counts = np.array([0, 0, 1, 9, 10, 49, 50, 5000])
    assert CLASSES == ("0", "1-9", "10-49", "50+")
    indptr, targets = np.array([0, 4, 7]), np.array([0, 2, 3, 7, 3, 4, 5])
    assert count_targets(targets, counts) == [1, 3, 2, 1]
    found = np.array([[7, 3, -1, 6], [5, 0, 1, 2]])
    assert recall_by_frequency(found, indptr, targets, counts) == [0, 1 / 3, 1 / 2, 1]
    assert recall_by_frequency(found, np.array([0, 1, 2]), np.array([7, 5]), counts) == [None, None, 1, 1]


def test_the_best_baseline_is_no_deep_model():
    methods = {"popular": {"recall_5": 0.1}, "als": {"recall_5": 0.3}, "deep": {"recall_5": 0.9}}
    assert best_baseline(methods, "recall_5") == "als"
    assert set(BASELINES) <= set(LABELS)


@pytest.mark.parametrize("top_ks", [(), (20, 0)])
def test_lists_of_no_items_are_refused(data, queries, top_ks):
    with pytest.raises(ConfigError, match=r"top_k is \[.*\]; expected one or more numbers of at least 1"):
        Comparison(data, queries, top_ks)
