import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nann.errors import RequestError
from nann.features import FeatureTransform, profile_codes

IDS = np.array([10, 20, 30, 40, 2**40], np.int64)
INT64 = np.iinfo(np.int64)


def transform(sequence_length=3, profile_sizes=(), item_ids=IDS):
    return FeatureTransform(item_ids, sequence_length, profile_sizes)


def request(*rows):
    return np.array(rows, np.int64)


corpora = st.sets(st.integers(1, 60), min_size=1).map(lambda ids: np.array(sorted(ids), np.int64))
requests = hnp.arrays(np.int64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(-3, 63))


@given(corpora, st.integers(1, 3).flatmap(lambda n: hnp.arrays(np.int64, (2,) * n, elements=st.integers(-3, 63))))
def test_item_indices_are_a_dict_lookup(item_ids, ids):
    index_of = {int(item): index for index, item in enumerate(item_ids)}
    indices = transform(item_ids=item_ids).item_indices(ids)
    assert indices.dtype == np.int32
    assert indices.shape == ids.shape
    assert indices.ravel().tolist() == [index_of.get(int(item), -1) for item in ids.ravel()]


def test_item_indices_at_the_ends_of_int64():
    ids = request([INT64.min, -1, 0, 9, 10, 2**40, 2**40 + 1, INT64.max])
    assert transform().item_indices(ids).tolist() == [[-1, -1, -1, -1, 0, 4, -1, -1]]


def test_ids_that_mean_padding_are_never_items():
    odd = transform(item_ids=np.array([-1, 0, 7], np.int64))
    assert odd.item_indices(request([-1, 0, 7])).tolist() == [[-1, -1, 2]]


def one_by_one(item_ids, length, rows):
    """What `behaviors` does, row by row."""
    index_of = {int(item): index for index, item in enumerate(item_ids)}
    behaviors, unknown = [], []
    for row in rows.tolist():
        known = [index_of[item] for item in row if item in index_of]
        kept = known[-length:]
        behaviors.append([-1] * (length - len(kept)) + kept)
        unknown.append([sum(item not in index_of and item not in (0, -1) for item in row)])
    return behaviors, unknown


@given(corpora, requests, st.integers(1, 15))
def test_behaviors_are_those_of_a_plain_loop(item_ids, ids, length):
    behaviors, unknown = transform(length, item_ids=item_ids).behaviors(ids)
    assert (behaviors.dtype, unknown.dtype) == (np.int32, np.int32)
    assert (behaviors.tolist(), unknown.tolist()) == one_by_one(item_ids, length, ids)


@given(corpora, corpora, requests, st.integers(1, 15))
def test_behaviors_of_a_corpus_that_changed_are_those_of_the_training(item_ids, behavior_ids, ids, length):
    changed = FeatureTransform(item_ids, length, (), behavior_ids)
    behaviors, unknown = changed.behaviors(ids)
    assert (behaviors.tolist(), unknown.tolist()) == one_by_one(behavior_ids, length, ids)
    own = changed.own_items(behaviors)
    assert own.dtype == np.int32
    index_of = {int(item): index for index, item in enumerate(item_ids)}
    expected = [[index_of.get(int(behavior_ids[one]), -1) if one >= 0 else -1 for one in row] for row in behaviors]
    assert own.tolist() == expected
    assert changed.known_ids is behavior_ids
    assert transform(item_ids=item_ids).own_items(behaviors) is behaviors, "without them they are the same"


def test_the_request_is_left_as_it_was():
    ids = request([10, 99, 20])
    transform().behaviors(ids)
    np.testing.assert_array_equal(ids, request([10, 99, 20]))


@pytest.mark.parametrize(
    ("ids", "expected", "unknown"),
    [
        ([10, 20, 30, 40], [1, 2, 3], 0),  # the newest
        ([40, 30, 20, 10], [2, 1, 0], 0),  # in order
        ([20, 20, 20, 20], [1, 1, 1], 0),  # repetitions stay
        ([10], [-1, -1, 0], 0),  # L = 1
        ([10, 0, 20, -1], [-1, 0, 1], 0),  # padding anywhere
        ([0, -1, 0], [-1, -1, -1], 0),  # an empty history
        ([10, 99, 20, 98, 30, 97], [0, 1, 2], 3),  # unknown ones don't push known ones out
        ([99, 98, 97, 96], [-1, -1, -1], 4),
        ([-2, INT64.min, INT64.max], [-1, -1, -1], 3),
    ],
)
def test_one_user(ids, expected, unknown):
    behaviors, dropped = transform().behaviors(request(ids))
    assert behaviors.tolist() == [expected]
    assert dropped.tolist() == [[unknown]]


def test_histories_without_ids_are_those_of_new_users():
    behaviors, unknown = transform().behaviors(np.empty((2, 0), np.int64))
    assert behaviors.tolist() == [[-1, -1, -1]] * 2
    assert unknown.tolist() == [[0], [0]]


def test_no_users_are_no_mistake():
    behaviors, unknown = transform().behaviors(np.empty((0, 5), np.int64))
    assert (behaviors.shape, unknown.shape) == ((0, 3), (0, 1))


@pytest.mark.parametrize(("shape", "shown"), [((4,), r"\[4\]"), ((1, 2, 3), r"\[1, 2, 3\]"), ((), r"\[\]")])
def test_another_rank_is_refused(shape, shown):
    with pytest.raises(RequestError, match=rf"behavior_item_ids has shape {shown}; expected \[batch, length\]$"):
        transform().behaviors(np.zeros(shape, np.int64))


def test_profile_codes_the_data_set_never_had_are_unknown():
    codes = transform(profile_sizes=(3, 5)).profile(request([2, 4], [3, 5], [-1, 0], [INT64.max, INT64.min]), 4)
    assert codes.dtype == np.int32
    assert codes.tolist() == [[2, 4], [0, 0], [0, 0], [0, 0]]


def test_a_request_without_profile_has_unknown_codes():
    assert transform(profile_sizes=(3, 5)).profile(None, 2).tolist() == [[0, 0], [0, 0]]


def test_a_data_set_without_profile_has_one_column_of_zeros():
    codes = transform().profile(None, 3)
    assert codes.dtype == np.int32
    assert codes.tolist() == [[0], [0], [0]]
    with pytest.raises(RequestError, match="user_profile came, and the model knows no user profile"):
        transform().profile(request([7, 7]), 1)


@pytest.mark.parametrize(
    ("codes", "shown"), [([[1]], r"\[1, 1\]"), ([[1, 2, 3]], r"\[1, 3\]"), ([[1, 2], [1, 2]], r"\[2, 2\]")]
)
def test_a_profile_of_another_shape_is_refused(codes, shown):
    with pytest.raises(RequestError, match=rf"user_profile has shape {shown}; expected \[1, 2\]"):
        transform(profile_sizes=(3, 5)).profile(np.array(codes, np.int64), 1)


FIELDS = (
    {"name": "town", "kind": "category", "values": ["Bonn", "Oslo", "7"]},
    {
        "name": "income",
        "kind": "number",
        "values": ["below 10", "10 to below 20.5", "20.5 or more"],
        "edges": [10, 20.5],
    },
    {"name": "never", "kind": "number", "values": [], "edges": []},
    {"name": "of an older release", "values": ["x"]},
)


@pytest.mark.parametrize(
    ("user", "codes"),
    [
        ({}, [0, 0, 0, 0]),
        ({"town": "Oslo", "income": 10, "never": 3, "of an older release": "x"}, [2, 2, 0, 1]),
        ({"town": " Bonn ", "income": "9.99"}, [1, 1, 0, 0]),
        ({"town": 7, "income": 20.5}, [3, 3, 0, 0]),
        ({"town": 7.0, "income": 20.49}, [3, 2, 0, 0]),
        ({"town": "Paris", "income": None}, [0, 0, 0, 0]),
        ({"town": "", "income": ""}, [0, 0, 0, 0]),
        ({"income": -1e300}, [0, 1, 0, 0]),
    ],
)
def test_profiles_are_given_as_values(user, codes):
    assert profile_codes(FIELDS, [user, {}]).tolist() == [codes, [0, 0, 0, 0]]


def test_profiles_without_fields_or_users_have_a_shape():
    assert profile_codes((), [{}, {}]).shape == (2, 0)
    assert profile_codes(FIELDS, []).shape == (0, 4)


@pytest.mark.parametrize(
    ("fields", "user", "message"),
    [
        (FIELDS, {"Town": "Oslo"}, "the profile has a field 'Town'; expected some of town, income, never"),
        ((), {"town": "Oslo"}, "expected some of none: there are none"),
        (FIELDS, {"income": "much"}, "the profile's 'income' is 'much'; expected a number"),
        (FIELDS, {"income": float("nan")}, "the profile's 'income' is nan; expected a number"),
        (FIELDS, {"income": [3]}, r"the profile's 'income' is \[3\]; expected a number"),
    ],
)
def test_profiles_that_do_not_fit_are_refused(fields, user, message):
    with pytest.raises(RequestError, match=message):
        profile_codes(fields, [user])
