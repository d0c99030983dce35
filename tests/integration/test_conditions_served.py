"""Conditions on what may be returned, over both protocols, against scoring every item that may be shown."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support.live_bundle import ITEMS, SEQUENCE_LENGTH, attributes, item_ids
from support.own_server import own_server
from support.reference import OfflineEnsemble

from nann.clients import RetrievalClient, where
from nann.errors import RequestError
from nann.filters import NamedFilters
from nann.perf.servers.triton_counters import read_metrics
from nann.signature import STATUS_COMPLETE

pytestmark = pytest.mark.triton

ALL = item_ids()
UNKNOWN = [5, 1001, -7]
TOP_K = 20
VALUES = attributes()


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


def that(matches) -> list[int]:
    """Ids of the items for which it is true, given the attributes' values in the order of `attributes`."""
    rows = zip(*VALUES.values(), strict=True)
    return [int(item) for item, row in zip(ALL, rows, strict=True) if matches(*row)]


def within(low, price, high) -> bool:
    """Whether there is a price, and it lies there."""
    return price is not None and low <= price <= high


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("price between 20 and 20.9", lambda d, b, price, a, t: within(20, price, 20.9)),
        (
            'not department in ("DRUG GM", "PRODUCE") and price <= 2',
            lambda department, b, price, a, t: department == "GROCERY" and within(0, price, 2),
        ),
        ('tag = "new" and tag = "adult"', lambda d, b, p, a, tag: {"new", "adult"} <= set(tag)),
        ("price >= 1000", lambda *_: False),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else "",
)
def test_a_filter_of_few_items_is_answered_exactly(client, offline, text, matches):
    users, shown = [history(12), history(13)], that(matches)
    assert len(shown) < 100
    result = client.retrieve(users, filter=text)
    for row, ids in enumerate(users):
        assert_answer(result, row, offline.exhaustive(ids, shown, TOP_K), shown)


def test_a_filter_of_many_items(client, offline):
    ids, shown = history(14), that(lambda d, b, p, available, t: available)
    expected, _, _ = offline.retrieve(ids, hidden=np.setdiff1d(ALL, shown).tolist())
    assert_answer(client.retrieve(ids, filter="available"), 0, expected, shown)


def test_a_filter_that_is_built_in_python(client, offline):
    built = where("price").between(1, 2) & ~(where("department") == "DRUG GM")
    shown = that(lambda department, b, price, a, t: within(1, price, 2) and department != "DRUG GM")
    ids = history(15)
    assert_answer(client.retrieve(ids, filter=built), 0, offline.exhaustive(ids, shown, TOP_K), shown)


def test_all_conditions_hold_together(client, offline):
    ids = history(10, 2 * SEQUENCE_LENGTH)
    shown = [*best(offline, ids, 50), *ids]
    hidden = best(offline, ids, 10)
    cheap = that(lambda d, b, price, available, t: within(0, price, 9.99) and available)
    shown += cheap
    result = client.retrieve(
        ids,
        exclude_history=True,
        exclude_item_ids=hidden,
        allow_item_ids=[*shown, *UNKNOWN],
        filter='department = "DRUG GM"',
        filter_name="available_de",
        top_k=30,
    )
    toys = that(lambda department, b, p, a, t: department == "DRUG GM")
    left = set(shown) & set(cheap) & set(toys) - set(hidden) - set(ids)
    assert len(left) > 30
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


def test_a_named_filter_is_replaced_while_the_server_answers_and_stays(live_bundle_path, tmp_path, offline):
    ids = history(16)
    named = NamedFilters.of_repository(tmp_path / "repository")

    def check(client, shown):
        assert_answer(client.retrieve(ids, filter_name="stock"), 0, offline.exhaustive(ids, shown, TOP_K), shown)

    with own_server(live_bundle_path, tmp_path) as server, RetrievalClient(server.grpc_url, timeout_s=30) as client:
        with pytest.raises(RequestError, match="filter_name is 'stock'; expected one of: available_de"):
            client.retrieve(ids, filter_name="stock")
        for count in (30, 31, 5):
            shown = history(17, count)
            named.set("stock", np.array([*shown, *UNKNOWN]))
            check(client, set(shown))
        named.set("stock", "price < 0.5")
        few = that(lambda d, b, price, a, t: within(0, price, 0.49))
        check(client, few)
        named.set("broken", "colour = 3")
        with pytest.raises(RequestError, match="filter 'broken' does not fit this bundle: position 1: got 'colour'"):
            client.retrieve(ids, filter_name="broken")
    with own_server(live_bundle_path, tmp_path) as server, RetrievalClient(server.http_url, "http", 30) as client:
        check(client, few)
        named.remove("stock")
        with pytest.raises(RequestError, match="expected one of: available_de, broken"):
            client.retrieve(ids, filter_name="stock")
