from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nann.errors import ConfigError, DataError
from nann.training.data.prepare import prepare
from nann.training.data.prepared import PreparedData
from nann.training.data.protocol import LEAVE_ONE_OUT, PAPER, TIME_SPLIT, Protocol
from nann.training.data.rows import InteractionLog, RowCounts

# user 1: 11 12 13 14 (times 1 2 3 4), user 2: 12 11 12 11 12 (times 1 2 3 4 5), user 3: 13 14 (times 3 4)
LOG = "user,item,time\n" + "".join(
    f"{user},{item},{time}\n"
    for user, items, start in ((1, [11, 12, 13, 14], 1), (2, [12, 11, 12, 11, 12], 1), (3, [13, 14], 3))
    for time, item in enumerate(items, start)
)


def items_of(data, first, end):
    return data.item_ids[data.behavior_items[first:end]].tolist()


def target_items(data, split):
    """Own user id -> ground truth rows as external ids, for the users that have some."""
    return {
        data.user_ids[int(user)]: items_of(data, *data.user_targets[split][user]) for user in data.target_users(split)
    }


def training_items(data):
    rows = zip(data.user_ids, data.user_first, data.user_train_end, strict=True)
    return {user: items_of(data, first, end) for user, first, end in rows}


def test_leave_one_out_keeps_the_last_for_the_test(prepare_csv):
    protocol = Protocol(2, 1, None, kind=LEAVE_ONE_OUT)
    data = prepare_csv(LOG, protocol)
    assert target_items(data, "test") == {1: [14], 2: [12], 3: [14]}
    (held_out,) = data.target_users("validation")
    trained = {1: [11, 12, 13], 2: [12, 11, 12, 11], 3: [13]}
    assert target_items(data, "validation") == {held_out + 1: trained[held_out + 1][-1:]}
    trained[held_out + 1].pop()
    assert training_items(data) == trained
    assert held_out != 2, "with two behaviours there is nothing to train on beside a held out one"
    assert prepare_csv(LOG, Protocol(2, 0, 2, kind=LEAVE_ONE_OUT)).target_users("test").size == 2


def test_users_with_one_group_only_train(prepare_csv):
    text = "user,item,time,basket\n" + "".join(f"1,{item},1,1\n2,{item},{item},{item}\n" for item in (3, 4, 5))
    data = prepare_csv(text, Protocol(2, 0, kind=LEAVE_ONE_OUT))
    assert target_items(data, "test") == {2: [5]}
    assert training_items(data) == {1: [3, 4, 5], 2: [3, 4]}


@pytest.mark.parametrize("time", ["4", "1970-01-01T00:00:04Z", "1970-01-01 00:00:03.5"])
def test_time_split_tests_on_all_from_the_time_on(prepare_csv, time):
    data = prepare_csv(LOG + "4,99,9\n4,11,9\n", Protocol(2, 0, kind=TIME_SPLIT, split_time=time))
    assert target_items(data, "test") == {1: [14], 2: [11, 12], 3: [14]}
    assert training_items(data) == {1: [11, 12, 13], 2: [12, 11, 12], 3: [13], 4: []}
    assert data.train_counts.tolist() == [2, 3, 2, 0, 0]
    assert data.manifest["counts"]["new_items"] == 2, "14 and 99 were not seen before the time"
    assert data.manifest["counts"]["train_users"] == 3
    held_out = prepare_csv(LOG, Protocol(2, 2, kind=TIME_SPLIT, split_time=time))
    assert target_items(held_out, "validation") == {1: [13], 2: [12]}
    assert training_items(held_out) == {1: [11, 12], 2: [12, 11], 3: [13]}


def test_a_basket_that_crosses_the_time_is_cut(prepare_csv):
    text = "user,item,time,basket\n1,5,1,a\n1,6,2,b\n1,8,5,b\n1,7,3,b\n1,9,4,c\n1,5,2,d\n"
    data = prepare_csv(text, Protocol(1, 0, kind=TIME_SPLIT, split_time="3"))
    assert training_items(data) == {1: [5, 6, 5]}
    assert target_items(data, "test") == {1: [8, 7, 9]}
    assert data.behavior_group_first.tolist() == [0, 1, 2, 3, 3, 5]


def test_excluded_history_is_neither_answer_nor_ground_truth(prepare_csv):
    protocol = Protocol(2, 1, 3, kind=LEAVE_ONE_OUT, exclude_history=True)
    data = prepare_csv(LOG.replace("2,11,2", "2,13,2"), protocol)
    assert data.excludes_history
    assert target_items(data, "test") == {1: [14], 3: [14]}
    counts = data.manifest["counts"]
    assert (counts["test_users"], counts["test_items_in_history"], counts["test_users_without_new"]) == (2, 1, 1)
    queries = data.queries("test", 1)
    excluded = {
        data.user_ids[int(user)]: data.item_ids[queries.excluded_items[slice(*queries.excluded_indptr[q : q + 2])]]
        for q, user in enumerate(queries.users)
    }
    assert {user: items.tolist() for user, items in excluded.items()} == {1: [11, 12, 13], 3: [13]}
    assert data.item_ids[queries.targets_of(0)].tolist() == [14]


def test_a_known_part_of_the_ground_truth_is_left_out(prepare_csv):
    text = "user,item,time,basket\n1,5,1,a\n1,5,2,b\n1,6,2,b\n1,6,3,c\n1,5,3,c\n1,9,3,c\n1,4,3,c\n"
    data = prepare_csv(text, Protocol(2, 0, 1, kind=LEAVE_ONE_OUT, exclude_history=True))
    queries = data.queries("test", 4)
    assert data.item_ids[queries.target_items].tolist() == [4, 9]
    assert data.item_ids[queries.excluded_items].tolist() == [5, 6]
    assert data.manifest["counts"]["test_items_in_history"] == 2


def test_without_new_ground_truth_there_is_nobody_to_test_on(prepare_csv):
    text = "user,item,time\n1,5,1\n1,6,2\n1,6,3\n2,6,1\n2,5,2\n2,6,3\n"
    protocol = Protocol(2, 0, kind=LEAVE_ONE_OUT, exclude_history=True)
    with pytest.raises(DataError, match=r"the test ground truth of all 2 users is in their history.*--include-history"):
        prepare_csv(text, protocol)


def test_a_log_that_repeats_itself_is_pointed_out(prepare_csv):
    text = "user,item,time\n" + "".join(
        f"{user},{item},{time}\n"
        for user in range(4)
        for time, item in enumerate([1, 2, 3, user % 3 + 1, user % 3 + 1])
    )
    data = prepare_csv(text, Protocol(2, 0, kind=LEAVE_ONE_OUT))
    (warning,) = data.manifest["warnings"]
    assert warning.startswith("100% of the ground truths begin with the item of the behaviour just before them")
    assert prepare_csv(text, Protocol(2, 0, kind=LEAVE_ONE_OUT, merge_repeats=True)).manifest["warnings"] == []


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ConfigError, match="protocol is 'random'; expected one of paper, leave-one-out, time-split"):
        Protocol(kind="random")
    with pytest.raises(ConfigError, match="protocol time-split with no time; expected a time with time-split"):
        Protocol(kind=TIME_SPLIT)
    with pytest.raises(ConfigError, match=r"protocol paper with the time '2021-01-01'; expected .* only with it"):
        Protocol(split_time="2021-01-01")
    with pytest.raises(ConfigError, match="split time is 'yesterday'; expected a date such as 2024-01-31, an ISO"):
        Protocol(kind=TIME_SPLIT, split_time="yesterday")


def test_too_few_users_for_a_protocol(prepare_csv):
    with pytest.raises(DataError, match="3 users have test ground truth and enough before it; expected 9: ask for few"):
        prepare_csv(LOG, Protocol(2, 1, 9, kind=LEAVE_ONE_OUT))
    with pytest.raises(
        DataError, match=r"2 users have validation ground truth .* expected 3: ask .* --validation-users"
    ):
        prepare_csv(LOG, Protocol(2, 3, 1, kind=LEAVE_ONE_OUT))
    with pytest.raises(DataError, match=r"no user has two behaviours or baskets to train on, .* give a longer log"):
        prepare_csv("user,item,time\n1,1,1\n1,2,2\n", Protocol(2, 0, 1, kind=LEAVE_ONE_OUT))
    message = r"no user has behaviours on both sides of --split-time 2021: 11 behaviours are before it and 0 are not"
    with pytest.raises(DataError, match=message):
        prepare_csv(LOG, Protocol(2, kind=TIME_SPLIT, split_time="2021"))


SPLIT_AT = 2
KINDS = {
    PAPER: Protocol(1, 1, 1),
    LEAVE_ONE_OUT: Protocol(1, 1, 2, kind=LEAVE_ONE_OUT),
    TIME_SPLIT: Protocol(1, 1, 2, kind=TIME_SPLIT, split_time=str(SPLIT_AT)),
}


def plain_groups(rows, with_baskets, cut):
    """User -> [(key, [(item, time), ...]), ...] by ascending key, in plain Python; a basket is cut at time `cut`."""
    users: dict[int, dict] = {}
    for place, (user, item, time, basket) in enumerate(rows):
        name = ((basket, cut is not None and time >= cut),) if with_baskets else place
        group = users.setdefault(user, {}).setdefault(name, ([time, place], []))
        group[0][0] = min(group[0][0], time)
        group[1].append((item, time))
    return {user: sorted(groups.values()) for user, groups in sorted(users.items())}


def prepared_rows(rows, with_baskets, protocol):
    frame = pl.DataFrame(rows, schema=["user", "item", "time", "basket"], orient="row")
    log = InteractionLog("log", (), (frame if with_baskets else frame.drop("basket")).lazy(), RowCounts(len(rows)))
    log = InteractionLog(log.name, log.sources, log.rows, log.counts, ticks_per_s=1)
    with tempfile.TemporaryDirectory() as folder:
        prepare(lambda scratch: log, Path(folder) / "out", protocol)
        return PreparedData.load(Path(folder) / "out")


small = st.integers(1, 4)
log_rows = st.lists(st.tuples(small, st.integers(1, 6), st.integers(-1, 5), small), min_size=12, max_size=60)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25)
@given(log_rows, st.booleans())
def test_nothing_known_comes_from_the_time_of_the_ground_truth(kind, rows, with_baskets):
    try:
        data = prepared_rows(rows, with_baskets, KINDS[kind])
    except DataError:
        assume(False)  # too few users with enough behaviours
    counts: Counter[int] = Counter()
    users = plain_groups(rows, with_baskets, SPLIT_AT if kind == TIME_SPLIT else None)
    for user, groups in enumerate(users.values()):
        events = [(key, item, time) for key, group in groups for item, time in group]
        first, end, train_end = data.user_first[user], data.user_end[user], data.user_train_end[user]
        assert items_of(data, first, end) == [item for _, item, _ in events]
        trained = events[: train_end - first]
        counts.update(item for _, item, _ in trained)
        targets = [data.user_targets[split][user] - first for split in ("validation", "test")]
        for begin, stop in (target for target in targets if target[1] > 0):
            known = [key for key, _, _ in [*trained, *events[:begin]]]
            assert begin > 0
            assert max(known) < min(key for key, _, _ in events[begin:stop])
        if kind == TIME_SPLIT:
            assert all(time < SPLIT_AT for _, _, time in trained)
            begin, stop = targets[1]
            assert all(time >= SPLIT_AT for _, _, time in events[begin:stop])
            assert all(time < SPLIT_AT for _, _, time in events[: max(begin, 0)])
    assert data.train_counts.tolist() == [counts[item] for item in data.item_ids.tolist()]
    assert np.array_equal(np.sort(np.unique([item for _, item, _, _ in rows])), data.item_ids)


@settings(max_examples=25)
@given(log_rows)
def test_merged_repeats_against_plain_python(rows):
    rows = [(user, item % 3 + 1, time, basket) for user, item, time, basket in rows]  # many repeats
    expected = {}
    for user, groups in plain_groups(rows, False, None).items():
        items = [group[0][0] for _, group in groups]
        expected[user] = [item for place, item in enumerate(items) if not place or item != items[place - 1]]
    total = sum(map(len, expected.values()))
    try:
        data = prepared_rows(rows, False, Protocol(1, 0, 1, kind=LEAVE_ONE_OUT, merge_repeats=True))
    except DataError:
        assume(False)
    rows_of = zip(data.user_ids, data.user_first, data.user_end, strict=True)
    found = {user: items_of(data, first, end) for user, first, end in rows_of}
    assert found == expected
    assert data.manifest["counts"]["merged_repeats"] == len(rows) - total


@settings(max_examples=25)
@given(log_rows)
def test_merged_repeats_within_baskets(rows):
    try:
        data = prepared_rows(rows, True, Protocol(1, 0, 1, kind=LEAVE_ONE_OUT, merge_repeats=True))
    except DataError:
        assume(False)
    pairs = Counter(zip(data.behavior_group_first.tolist(), data.behavior_items.tolist(), strict=True))
    assert set(pairs.values()) == {1}
    assert len(pairs) == len({(user, basket, item) for user, item, _, basket in rows})
    plain = [
        sorted({item for item, _ in group}) for groups in plain_groups(rows, True, None).values() for _, group in groups
    ]
    starts = np.flatnonzero(np.diff(np.append(-1, data.behavior_group_first)))
    merged = [sorted(part.tolist()) for part in np.split(data.item_ids[data.behavior_items], starts[1:])]
    assert sorted(merged) == sorted(plain)
