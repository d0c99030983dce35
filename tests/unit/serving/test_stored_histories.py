"""The stores of histories, all of them by the same tests; what guards them; and feature_transform, which asks them."""

import socket
import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import tiny_bundle, triton_fakes
from support.redis_server import running_redis
from support.waiting import wait_until

from nann.errors import ConfigError, DataError, HistoryError
from nann.histories import Events, FileHistories, UserHistory, merged
from nann.histories.file_histories import write_histories
from nann.python_backend.histories.guarded import GuardedHistories
from nann.python_backend.histories.opening import open_histories, record_address, recorded_address

LIMIT = 4
NONE = Events([], np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64))


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["file", "redis"])
def open_store(request, tmp_path):
    """Opens an empty store."""

    def file():
        write_histories(tmp_path / "store", NONE, LIMIT)
        return FileHistories(tmp_path / "store")

    def redis():
        server = request.getfixturevalue("redis")
        server.client.flushall()
        return open_histories(server.url, 5.0, LIMIT)

    return {"file": file, "redis": redis}[request.param]


def events_of(users, profiles=None):
    flat = [event for events in users.values() for event in events]
    return Events(
        list(users),
        np.append(0, np.cumsum([len(events) for events in users.values()])).astype(np.int64),
        np.array([time for time, _ in flat], np.int64),
        np.array([item for _, item in flat], np.bytes_),
        None if profiles is None else np.array(profiles, np.int32),
    )


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


class Switched:
    """A store that fails while it is off."""

    def __init__(self):
        self.on, self.asked, self.closed = True, 0, False

    def read(self, user_ids):
        self.asked += 1
        if not self.on:
            raise HistoryError("off")
        return [None] * len(user_ids)

    def close(self):
        self.closed = True


def test_a_store_that_fails_is_left_alone_and_tried_again():
    store, said, counted = Switched(), [], []
    guarded = GuardedHistories(lambda: store, said.append, lambda how, _: counted.append(how), failures=2, retry_s=0.02)
    assert guarded.read([b"a"]) == [None]
    store.on = False
    assert [guarded.read([b"a"]), guarded.is_open] == [None, False]
    assert [guarded.read([b"a"]), guarded.is_open] == [None, True]
    assert guarded.read([b"a"]) is None
    assert counted == ["read", "failed", "failed", "skipped"]
    wait_until(lambda: store.asked > 6, lambda: store.asked)
    assert guarded.is_open
    store.on = True
    wait_until(lambda: not guarded.is_open, lambda: said)
    assert guarded.read([b"a"]) == [None]
    assert said == [
        "the store of histories fails, and requests are answered without stored histories: off",
        "the store of histories answers again",
    ]
    guarded.close()
    assert store.closed
    assert not [thread for thread in threading.enumerate() if thread.name == "histories"]


def test_a_failure_now_and_then_opens_nothing():
    store = Switched()
    guarded = GuardedHistories(lambda: store, lambda line: None, failures=2)
    for store.on in (False, True, False, True):
        guarded.read([b"a"])
    assert not guarded.is_open
    guarded.close()


def test_a_store_that_can_not_be_opened_is_opened_later():
    tries, said = [], []

    def open_store():
        tries.append(1)
        if len(tries) < 3:
            raise DataError("not there yet")
        return Switched()

    guarded = GuardedHistories(open_store, said.append, retry_s=0.02)
    assert guarded.read([b"a"]) is None
    wait_until(lambda: not guarded.is_open, lambda: said)
    assert guarded.read([b"a"]) == [None]
    guarded.close()


IDS = tiny_bundle.item_ids().tolist()


@pytest.fixture
def model(tmp_path, monkeypatch):
    """feature_transform, which reads 4 behaviours, beside a store; profiles have two fields."""
    from nann.python_backend.models.feature_transform import TritonPythonModel
    from nann.python_backend.repository.install import install_bundle

    fields = [{"name": "age", "values": ["young", "old"]}, {"name": "town", "values": ["a", "b", "c"]}]
    bundle = tiny_bundle.make_bundle(tmp_path / "bundle", profile_fields=fields)
    install_bundle(bundle.path, tmp_path / "repository")
    stored = {b"17": [IDS[0], 7, IDS[1], IDS[2]], b"long": IDS[:9], b"new": []}
    users = {user: [(time, b"%d" % item) for time, item in enumerate(items)] for user, items in stored.items()}
    write_histories(tmp_path / "store", events_of(users, [[1, 3], [9, 1], [2, 0]]))
    record_address(tmp_path / "repository", str(tmp_path / "store"))
    sizes = {"max_request_length": "9", "max_list_length": "3", "max_stored_length": "6", "history_timeout_ms": "500"}
    model = TritonPythonModel()
    model.initialize(triton_fakes.arguments_of(tmp_path / "repository", "feature_transform", **sizes))
    yield model
    model.finalize()


def ask(model, users, ids=None, parameters="{}", **others):
    tensors = {"user_id": np.array([[user] for user in users], object)}
    if ids is not None:
        tensors["behavior_item_ids"] = np.array(ids, np.int64)
    (answer,) = model.execute([triton_fakes.Request(tensors | others, parameters)])
    return answer.arrays() if not answer.has_error() else answer.error()


def test_stored_behaviours_come_before_the_requests_own(model):
    users = [b"17", b"long", b"new", b"nobody", b""]
    arrays = ask(model, users)
    assert arrays["behaviors"].tolist() == [[-1, 0, 1, 2], [5, 6, 7, 8], *[[-1] * 4] * 3]
    assert arrays["stored_items"].ravel().tolist() == [3, 4, 0, 0, 0]
    assert arrays["unknown_items"].ravel().tolist() == [1, 0, 0, 0, 0]
    assert arrays["profile_codes"].tolist() == [[1, 3], [0, 1], [2, 0], [0, 0], [0, 0]]
    assert arrays["origin"].shape == (5, 3)
    arrays = ask(model, users, [[0, IDS[20], IDS[21]]] * 5, user_profile=np.array([[2, 1]] * 5))
    own = [20, 21]
    assert arrays["behaviors"].tolist() == [[1, 2, *own], [7, 8, *own], *[[-1, -1, *own]] * 3]
    assert arrays["stored_items"].ravel().tolist() == [2, 2, 0, 0, 0]
    assert arrays["profile_codes"].tolist() == [[2, 1]] * 5
    arrays = ask(model, [b"17"], [IDS[20:26]])
    assert (arrays["behaviors"].tolist(), arrays["stored_items"].tolist()) == ([[22, 23, 24, 25]], [[0]])


def test_the_whole_stored_history_is_excluded(model):
    asked = '{"exclude_history": true}'
    arrays = ask(model, [b"17", b"long"], [[IDS[20]]] * 2, asked)
    assert arrays["origin"][:, 3:].tolist() == [[-1, -1, -1, 0, ~7, 1, 2, 20], [-1, 3, 4, 5, 6, 7, 8, 20]]


def test_a_batch_of_requests_is_one_read(model, monkeypatch):
    reads = []
    guarded = model._features._histories
    whole = guarded.read
    monkeypatch.setattr(guarded, "read", lambda users: reads.append(list(users)) or whole(users))

    def request(**tensors):
        return triton_fakes.Request({name: np.array(values) for name, values in tensors.items()})

    def users(*names):
        return np.array([[name] for name in names], object)

    answers = model.execute(
        [
            request(user_id=users(b"17", b"nobody")),
            request(behavior_item_ids=[[IDS[3]]]),
            request(user_id=users(b"x" * 257)),
            request(user_id=np.array([[1]])),
            request(user_id=np.array([[[b"17"]]], object)),
            request(exclude_item_ids=[[1]]),
            request(user_id=users(b"long", b"17"), behavior_item_ids=[[1.0], [2.0]]),
            request(user_id=users(b"17")),
        ]
    )
    assert reads == [[b"17", b"long", b"nobody"]]
    assert [answer.has_error() for answer in answers] == [False, False, True, True, True, True, True, False]
    assert [answer.error().message() for answer in answers[2:7]] == [
        "user_id has 257 bytes; expected at most 256",
        "user_id has dtype int64; expected BYTES",
        "user_id has shape [1, 1, 1]; expected [batch, 1]",
        "neither behavior_item_ids nor user_id came; expected one of them, or both",
        "behavior_item_ids has dtype float64; expected INT64",
    ]
    model.execute([request(behavior_item_ids=[[IDS[3]]])])
    assert len(reads) == 1


def test_a_store_that_can_not_be_asked(model, monkeypatch):
    monkeypatch.setattr(model._features._histories, "read", lambda users: None)
    arrays = ask(model, [b"17", b""], [[IDS[20]]] * 2)
    assert arrays["behaviors"].tolist() == [[-1, -1, -1, 20]] * 2
    assert arrays["stored_items"].ravel().tolist() == [-1, 0]
    assert arrays["origin"][:, 2].tolist() == [1, 0]


def test_without_a_store_users_are_refused(model_args):
    from nann.python_backend.models.feature_transform import TritonPythonModel

    sizes = {"max_request_length": "9", "max_list_length": "3", "max_stored_length": "6"}
    model = TritonPythonModel()
    model.initialize(model_args("feature_transform", **sizes))
    error = ask(model, [b"17"])
    assert error.code() == "INVALID_ARG"
    assert error.message().startswith("user_id came, and this server has no store of histories; send behavior_item_ids")
    model.finalize()


def test_metrics_of_the_store(model):
    ask(model, [b"17", b"nobody", b""])
    model.finalize()
    values = triton_fakes.Metric.values
    assert (values["nann_history_users_total"], values["nann_history_reads_total"]) == (3, 1)
    assert values["nann_history_read_seconds_count"] == 1
    assert values["nann_history_breaker_open"] == 0
    assert values["nann_unknown_items_total"] == 1


def test_codes_of_another_data_set_are_no_profile(model, monkeypatch):
    history = UserHistory(np.array([IDS[3]]), np.array([1], np.int32))
    monkeypatch.setattr(model._features._histories, "read", lambda users: [history] * len(users))
    assert ask(model, [b"17"])["profile_codes"].tolist() == [[0, 0]]
