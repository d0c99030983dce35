"""The walk, the exhaustive list and the cascade of one user, against the same search offline."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from support import live_bundle
from support.history_events import events_of
from support.reference import OfflineEnsemble
from support.stored_users import HISTORIES, write_store

from nann.beam_search import beam_search
from nann.bundle import Bundle
from nann.errors import RequestError
from nann.exact_search import exact_search
from nann.explore.asked import Asked, options_of
from nann.explore.comparison import cascade, exhaustive
from nann.explore.replay import Replay
from nann.histories import FileHistories
from nann.histories.file_histories import write_histories
from nann.signature import PADDING_ITEM

ITEMS = (20, 300, 1234)
QUESTIONS = [
    {},
    {"entry": "seeds"},
    {"entry": "seeds", "top_k": 40, "ef": 80, "rounds": 2, "seeds": 10, "seed_ef": 20},
    {"top_k": 7, "filter": 'department = "PRODUCE" and price < 40'},
    {"entry": "seeds", "exclude_history": True},
    {"entry": "all"},
]
LEFT_OUT = (301, 305)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    return live_bundle.make_bundle(tmp_path_factory.mktemp("live") / "bundle")


@pytest.fixture(scope="module")
def replay(bundle, tmp_path_factory) -> Replay:
    return Replay(bundle, FileHistories(write_store(tmp_path_factory.mktemp("store") / "histories")))


def asked(**parameters) -> Asked:
    return Asked(ITEMS, options=options_of(parameters))


@pytest.mark.parametrize("parameters", QUESTIONS, ids=str)
def test_the_walk_is_the_search(replay, bundle, parameters):
    person = replay.person(asked(**parameters))
    walk = replay.walk(person)
    scorer = OfflineEnsemble(bundle)
    plain = beam_search(bundle.index, scorer, person.batch, person.params)
    assert np.array_equal(walk.result.items, plain.items)
    assert sum(len(each.scored) for each in walk.rounds) == plain.items_scored[0]
    assert set(walk.items.tolist()) == {item for each in walk.rounds for item in each.scored.tolist()}
    found = plain.items[0][plain.items[0] != PADDING_ITEM]
    assert np.array_equal(walk.rounds[-1].best[: len(found)], found)
    assert walk.stages_ms["score"] > 0
    assert walk.stages_ms["total"] >= sum(walk.stages_ms[stage] for stage in ("score", "expand", "select"))


@pytest.mark.parametrize("parameters", QUESTIONS[:3], ids=str)
def test_each_round_scores_the_neighbours_of_its_frontier(replay, bundle, parameters):
    rounds = replay.walk(replay.person(asked(**parameters))).rounds
    assert len(rounds[0].frontier) == 0
    assert len(rounds) > 2
    seen = set(rounds[0].scored.tolist())
    for before, now in pairwise(rounds):
        if before.layer != now.layer:  # the layer above is forgotten but for W
            seen = set(before.best.tolist())
        links = bundle.graph.layers[now.layer]
        around = {
            item: set(links.neighbors[links.indptr[item] : links.indptr[item + 1]].tolist())
            for item in now.frontier.tolist()
        }
        assert set(now.frontier.tolist()) <= set(before.best.tolist())
        assert set(now.scored.tolist()) == set().union(*around.values()) - seen
        assert all(
            item in around[parent] for item, parent in zip(now.scored.tolist(), now.parents.tolist(), strict=True)
        )
        seen |= set(now.scored.tolist())


@pytest.mark.parametrize("parameters", [{}, {"filter": "price < 40"}, {"exclude_history": True}], ids=str)
def test_the_exhaustive_list_is_that_of_the_exact_search(replay, bundle, parameters):
    person = replay.person(asked(**parameters))
    exact = exact_search(OfflineEnsemble(bundle), person.batch, bundle.item_count, 50)
    ranked = exhaustive(replay.every_score(person), replay.shown(person))
    assert np.array_equal(ranked.items[:50], exact.items[0])
    assert len(ranked.items) == exact.items_matching[0]
    assert [ranked.rank(item) for item in exact.items[0].tolist()] == list(range(1, 51))
    assert ranked.coverage(exact.items[0][:10], 20) == 0.5
    blocked = np.flatnonzero(~replay.shown(person))
    assert all(ranked.rank(int(item)) is None for item in blocked[:5])


def test_the_cascade_orders_the_best_of_the_light_score_by_the_deep_one(replay, bundle):
    person = replay.person(asked())
    every = replay.every_score(person)
    ranked = cascade(every, replay.shown(person), 100)
    assert ranked is not None
    light = bundle.light_vectors @ person.batch.states[0]  # here the light part is the whole state
    candidates = np.argsort(-light, kind="stable")[:100]
    deep = OfflineEnsemble(bundle).score(person.batch.states, candidates[None].astype(np.int32))[0]
    assert ranked.items.tolist() == candidates[np.argsort(-deep)].tolist()
    assert exhaustive(every, replay.shown(person)).coverage(cascade(every, replay.shown(person), 20).items, 20) < 1


def test_without_a_light_score_there_is_no_cascade(replay):
    every = replay.every_score(replay.person(asked()))
    assert cascade(type(every)(every.deep, None), np.ones(len(every.deep), bool), 10) is None


def test_items_that_are_left_out_are_in_no_list(replay):
    person = replay.person(Asked(ITEMS, excluded=LEFT_OUT))
    every, shown = replay.every_score(person), replay.shown(person)
    assert np.flatnonzero(~shown).tolist() == list(LEFT_OUT)
    ranked = exhaustive(every, shown)
    assert [ranked.rank(item) for item in LEFT_OUT] == [None, None]
    assert not set(LEFT_OUT) & set(replay.walk(person).items.tolist())


def test_an_empty_list_covers_nothing(replay):
    every = replay.every_score(replay.person(asked()))
    assert exhaustive(every, np.zeros(len(every.deep), bool)).coverage(np.zeros(0, np.int32), 5) is None


def test_scores_of_the_last_users_are_kept(replay):
    first = replay.every_score(replay.person(Asked((50,))))
    assert replay.every_score(replay.person(Asked((50,), options=options_of({"top_k": 3})))) is first
    for item in range(60, 64):
        replay.every_score(replay.person(Asked((item,))))
    assert replay.every_score(replay.person(Asked((50,)))) is not first


def test_a_user_of_the_store(replay, bundle):
    person = replay.person(Asked((7,), "17"))
    own = bundle.item_ids[7]
    assert person.ids[0].tolist() == [*HISTORIES["17"], own]
    known = replay.person(Asked((), "nobody"))
    assert (known.batch.own_items == PADDING_ITEM).all()


def test_what_a_store_has_beyond_what_the_server_takes_is_left(bundle, tmp_path):
    """More behaviours than the server reads of a user, and a profile where the model knows none."""
    items = bundle.item_ids[:1200].tolist()
    write_histories(tmp_path / "h", events_of({b"17": list(enumerate(items))}, [[1]]), limit=2000)
    replay = Replay(bundle, FileHistories(tmp_path / "h"))
    assert replay.person(Asked((1234,), "17")).ids[0].tolist() == [*items[-1000:], bundle.item_ids[1234]]
    person = replay.person(Asked((), "17", options=options_of({"exclude_history": True})))
    assert np.flatnonzero(~replay.shown(person)).tolist() == list(range(200, 1200))


def test_without_a_store_a_user_can_not_be_explained(bundle):
    with pytest.raises(RequestError, match=r"history of user '17' can't be read here; .* --repository"):
        Replay(bundle, None).person(Asked((), "17"))
