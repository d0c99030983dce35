import numpy as np
import pytest
import torch

from nann.clients._codec import decode_result, encode_request, join, split
from nann.errors import RequestError, ServerError
from nann.search_params import SearchOptions
from nann.signature import ALLOW_ITEM_IDS, BEHAVIOR_ITEM_IDS, EXCLUDE_ITEM_IDS, PADDING_SCORE, USER_ID, USER_PROFILE


@pytest.mark.parametrize(
    ("ids", "rows"),
    [
        ([1, 2, 3], [[1, 2, 3]]),
        ((1, 2, 3), [[1, 2, 3]]),
        ([[1, 2, 3], [4]], [[1, 2, 3], [0, 0, 4]]),
        ([[1, 2], []], [[1, 2], [0, 0]]),
        ([], [[0]]),
        ([[]], [[0]]),
        (np.array([1, 2], np.int32), [[1, 2]]),
        (np.array([[1, 2], [3, 4]], np.uint64), [[1, 2], [3, 4]]),
        ([np.array([1, 2]), np.array([3])], [[1, 2], [0, 3]]),
        (np.zeros((2, 0), int), [[0], [0]]),
        (torch.tensor([1, 2]), [[1, 2]]),
        (torch.tensor([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        ([torch.tensor([1, 2]), torch.tensor([3])], [[1, 2], [0, 3]]),
        ([torch.tensor(1), torch.tensor(2)], [[1, 2]]),
    ],
)
def test_histories_become_rows(ids, rows):
    array = encode_request(ids).inputs[BEHAVIOR_ITEM_IDS]
    assert array.dtype == np.int64
    np.testing.assert_array_equal(array, rows)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1.5], r"behavior_item_ids holds float64\[1\]; expected whole numbers, one list per user"),
        ("11,12", "behavior_item_ids holds <U5"),
        (b"11", "behavior_item_ids holds |S2"),
        (11, r"behavior_item_ids holds int64\[\]; expected whole numbers, one list per user"),
        ({11}, r"behavior_item_ids holds object\[\]"),
        (torch.tensor([[1.5]]), r"behavior_item_ids holds float32\[1\]"),
        (torch.ones(1, requires_grad=True), "behavior_item_ids can't be read: Can't call numpy"),
        ([2**70], "behavior_item_ids holds 1180591620717411303424; expected 64-bit signed numbers"),
        ([1, 2**63], "behavior_item_ids holds 9223372036854775808; expected 64-bit signed"),
        ([True, False], "behavior_item_ids holds bool"),
        ([[[1]]], "behavior_item_ids holds"),
        ([[1], [[2]]], "behavior_item_ids holds"),
        ([1, [2]], "behavior_item_ids holds lists of different depth"),
        ([[1, [2]]], "behavior_item_ids holds lists of different depth"),
        (np.zeros((1, 1, 1), int), "behavior_item_ids holds"),
        (np.array([2**63], np.uint64), "behavior_item_ids holds 9223372036854775808; expected 64-bit signed"),
    ],
)
def test_invalid_histories_are_refused(ids, message):
    with pytest.raises(RequestError, match=message):
        encode_request(ids)


def test_parameters_are_sent_only_where_given():
    assert encode_request([1]).parameters == {}
    options = SearchOptions(top_k=5, ef=(1, 2, 3), rounds=(4, 5, 6), entry="seeds", seeds=50, seed_ef=100)
    request = encode_request([1], options, request_id="r1")
    layers = {"top_k": 5, "ef": "1,2,3", "rounds": "4,5,6"}
    assert request.parameters == {**layers, "entry": "seeds", "seeds": 50, "seed_ef": 100}
    assert request.request_id == "r1"
    assert request.model == "nann"
    assert request.outputs == [
        "item_ids", "scores", "unknown_items", "items_scored", "items_matching", "status", "request_key", "stored_items"
    ]  # fmt: skip


@pytest.mark.parametrize("spec", [EXCLUDE_ITEM_IDS, ALLOW_ITEM_IDS], ids=lambda spec: spec.name)
@pytest.mark.parametrize(
    ("listed", "rows"),
    [
        ([5, 6], [[5, 6], [5, 6]]),
        ([[5], [6, 7]], [[0, 5], [6, 7]]),
        ([], [[0], [0]]),
        ([[], [6]], [[0], [6]]),
    ],
)
def test_lists_are_those_of_all_users_or_of_each(spec, listed, rows):
    request = encode_request([[1], [2]], **{spec.name: listed})
    np.testing.assert_array_equal(request.inputs[spec], rows)
    assert len(request.inputs) == 2


def test_lists_of_other_users_are_refused():
    with pytest.raises(RequestError, match="allow_item_ids has 3 rows; expected 1, or 2, one per user"):
        encode_request([[1], [2]], allow_item_ids=[[1], [2], [3]])
    with pytest.raises(RequestError, match=r"exclude_item_ids holds float64\[1\]; expected whole numbers"):
        encode_request([1], exclude_item_ids=[1.5])


def test_a_profile_has_a_row_for_each_user():
    request = encode_request([[1], [2]], user_profile=[[3, 4], [5, 6]])
    np.testing.assert_array_equal(request.inputs[USER_PROFILE], [[3, 4], [5, 6]])
    with pytest.raises(RequestError, match="user_profile has 1 rows; expected 2, one per user"):
        encode_request([[1], [2]], user_profile=[3, 4])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"priority": -1}, "priority: -1 is out of bounds; expected 0 to 3"),
        ({"priority": 9}, "priority: 9 is out of bounds; expected 0 to 3"),
        ({"priority": "high"}, "priority is 'high'; expected a whole number, 0 to 3"),
        ({"priority": None}, "priority is None; expected a whole number"),
        ({"request_id": 7}, "request_id is 7; expected printable text"),
        ({"request_id": "\ud800"}, r"request_id is '\\ud800'; expected printable text"),
    ],
)
def test_priority_and_request_id_are_checked(arguments, message):
    with pytest.raises(RequestError, match=message):
        encode_request([1], **arguments)


def test_more_users_than_the_server_takes_at_once_become_several_requests():
    users = [[number, number] for number in range(1, 36)]
    whole = encode_request(users, SearchOptions(top_k=5), user_profile=users, priority=2, request_id="r")
    parts = split(whole)
    assert [len(part.inputs[BEHAVIOR_ITEM_IDS]) for part in parts] == [16, 16, 3]
    for spec, rows in whole.inputs.items():
        np.testing.assert_array_equal(np.concatenate([part.inputs[spec] for part in parts]), rows)
    assert len({whole.key, *(part.key for part in parts)}) == 4
    assert {(part.parameters["top_k"], part.priority, part.request_id) for part in parts} == {(5, 2, "r")}


@pytest.mark.parametrize(
    ("users", "rows"),
    [
        (17, [[b"17"]]),
        (-5, [[b"-5"]]),
        ("u-1", [[b"u-1"]]),
        (b"u-1", [[b"u-1"]]),
        ([17, "ü", None, ""], [[b"17"], ["ü".encode()], [b""], [b""]]),
        (np.array([3, 4], np.uint32), [[b"3"], [b"4"]]),
        (np.int64(9), [[b"9"]]),
    ],
)
def test_users_are_numbers_or_texts(users, rows):
    request = encode_request(None, user_id=users)
    assert request.inputs[USER_ID].tolist() == rows
    assert (request.users, request.id_kind, list(request.inputs)) == (len(rows), None, [USER_ID])


def test_a_history_of_each_user_goes_with_the_ids():
    users = [str(user) for user in range(20)]
    request = encode_request([[user + 1] for user in range(20)], user_id=users, allow_item_ids=[5])
    assert [part.users for part in split(request)] == [16, 4]
    assert split(request)[1].inputs[USER_ID].tolist() == [[user.encode()] for user in users[16:]]
    assert request.inputs[ALLOW_ITEM_IDS].shape == (20, 1)


@pytest.mark.parametrize(
    ("ids", "users", "message"),
    [
        (None, None, "neither behavior_item_ids nor user_id is given; expected one of them, or both"),
        ([1, 2], [1, 2], "behavior_item_ids has 1 rows; expected 2, one per user_id"),
        ([[1], [2]], 7, "behavior_item_ids has 2 rows; expected 1, one per user_id"),
        (None, 1.5, "user_id holds 1.5; expected whole numbers or texts that UTF-8 can hold, one per user"),
        (None, True, "user_id holds True; expected whole numbers"),
        ([1], [], "user_id is empty; expected one id per user"),
        (None, "\ud800", r"user_id holds '\\ud800'; expected whole numbers"),
    ],
)
def test_users_that_are_none(ids, users, message):
    with pytest.raises(RequestError, match=message):
        encode_request(ids, user_id=users)


def test_the_kind_of_an_answer_without_ids_in_the_request_is_its_own():
    request = encode_request(None, user_id=17)
    assert decoded(request).item_ids.tolist() == [[7, -1]]
    assert decoded(request, item_ids=np.array([[b"a", b""]], object)).item_ids.tolist() == [["a", ""]]
    with pytest.raises(ServerError, match="returned nothing as item_ids"):
        decoded(request, item_ids=None)


def decoded(request=None, latency_ms=1.0, **changes):
    """What is read from an answer to the request."""
    request = request or encode_request([1])
    arrays = {
        "item_ids": np.array([[7, -1]]),
        "scores": np.array([[0.5, PADDING_SCORE]], np.float32),
        "unknown_items": np.array([[1]], np.int32),
        "items_scored": np.array([[9]], np.int32),
        "items_matching": np.array([[7]]),
        "status": np.array([[1]], np.int32),
        "request_key": np.array([[request.key]]),
        "stored_items": np.array([[6]], np.int32),
    }
    outputs = {name: array for name, array in {**arrays, **changes}.items() if array is not None}
    return decode_result(request, outputs, latency_ms)


def test_a_result():
    result = decoded(latency_ms=1.5)
    np.testing.assert_array_equal(result.item_ids, [[7, -1]])
    np.testing.assert_array_equal(result.scores, np.array([[0.5, PADDING_SCORE]], np.float32))
    np.testing.assert_array_equal(result.unknown_items, [1])
    np.testing.assert_array_equal(result.items_scored, [9])
    np.testing.assert_array_equal(result.items_matching, [7])
    np.testing.assert_array_equal(result.status, [1])
    np.testing.assert_array_equal(result.stored_items, [6])
    assert result.latency_ms == 1.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"item_ids": None}, r"returned nothing as item_ids; expected INT64 \[1, any\]"),
        ({"item_ids": np.array(7)}, r"returned int64\[\] as item_ids; expected INT64 \[1, any\]"),
        ({"item_ids": np.zeros((2, 2), int)}, r"returned int64\[2, 2\] as item_ids; expected INT64 \[1, any\]"),
        ({"scores": np.zeros((1, 2))}, r"returned float64\[1, 2\] as scores; expected FP32 \[1, 2\]"),
        ({"scores": np.zeros((1, 3), np.float32)}, r"returned float32\[1, 3\] as scores; expected FP32 \[1, 2\]"),
        ({"items_scored": np.zeros(1, np.int32)}, r"returned int32\[1\] as items_scored; expected INT32 \[1, 1\]"),
        ({"status": np.zeros((1, 0), np.int32)}, r"returned int32\[1, 0\] as status; expected INT32 \[1, 1\]"),
    ],
)
def test_answers_of_another_kind_or_size_are_refused(changes, message):
    with pytest.raises(ServerError, match=message):
        decoded(**changes)


def test_an_answer_to_another_request_is_dropped():
    request, other = encode_request([1]), encode_request([1])
    assert request.key != other.key
    words = rf"the answer to another request \(request_key {other.key}, expected {request.key}\); it was dropped"
    with pytest.raises(ServerError, match=words):
        decoded(request, request_key=np.array([[other.key]]))


def test_an_answer_has_as_many_items_as_were_asked_for():
    request = encode_request([1], SearchOptions(top_k=50))
    with pytest.raises(ServerError, match=r"returned int64\[1, 2\] as item_ids; expected INT64 \[1, 50\]"):
        decoded(request)


def test_results_of_several_requests_are_one_and_a_shorter_one_is_padded():
    wide = {"item_ids": np.array([[1, 2, 3]]), "scores": np.array([[3, 2, 1]], np.float32)}
    results = [decoded(latency_ms=1.5, **changes) for changes in ({}, wide)]
    whole = join(results)
    assert whole.item_ids.tolist() == [[7, -1, -1], [1, 2, 3]]
    assert whole.scores.tolist() == [[0.5, PADDING_SCORE, PADDING_SCORE], [3, 2, 1]]
    assert (whole.scores.dtype, whole.unknown_items.tolist(), whole.latency_ms) == (np.float32, [1, 1], 3.0)
