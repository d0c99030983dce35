import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nann.errors import RequestError, ServerError
from nann.python_backend.origin import Origin

ITEMS = 30


def items_of(users):
    rows = st.integers(0, 4).flatmap(
        lambda width: st.lists(
            st.lists(st.integers(-1, ITEMS - 1), min_size=width, max_size=width), min_size=users, max_size=users
        )
    )
    return st.none() | rows.map(lambda each: np.array(each, np.int32).reshape(users, -1))


@given(st.data(), st.integers(1, 3), st.integers(0, 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
def test_what_is_packed_comes_out(data, users, arrived_ns, key):
    excluded, allowed = data.draw(items_of(users)), data.draw(items_of(users))
    unread = data.draw(st.none() | st.lists(st.booleans(), min_size=users, max_size=users).map(np.array))
    read = Origin.unpack(Origin(arrived_ns, key, excluded, allowed, unread).pack(users), users, ITEMS, key)
    none = np.zeros(users, bool)
    np.testing.assert_array_equal(none if read.unread is None else read.unread, none if unread is None else unread)
    assert (read.arrived_ns, read.key) == (arrived_ns, key)
    assert (read.allowed is None) == (allowed is None)
    for one, other in ((read.excluded, excluded), (read.allowed, allowed)):
        if other is not None and other.size:
            np.testing.assert_array_equal(one, other)


def test_without_lists_it_has_three_columns():
    assert Origin(5, 6).pack(2).tolist() == [[5, 6, 0], [5, 6, 0]]
    assert Origin(5, 6, unread=np.array([False, True])).pack(2).tolist() == [[5, 6, 0], [5, 6, 1]]


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ([[1]], r"origin has shape \[1, 1\]; expected \[1, 3 or more\]"),
        ([[1, 7, 0], [1, 7, 0]], r"origin has shape \[2, 3\]; expected \[1, 3 or more\]"),
        ([[1, 7, 0, 2, 3]], "origin has 1 items of which 2 are allowed"),
        ([[1, 7, 0, -2, 3]], "origin has 1 items of which -2 are allowed"),
        ([[1, 7, 0, 0, 30]], "origin holds an item index 30; expected at most 29: is feature_transform from the"),
        ([[1, 7, 0, 1, -2, 2**40]], "origin holds an item index 1099511627776"),
    ],
)
def test_no_such_tensor(tensor, message):
    with pytest.raises(RequestError, match=message):
        Origin.unpack(np.array(tensor, np.int64), 1, ITEMS, 7)


def test_the_features_of_another_request():
    with pytest.raises(ServerError, match="the features are those of another request \\(request_key 7, expected 8\\)"):
        Origin.unpack(np.array([[1, 7, 0]]), 1, ITEMS, 8)
