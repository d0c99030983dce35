import numpy as np
import pytest

from nann.clients._codec import decode_result, encode_request
from nann.errors import RequestError, ServerError
from nann.search_params import SearchOptions
from nann.signature import BEHAVIOR_ITEM_IDS, USER_PROFILE


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
        (["11"], "behavior_item_ids holds <U2"),
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
    assert request.outputs == ["item_ids", "scores", "unknown_items", "items_scored", "status"]


def test_a_profile_has_a_row_for_each_user():
    request = encode_request([[1], [2]], user_profile=[[3, 4], [5, 6]])
    np.testing.assert_array_equal(request.inputs[USER_PROFILE], [[3, 4], [5, 6]])
    with pytest.raises(RequestError, match="user_profile has 1 rows; expected 2, one per user"):
        encode_request([[1], [2]], user_profile=[3, 4])


def outputs(**changes):
    arrays = {
        "item_ids": np.array([[7, -1]]),
        "scores": np.array([[0.5, -np.inf]], np.float32),
        "unknown_items": np.array([[1]], np.int32),
        "items_scored": np.array([[9]], np.int32),
        "status": np.array([[1]], np.int32),
    }
    return {name: array for name, array in {**arrays, **changes}.items() if array is not None}


def test_a_result():
    result = decode_result(outputs(), 1.5)
    np.testing.assert_array_equal(result.item_ids, [[7, -1]])
    np.testing.assert_array_equal(result.scores, np.array([[0.5, -np.inf]], np.float32))
    np.testing.assert_array_equal(result.unknown_items, [1])
    np.testing.assert_array_equal(result.items_scored, [9])
    np.testing.assert_array_equal(result.status, [1])
    assert result.latency_ms == 1.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": None}, r"returned nothing as scores; expected FP32 \[batch, any\]"),
        ({"scores": np.zeros((1, 2))}, r"returned float64\[1, 2\] as scores"),
        ({"items_scored": np.zeros(1, np.int32)}, r"returned int32\[1\] as items_scored; expected INT32"),
    ],
)
def test_invalid_results_are_refused(changes, message):
    with pytest.raises(ServerError, match=message):
        decode_result(outputs(**changes), 1.0)
