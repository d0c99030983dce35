from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nann.errors import DataError
from nann.training.data.prepared import PreparedData
from nann.training.data.protocol import TARGETS, Protocol


def data_of(items):
    """A data set of which only the behaviours matter."""
    empty = np.zeros(0, np.int64)
    return PreparedData(
        item_ids=np.arange(1, 100),
        item_categories=np.zeros(99, np.int32),
        category_labels=("",),
        item_attributes=None,
        train_counts=empty,
        item_names=None,
        behavior_items=np.asarray(items, np.int32),
        behavior_group_first=empty,
        user_ids=pl.Series([], dtype=pl.Int64),
        user_first=empty,
        user_end=empty,
        user_train_end=empty,
        user_targets={},
        excludes_history=False,
        user_profiles=np.zeros((0, 0), np.int32),
        profile_fields=(),
        manifest={},
        item_rows=np.arange(len(np.arange(1, 100))),
    )


def naive_contexts(items, first, end, length):
    contexts = []
    for start, stop in zip(first, end, strict=True):
        last = items[max(start, stop - length) : stop]
        contexts.append([-1] * (length - len(last)) + list(last))
    return contexts


@st.composite
def ranges(draw):
    items = draw(st.lists(st.integers(0, 98), min_size=1, max_size=30))
    points = st.tuples(st.integers(0, len(items)), st.integers(0, len(items)))
    pairs = draw(st.lists(points.map(sorted), min_size=0, max_size=8))
    return items, pairs, draw(st.integers(1, 12))


@given(ranges())
def test_contexts_against_a_loop(case):
    items, pairs, length = case
    first, end = np.asarray(pairs, np.int64).reshape(-1, 2).T
    contexts = data_of(items).contexts(first, end, length)
    assert contexts.dtype == np.int32
    assert contexts.shape == (len(pairs), length)
    assert contexts.tolist() == naive_contexts(items, first, end, length)


@pytest.fixture
def prepared(prepare_csv):
    text = "user,item,time\n" + "".join(
        f"{user},{user + step},{step}\n" for user in range(1, 31) for step in range(3 + user % 4)
    )
    return prepare_csv(text, Protocol(3, 5, 12))


def test_queries(prepared):
    queries = prepared.queries("test", 2)
    assert queries.behaviors.shape == queries.external_ids.shape == (12, 2)
    assert queries.profiles.tolist() == [[0]] * 12
    assert queries.target_indptr.tolist() == list(range(13))
    assert np.array_equal(np.sort(queries.users), prepared.target_users("test"))
    assert queries.excluded_indptr.tolist() == [0] * 13
    assert queries.excluded_items.size == 0
    for query, user in enumerate(queries.users):
        own = int(prepared.user_ids[int(user)])
        middle = -(-(3 + own % 4) // 2) - 1
        history = [own + step for step in range(middle)][-2:]
        assert queries.external_ids[query].tolist() == [0] * (2 - len(history)) + history
        assert (queries.behaviors[query] == -1).tolist() == (queries.external_ids[query] == 0).tolist()
        assert prepared.item_ids[queries.targets_of(query)].tolist() == [own + middle]
    dtypes = [
        getattr(queries, name).dtype for name in ("behaviors", "external_ids", "profiles", "target_items", "users")
    ]
    assert dtypes == [np.int32, np.int64, np.int32, np.int32, np.int32]


def test_a_limit_takes_the_first_of_a_fixed_random_order(prepared):
    whole = prepared.queries("test", 2)
    assert not np.array_equal(whole.users, np.sort(whole.users))
    assert np.array_equal(prepared.queries("test", 2).users, whole.users)
    part = prepared.queries("test", 2, limit=5)
    assert np.array_equal(part.users, whole.users[:5])
    assert np.array_equal(part.target_items, whole.target_items[: part.target_indptr[-1]])
    assert prepared.queries("test", 2, limit=99).users.size == 12


def test_queries_refuse_what_has_no_ground_truth(prepared, prepare_csv):
    for split in ("train", "all"):
        with pytest.raises(DataError, match=f"split is '{split}'; expected 'validation' or 'test'"):
            prepared.queries(split, 2)
    with pytest.raises(DataError, match="limit is 0; expected at least 1"):
        prepared.queries("test", 2, limit=0)
    text = "user,item,time\n" + "".join(f"{user},{item},{item}\n" for user in (1, 2) for item in (1, 2, 3))
    with pytest.raises(DataError, match="no test users; prepare it again with --test-users"):
        prepare_csv(text, Protocol(3, 1, 0)).queries("test", 2)


def test_arrays_have_the_stated_types(prepared):
    expected = {
        "item_ids": np.int64,
        "item_categories": np.int32,
        "train_counts": np.int64,
        "behavior_items": np.int32,
        "behavior_group_first": np.int64,
        "user_first": np.int64,
        "user_end": np.int64,
        "user_train_end": np.int64,
        "user_profiles": np.int32,
    }
    assert {name: getattr(prepared, name).dtype for name in expected} == expected
    assert {name: rows.dtype for name, rows in prepared.user_targets.items()} == dict.fromkeys(TARGETS, np.int64)
    assert prepared.user_profiles.shape == (30, 0)
    first, end, users = prepared.training_groups()
    assert (first.dtype, end.dtype, users.dtype) == (np.int64, np.int64, np.int32)


def test_load_refuses_what_is_no_prepared_data_set(prepared, tmp_path):
    with pytest.raises(
        DataError, match=r"none is no prepared data set: no manifest.json; make one with `nann prepare`"
    ):
        PreparedData.load(tmp_path / "none")
    out = tmp_path / "out"
    manifest = json.loads((out / "manifest.json").read_text())

    def write(body):
        (out / "manifest.json").write_text(body if isinstance(body, str) else json.dumps(body))

    (out / "items.parquet").rename(out / "kept")
    with pytest.raises(DataError, match=r"items.parquet is missing or damaged; prepare the data set again"):
        PreparedData.load(out)
    (out / "kept").rename(out / "items.parquet")
    for body, message in (
        ("{", "manifest.json can't be read"),
        ([1], "manifest.json is another kind's"),
        ({"bundle_id": 1, "format_version": 2}, "manifest.json is another kind's"),
        ({**manifest, "format_version": 1}, "has format version 1; this release reads 2"),
        ({**manifest, "counts": {**manifest["counts"], "users": 7}}, "has 30 users and its manifest says 7"),
    ):
        write(body)
        with pytest.raises(DataError, match=message):
            PreparedData.load(out)


@pytest.mark.parametrize("excludes", [False, True])
def test_some_of_the_queries(prepared, excludes):
    data = replace(prepared, excludes_history=excludes)
    queries, rows = data.queries("test", 5), np.array([3, 0])
    some = queries.take(rows)
    for name in ("behaviors", "external_ids", "profiles", "users"):
        np.testing.assert_array_equal(getattr(some, name), getattr(queries, name)[rows])
    assert [some.targets_of(0).tolist(), some.targets_of(1).tolist()] == [
        queries.targets_of(row).tolist() for row in rows
    ]
    assert len(some.target_items) == some.target_indptr[-1]
    parts = np.split(queries.excluded_items, queries.excluded_indptr[1:-1])
    np.testing.assert_array_equal(some.excluded_items, np.concatenate([parts[row] for row in rows]))
    assert np.diff(some.excluded_indptr).tolist() == [len(parts[row]) for row in rows]
    assert bool(some.excluded_items.size) == excludes
