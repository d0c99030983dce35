"""The stores of histories, all of them by the same tests, and their addresses."""

import socket
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.history_events import events_of
from support.redis_server import running_redis

from nann.errors import ConfigError, DataError, HistoryError
from nann.histories import NO_EVENTS, FileHistories, merged
from nann.histories.file_histories import write_histories
from nann.python_backend.histories.opening import open_histories, record_address, recorded_address

LIMIT = 4


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["file", "redis"])
def open_store(request, tmp_path):
    """Opens an empty store."""

    def file():
        write_histories(tmp_path / "store", NO_EVENTS, LIMIT)
        return FileHistories(tmp_path / "store")

    def redis():
        server = request.getfixturevalue("redis")
        server.client.flushall()
        return open_histories(server.url, 5.0, LIMIT)

    return {"file": file, "redis": redis}[request.param]


def read(store, *users):
    return [None if one is None else list(map(bytes, one.item_ids.tolist())) for one in store.read(users)]


BATCHES = st.lists(
    st.dictionaries(
        st.sampled_from([b"1", b"u 2", "ü".encode()]),
        st.lists(st.tuples(st.integers(0, 5), st.sampled_from([b"1", b"x:y", "é ".encode()])), min_size=1, max_size=7),
        min_size=1,
    ),
    max_size=4,
)


@given(batches=BATCHES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_every_store_joins_behaviours_as_merged_does(open_store, batches):
    store, expected = open_store(), {}
    for batch in batches:
        users = {user: sorted(events, key=lambda event: event[0]) for user, events in batch.items()}
        added = 0
        for user, events in users.items():
            expected[user], count = merged(expected.get(user, []), events, LIMIT)
            added += count
        assert store.append(events_of(users)) == added
        assert store.append(events_of(users)) == 0
    found = read(store, *expected, b"nobody")
    assert found == [*([item for _, item in events] for events in expected.values()), None]
    store.close()


def test_every_store_has_profiles(open_store):
    store = open_store()
    assert store.append(events_of({b"a": [(1, b"5")], b"b": [(1, b"6")]}, [[3, 0], [1, 2]])) == 2
    assert store.append(events_of({b"a": [(2, b"7")], b"c": [(1, b"8")]})) == 2
    a, b, nobody = store.read([b"a", b"b", b"nobody"])
    assert (a.profile.tolist(), b.profile.tolist(), nobody) == ([3, 0], [1, 2], None)
    assert read(store, b"a") == [[b"5", b"7"]]
    assert store.read([b"c"])[0].item_ids.tolist() == [b"8"]
    store.close()


def test_more_behaviours_than_a_command_takes(redis):
    store = open_histories(redis.url, 5.0, 3_000)
    stored = [(time, b"%d" % time) for time in range(1, 4_001)]
    for _ in range(2):
        store.append(events_of({b"many": stored}))
    assert read(store, b"many") == [[item for _, item in stored[-3_000:]]]
    assert store.append(events_of({b"many": [(2_000, b"new")]})) == 1
    assert len(read(store, b"many")[0]) == 3_000
    store.close()


def test_what_others_wrote_wrongly_into_redis_costs_one_user_alone(redis):
    redis.client.flushall()
    store = open_histories(redis.url, 5.0, LIMIT)
    store.append(events_of({b"fine": [(1, b"5")], b"codes": [(1, b"6")]}, [[1], [2]]))
    redis.client.set("nann:history:text", "no list")
    redis.client.set("nann:profile:codes", "a,b")
    fine, text, codes = store.read([b"fine", b"text", b"codes"])
    assert (fine.item_ids.tolist(), fine.profile.tolist(), text) == ([b"5"], [1], None)
    assert (codes.item_ids.tolist(), codes.profile) == ([b"6"], None)
    redis.client.rpush("nann:history:words", "hello")
    more = events_of({b"fine": [(2, b"7")], b"text": [(2, b"8")], b"words": [(1, b"9")]})
    with pytest.raises(HistoryError, match="1 users' keys are no lists, the first is 'nann:history:text': they got no"):
        store.append(more)
    assert read(store, b"fine", b"words") == [[b"5", b"7"], [b"", b"9"]]
    store.close()


def test_a_redis_that_is_not_there(tmp_path):
    with running_redis(tmp_path / "redis") as server:
        store = open_histories(server.url, 0.5, LIMIT)
        store.append(events_of({b"a": [(1, b"5")]}))
        server.kill()
        with pytest.raises(HistoryError, match="Redis can't be asked for histories: "):
            store.read([b"a"])
        with pytest.raises(
            HistoryError, match=r"Redis does not take the behaviours: .*; send them again: none is added"
        ):
            store.append(events_of({b"a": [(1, b"5")]}))
        server.start()
        assert read(store, b"a") == [[b"5"]]
        store.close()


def test_a_redis_that_hangs_costs_its_timeout():
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts, and never answers
        store = open_histories(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", 0.05, LIMIT)
        start = time.perf_counter()
        with pytest.raises(HistoryError, match="Redis can't be asked for histories: "):
            store.read([b"a"])
        assert time.perf_counter() - start < 5
        store.close()


def test_addresses(tmp_path):
    with pytest.raises(
        ConfigError, match="the store of histories is 'kafka://x'; expected a folder that `nann prepare`"
    ):
        open_histories("kafka://x", 1.0)
    with pytest.raises(DataError, match="is no store of histories"):
        open_histories(str(tmp_path), 1.0)
    assert recorded_address(tmp_path) is None
    record_address(tmp_path, "redis://h:1/0")
    assert recorded_address(tmp_path) == "redis://h:1/0"
    record_address(tmp_path, str(tmp_path / "a" / ".." / "b"))
    assert recorded_address(tmp_path) == str((tmp_path / "b").resolve())
    record_address(tmp_path, f"feast:{tmp_path}/a/../b#view")
    assert recorded_address(tmp_path) == f"feast:{(tmp_path / 'b').resolve()}#view"
    record_address(tmp_path, None)
    record_address(tmp_path, None)
    assert recorded_address(tmp_path) is None
    (tmp_path / ".histories.json").write_text("[]")
    with pytest.raises(
        ConfigError, match=r"histories.json can't be read .*; start the server with `nann serve --histories` again"
    ):
        recorded_address(tmp_path)
