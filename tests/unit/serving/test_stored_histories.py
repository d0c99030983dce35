"""feature_transform, which asks a store for the histories of users."""

import numpy as np
import pytest
from support import tiny_bundle, triton_fakes
from support.history_events import events_of

from nann.histories import UserHistory
from nann.histories.file_histories import write_histories
from nann.python_backend.histories.opening import record_address

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
