"""Searches under conditions: what is blocked is never scored, and nobody gets fewer items than there are."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.searching import TableScorer, make_graph, random_graph, some_params

from nann import item_sets, light_walk, search_start
from nann.beam_search import beam_search
from nann.cheap_ranking import rank_by_light_score, rank_by_neighbourhood
from nann.exact_search import exact_search
from nann.kernels import NATIVE, NUMPY, Kernels
from nann.light_codes import LightCodes
from nann.search_input import SearchIndex, UnlinkedItems, UserBatch
from nann.search_params import SearchParams, SeedParams
from nann.signature import PADDING_SCORE

BOTH = pytest.mark.parametrize("kernel", [NATIVE, NUMPY], ids=lambda kernel: kernel.name)
FEW = settings(max_examples=60)


class Scorer(TableScorer):
    """Checks that no user's blocked items come; a user's state begins with its row in the table."""

    def __init__(self, table, blocked):
        super().__init__(table)
        self.blocked = blocked

    def score(self, user_states, candidates):
        for user, row in zip(user_states[:, 0].astype(int), candidates, strict=True):
            items = row[row != -1]
            assert len(np.unique(items)) == len(items)
            assert not item_sets.contains(self.blocked[user][None], items[None]).any(), "a blocked item was scored"
        return super().score(user_states, candidates)


@st.composite
def searches(draw):
    """A random graph, users of whom some are restricted, each in another way, and how they search."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    layer_count, users, width = draw(st.integers(1, 3)), draw(st.integers(1, 5)), 3
    graph = random_graph(
        rng, draw(st.integers(1, 150)), layer_count, draw(st.integers(0, 6)), draw(st.integers(0, layer_count - 1))
    )
    light = rng.integers(-3, 4, (graph.item_count, width)).astype(np.float32) if draw(st.booleans()) else None
    added = draw(unlinked_items(rng, graph.item_count, light)) if draw(st.booleans()) else None
    index = SearchIndex(graph, light, added)
    table = rng.integers(0, draw(st.sampled_from([2, 10_000])), (users, index.item_count))
    shares = [draw(st.sampled_from([0, 0, 0.1, 0.5, 0.9, 0.98, 1])) for _ in range(users)]
    taken = rng.random((users, index.item_count)) < np.array(shares)[:, None]
    if added is not None:
        taken[:, graph.item_count : added.first] = True
    blocked = np.stack([item_sets.of_items(np.flatnonzero(row).astype(np.int32), index.item_count) for row in taken])
    own = rng.integers(-1, graph.item_count, (users, 4)).astype(np.int32) if draw(st.booleans()) else None
    states = np.column_stack([np.arange(users), rng.integers(-3, 4, (users, width))]).astype(np.float32)
    params = [draw(ways(graph, light is not None)) for _ in range(users)]
    return index, Scorer(table, blocked), UserBatch(states, own, blocked), params


@st.composite
def unlinked_items(draw, rng, item_count, light):
    first, count = UnlinkedItems.first_after(item_count), draw(st.integers(1, 80))
    if light is None:
        return UnlinkedItems(first, count, None)
    codes = LightCodes.of(np.concatenate([light, np.zeros((first + count - item_count, light.shape[1]), np.float32)]))
    codes.write(first, rng.integers(-3, 4, (count, light.shape[1])).astype(np.float32))
    return UnlinkedItems(first, count, codes)


@st.composite
def ways(draw, graph, with_seeds):
    """Parameters of each entry strategy."""
    entry = draw(st.sampled_from(["layers", "all", "seeds"] if with_seeds else ["layers", "all"]))
    params = draw(some_params(graph.entry_layer + 1 if entry == "layers" else 1))
    if entry == "all":
        return replace(params, rounds=(0,), every_item=True)
    count = draw(st.integers(1, 12))
    return replace(params, seeds=SeedParams(count, count + draw(st.integers(0, 8)))) if entry == "seeds" else params


@pytest.fixture(params=["as tuned", "always scanning", "always walking"])
def walking(request, monkeypatch):
    """On graphs of this size everything would be scored; the searches must be right without that too."""
    if request.param != "as tuned":
        monkeypatch.setattr(search_start, "EXACT_WORTH", 0)
        monkeypatch.setattr(search_start, "EXACT_WORTH_BY_LAYERS", 0)
        monkeypatch.setattr(light_walk, "_SCANNED_PER_STEP", 0 if request.param == "always walking" else 1e9)


def assert_same(left, right):
    for name in ("items", "scores", "items_scored", "rounds", "items_matching"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)


@BOTH
@pytest.mark.usefixtures("walking")
class TestEverySearch:
    @FEW
    @given(case=searches())
    def test_scores_only_what_may_be_shown_and_returns_no_fewer_than_there_are(self, kernel, case):
        index, scorer, users, params = case
        found = beam_search(index, scorer, users, params, kernels=kernel)
        for row, one in enumerate(params):
            items = found.items[row][found.items[row] != -1]
            allowed = item_sets.members(item_sets.invert(users.blocked[row], index.item_count))
            assert found.items_matching[row] == len(allowed)
            assert set(items.tolist()) <= set(allowed.tolist())
            assert found.items_scored[row] >= len(items)
            if len(allowed) < index.item_count:
                assert len(items) == min(one.top_k, len(allowed))
            expected = np.lexsort((items, -scorer.table[row, items]))
            np.testing.assert_array_equal(items, items[expected])
            np.testing.assert_array_equal(found.scores[row][: len(items)], scorer.table[row, items])
            assert (found.scores[row][len(items) :] == PADDING_SCORE).all()

    @FEW
    @given(case=searches())
    def test_every_user_gets_the_same_answer_as_alone(self, kernel, case):
        index, scorer, users, params = case
        found = beam_search(index, scorer, users, params, kernels=kernel)
        for row in range(len(users)):
            alone = users[row : row + 1]
            if found.items_matching[row] == index.item_count and index.added is None:
                alone = replace(alone, blocked=None)
            plain = beam_search(index, scorer, alone, [params[row]], kernels=kernel)
            top_k = params[row].top_k
            np.testing.assert_array_equal(found.items[row, :top_k], plain.items[0])
            np.testing.assert_array_equal(found.scores[row, :top_k], plain.scores[0])
            assert (found.items_scored[row], found.rounds[row]) == (plain.items_scored[0], plain.rounds[0])

    @FEW
    @given(case=searches())
    def test_a_search_that_scores_everything_is_exact(self, kernel, case):
        index, scorer, users, params = case
        found = beam_search(index, scorer, users, params, kernels=kernel)
        top_k = max(one.top_k for one in params)
        exact = exact_search(scorer, users, index.item_count, min(top_k, index.item_count), chunk=50, kernels=kernel)
        np.testing.assert_array_equal(found.items_matching, exact.items_matching)
        for row in np.flatnonzero(found.items_scored == found.items_matching):
            if params[row].seeds is None and found.rounds[row] > 1:
                continue  # an item of the entry layer may have been scored again on the ground
            count = min(params[row].top_k, index.item_count)
            np.testing.assert_array_equal(found.items[row, :count], exact.items[row, :count])
        for row, one in enumerate(params):
            if one.every_item:
                assert found.items_scored[row] == found.items_matching[row]


@pytest.mark.usefixtures("walking")
@FEW
@given(case=searches())
def test_native_equals_numpy(case):
    index, scorer, users, params = case
    native, numpy = (beam_search(index, scorer, users, params, kernels=kernel) for kernel in (NATIVE, NUMPY))
    assert_same(native, numpy)


@pytest.mark.usefixtures("walking")
@FEW
@given(case=searches(), after=st.integers(0, 3))
def test_a_stopped_search_keeps_what_it_has(case, after):
    index, scorer, users, params = case
    calls = iter(range(100))
    found = beam_search(index, scorer, users, params, stop=lambda: np.full(len(users), next(calls) >= after))
    short = np.count_nonzero(found.items != -1, axis=1) < np.minimum(
        [one.top_k for one in params], found.items_matching
    )
    restricted = found.items_matching < index.item_count
    assert not (short & restricted & found.finished).any()
    assert (found.rounds <= after).all()


@FEW
@given(case=searches(), chunk=st.integers(1, 200))
def test_exhaustive_search_under_conditions(case, chunk):
    index, scorer, users, _ = case
    top_k, calls = min(7, index.item_count), []
    found = exact_search(
        scorer, users, index.item_count, top_k, chunk=chunk, user_block=2, progress=lambda *done: calls.append(done)
    )
    for row in range(len(users)):
        allowed = item_sets.members(item_sets.invert(users.blocked[row], index.item_count))
        best = allowed[np.lexsort((allowed, -scorer.table[row, allowed]))][:top_k]
        np.testing.assert_array_equal(found.items[row][: len(best)], best)
        assert (found.items[row][len(best) :] == -1).all()
        assert found.items_scored[row] == found.items_matching[row] == len(allowed)
    total = int(found.items_matching.sum())
    assert not calls or calls[-1] == (total, total)


@FEW
@given(case=searches())
def test_rankings_without_the_scorer(case):
    index, _, users, _ = case
    rankings = [rank_by_neighbourhood(index, users, 8)]
    if index.light_vectors is not None:
        rankings.append(rank_by_light_score(index, users, [SearchParams(8, (8,), (0,))] * len(users)))
    for items, scores in rankings:
        for row in range(len(users)):
            allowed = item_sets.members(item_sets.invert(users.blocked[row], index.item_count))
            shown = items[row][items[row] != -1]
            assert set(shown.tolist()) <= set(allowed.tolist())
            assert len(shown) == len(set(shown.tolist()))
            if len(allowed) < index.item_count:
                assert len(shown) == min(8, len(allowed))
            assert (np.diff(scores[row]) <= 0).all()


RING = make_graph([[[(item + 1) % 200, (item - 1) % 200] for item in range(200)]], [0] * 200)


class TestWhatIsBlocked:
    """A ring of 200 items, where item v has the score -v for the only user."""

    def search(self, blocked, params, own=None, **kwargs):
        blocked = item_sets.of_items(np.array(blocked, np.int32), 200)[None]
        scorer = Scorer(-np.arange(200)[None], blocked)
        return beam_search(
            SearchIndex(RING, None), scorer, UserBatch(scorer.states(), own, blocked), params, **kwargs
        ), scorer

    def test_nothing_matches(self):
        found, scorer = self.search(range(200), SearchParams(3, (3,), (2,)))
        assert (found.items.tolist(), found.items_matching.tolist()) == ([[-1, -1, -1]], [0])
        assert (found.items_scored.tolist(), found.rounds.tolist(), scorer.calls) == ([0], [0], [])

    def test_few_matches_are_all_scored_at_once(self):
        found, _ = self.search(range(150), SearchParams(3, (50,), (2,)))
        assert (found.items.tolist(), found.items_scored.tolist(), found.rounds.tolist()) == (
            [[150, 151, 152]],
            [50],
            [1],
        )

    def test_other_numbers_of_items_are_refused(self):
        users = UserBatch(np.zeros((1, 1), np.float32), None, np.zeros((1, 3), np.uint64))
        with pytest.raises(Exception, match="blocked has 3 words per user; expected 4, a bit for each of 200 items"):
            beam_search(SearchIndex(RING, None), Scorer([[0]], None), users, SearchParams(1, (1,), (0,)))
        users = UserBatch(np.zeros((1, 1), np.float32), None, np.full((1, 4), 1 << 8, np.uint64))
        with pytest.raises(Exception, match="blocked holds an item of 200 or above; expected items below 200"):
            beam_search(SearchIndex(RING, None), Scorer([[0]], None), users, SearchParams(1, (1,), (0,)))


class _Counting:
    """The native functions; notes what is asked to be counted."""

    def __init__(self):
        self.counted = []

    def __getattr__(self, name):
        return getattr(NATIVE.implementation, name)

    def count(self, sets):
        self.counted.append(sets.shape)
        return NATIVE.count(sets)


@pytest.mark.usefixtures("walking")
def test_a_search_from_seeds_counts_what_is_blocked_once():
    implementation = _Counting()
    blocked = item_sets.of_items(np.arange(10, dtype=np.int32), 200)[None]
    scorer = Scorer(-np.arange(200)[None], blocked)
    users, params = UserBatch(scorer.states(), None, blocked), SearchParams(3, (5,), (2,), SeedParams(5, 10))
    index, kernels = SearchIndex(RING, np.ones((200, 1), np.float32)), Kernels("counting", implementation)
    assert beam_search(index, scorer, users, params, kernels=kernels).items_matching.tolist() == [190]
    assert implementation.counted == [(1, 4), (1, 1)], "all words, and those from the end of the graph on"
