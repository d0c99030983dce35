"""Conditions on what may be returned, over both protocols, against scoring every item that may be shown."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support.live_bundle import ITEMS, SEQUENCE_LENGTH, item_ids
from support.reference import OfflineEnsemble

from nann.clients import RetrievalClient
from nann.perf.servers.triton_counters import read_metrics
from nann.signature import STATUS_COMPLETE

pytestmark = pytest.mark.triton

ALL = item_ids()
UNKNOWN = [5, 1001, -7]
TOP_K = 20


@pytest.fixture(scope="module")
def offline(bundle):
    return OfflineEnsemble(bundle)


def history(seed: int, length: int = 9) -> list[int]:
    # Without the items that make the scorer fail on purpose.
    return ALL[np.random.default_rng(seed).integers(10, ITEMS, length)].tolist()


def best(offline, ids, count: int) -> list[int]:
    """What the user would get without conditions."""
    return offline.exhaustive(ids, ALL.tolist(), count).tolist()


def assert_answer(result, row, expected, shown):
    """The items are those of the offline search, and may be shown."""
    items = result.item_ids[row]
    np.testing.assert_array_equal(items, expected)
    assert set(items.tolist()) - {-1} <= set(shown)
    assert result.items_matching[row] == len(shown)
    assert result.status[row] == STATUS_COMPLETE


def without(hidden) -> list[int]:
    return np.setdiff1d(ALL, list(hidden)).tolist()


def test_without_conditions_every_item_matches(client):
    assert client.retrieve(history(0)).items_matching.tolist() == [ITEMS]


@pytest.mark.parametrize("entry", ["layers", "seeds"])
def test_nothing_of_a_history_even_where_the_model_does_not_read_it(client, offline, bundle, entry):
    short, long = history(1), history(2, 3 * SEQUENCE_LENGTH)
    result = client.retrieve([short, [*long, *UNKNOWN]], exclude_history=True, entry=entry)
    for row, ids in enumerate((short, long)):
        expected, _, _ = offline.retrieve(ids, bundle.search_by_entry.get(entry), hidden=ids)
        assert_answer(result, row, expected, without(ids))


def test_a_deny_list_for_each_user_and_unknown_ids_are_ignored(client, offline):
    users = [history(3), history(4)]
    hidden = [best(offline, users[0], 30), best(offline, users[1], 5)]
    result = client.retrieve(users, exclude_item_ids=[hidden[0], [*UNKNOWN, *hidden[1]]])
    for row, ids in enumerate(users):
        assert_answer(result, row, offline.retrieve(ids, hidden=hidden[row])[0], without(hidden[row]))
        assert not set(result.item_ids[row]) & set(hidden[row])
    assert result.unknown_items.tolist() == [0, 0]


def test_an_allow_list_is_answered_exactly(client, offline):
    users = [history(5), history(6)]
    shown = [history(7, 60), history(8, 7)]
    result = client.retrieve(users, allow_item_ids=[[*shown[0], 5], shown[1]])
    for row, ids in enumerate(users):
        assert_answer(result, row, offline.exhaustive(ids, shown[row], TOP_K), set(shown[row]))
    one_for_all = client.retrieve(users, allow_item_ids=shown[0])
    assert_answer(one_for_all, 1, offline.exhaustive(users[1], shown[0], TOP_K), set(shown[0]))


@pytest.mark.parametrize("listed", [[], UNKNOWN, [[0, -1]]], ids=str)
def test_a_list_of_nothing_that_is_known_allows_nothing(client, listed):
    result = client.retrieve([history(9)], allow_item_ids=listed, top_k=5)
    assert result.item_ids.tolist() == [[-1] * 5]
    assert (result.items_matching.tolist(), result.items_scored.tolist()) == ([0], [0])
    assert result.status.tolist() == [STATUS_COMPLETE]


def test_all_conditions_hold_together(client, offline):
    ids = history(10, 2 * SEQUENCE_LENGTH)
    shown = [*best(offline, ids, 50), *history(11, 100), *ids]
    hidden = best(offline, ids, 10)
    result = client.retrieve(
        ids, exclude_history=True, exclude_item_ids=hidden, allow_item_ids=[*shown, *UNKNOWN], top_k=30
    )
    left = set(shown) - set(hidden) - set(ids)
    assert_answer(result, 0, offline.exhaustive(ids, left, 30), left)


def test_requests_with_and_without_conditions_share_batches(server, offline):
    """Triton puts only requests with the same inputs into a batch, so conditions must not be inputs of the search."""
    users = [history(seed, 8) for seed in range(20, 84)]
    hidden = [best(offline, ids, 3 + number) for number, ids in enumerate(users)]
    asked = [{}, {"exclude_history": True}, {"exclude_item_ids": None}, {"allow_item_ids": None}]

    def ask(client, number):
        conditions = {
            name: hidden[number] if value is None else value for name, value in asked[number % len(asked)].items()
        }
        return client.retrieve(users[number], **conditions)

    def batches() -> float:
        return read_metrics(server.metrics_url)["nv_inference_exec_count", "beam_retrieval"]

    before = batches()
    with RetrievalClient(server.grpc_url, timeout_s=30) as client, ThreadPoolExecutor(24) as pool:
        results = list(pool.map(lambda number: ask(client, number), range(len(users))))
    assert batches() - before < len(users) / 2
    for number, (ids, result) in enumerate(zip(users, results, strict=True)):
        if number % len(asked) == 3:
            assert_answer(result, 0, offline.exhaustive(ids, hidden[number], TOP_K), hidden[number])
        else:
            left_out = ((), ids, hidden[number])[number % len(asked)]
            assert_answer(result, 0, offline.retrieve(ids, hidden=left_out)[0], without(left_out))
