from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nann.errors import ConfigError, DataError
from nann.training.data.canonical_rows import LogColumns
from nann.training.data.custom_log import read_log
from nann.training.data.log_source import ProfileTable
from nann.training.data.prepare import prepare
from nann.training.data.prepared import PreparedData
from nann.training.data.protocol import Protocol

# Worked out by hand. min_behaviors 4 drops user 40 and with it item 999.
# user 10: items 7 5 7 6     (times 1 2 3 4)    l = 4, ceil(4 / 2) = 2nd: 5, after [7]
# user 20: items 5 8 6 7 8   (times 1 1 2 3 3)  l = 5, ceil(5 / 2) = 3rd: 6, after [5, 8]; ties keep the file's order
# user 30: items 8 8 8 8 8 5 (times 0..5)       l = 6, 3rd: 8, after [8, 8]
ITEM_LOG = """user,item,time,category
20,7,3,c
10,6,4,b
20,5,1,a
30,8,0,c
20,8,1,c
10,7,1,c
30,8,1,c
40,999,1,z
10,5,2,a
30,8,2,c
20,6,2,b
30,8,3,c
40,5,2,a
20,8,3,c
30,8,4,c
10,7,3,c
40,5,3,a
30,5,5,a
"""
ITEM_SEQUENCES = {10: [7, 5, 7, 6], 20: [5, 8, 6, 7, 8], 30: [8, 8, 8, 8, 8, 5]}
ITEM_TARGETS = {10: ([7], [5]), 20: ([5, 8], [6]), 30: ([8, 8], [8])}

# user 1: baskets b (time 1: items 1 2), a (times 5 and 6: 3 4), c (time 9: 5 5 6)
#         ceil(3 / 2) = 2nd: {3, 4}, after [1, 2]
# user 2: baskets a (time 2: 1; another than user 1's), d (time 2, later in the file: 2), e (time 3: 3 4), f (time 4: 5)
#         ceil(4 / 2) = 2nd: {2}, after [1]
# user 3: baskets g (1 2), h (3): too few to test on, so it trains
BASKET_LOG = """user,item,time,basket
1,3,5,a
2,1,2,a
1,5,9,c
1,1,1,b
2,2,2,d
1,4,6,a
3,1,1,g
1,2,1,b
2,5,4,f
2,3,3,e
3,2,1,g
1,5,9,c
2,4,3,e
3,3,2,h
1,6,9,c
"""


def sequence(data, user):
    return data.item_ids[data.behavior_items[data.user_first[user] : data.user_end[user]]].tolist()


def roles(data):
    """Each user's role in the paper's protocol, where every user has one: "train", "validation" or "test"."""
    train = np.where(data.user_train_end > data.user_first, "train", "")
    targets = [np.where(rows[:, 0] >= 0, name, "") for name, rows in data.user_targets.items()]
    return np.char.add(np.char.add(train, targets[0]), targets[1]).tolist()


def history_and_target(data, split):
    """Own user id -> (history, ground truth), in external ids."""
    queries = data.queries(split, length=4)
    return {
        data.user_ids[int(user)]: (
            queries.external_ids[query][queries.external_ids[query] > 0].tolist(),
            data.item_ids[queries.targets_of(query)].tolist(),
        )
        for query, user in enumerate(queries.users)
    }


def test_protocol_by_items(prepare_csv):
    seen = {}
    for seed in range(12):
        data = prepare_csv(ITEM_LOG, Protocol(4, 1, 1, seed))
        assert data.user_ids.to_list() == [10, 20, 30]
        assert {10 * (user + 1): sequence(data, user) for user in range(3)} == ITEM_SEQUENCES
        assert sorted(roles(data)) == ["test", "train", "validation"]
        seen |= history_and_target(data, "validation") | history_and_target(data, "test")
        trained = roles(data).index("train")
        assert [rows[trained].tolist() for rows in data.user_targets.values()] == [[-1, -1]] * 2
        counts = [ITEM_SEQUENCES[10 * (trained + 1)].count(item) for item in data.item_ids]
        assert data.train_counts.tolist() == counts
        first, end, users = data.training_groups()
        assert first.tolist() == list(range(data.user_first[trained] + 1, data.user_end[trained]))
        assert end.tolist() == (first + 1).tolist()
        assert users.tolist() == [trained] * len(first)
    assert seen == ITEM_TARGETS


def test_items_and_categories_are_numbered_by_sorted_id(prepare_csv):
    data = prepare_csv(ITEM_LOG, Protocol(4, 1, 1))
    assert data.item_ids.tolist() == [5, 6, 7, 8]
    assert data.item_categories.tolist() == [0, 1, 2, 2]
    assert data.category_count == 3
    assert data.item_names is None
    assert data.behavior_group_first.tolist() == list(range(15))
    counts = data.manifest["counts"]
    assert (counts["users"], counts["dropped_users"], counts["behaviors"]) == (3, 1, 15)
    assert prepare_csv(ITEM_LOG, Protocol(4, 1, 1, whole_corpus=True)).item_ids.tolist() == [5, 6, 7, 8, 999]


def test_protocol_by_baskets(prepare_csv):
    seen = {}
    for seed in range(12):
        data = prepare_csv(BASKET_LOG, Protocol(3, 1, 1, seed))
        assert [sequence(data, user) for user in range(3)] == [[1, 2, 3, 4, 5, 5, 6], [1, 2, 3, 4, 5], [1, 2, 3]]
        assert data.behavior_group_first.tolist() == [0, 0, 2, 2, 4, 4, 4, 7, 8, 9, 9, 11, 12, 12, 14]
        assert roles(data)[2] == "train"
        seen |= history_and_target(data, "validation") | history_and_target(data, "test")
        assert [column.tolist() for column in data.training_groups()] == [[14], [15], [2]]
    assert seen == {1: ([1, 2], [3, 4]), 2: ([1], [2])}
    assert (data.category_count, data.item_categories.tolist()) == (1, [0] * 6)


def test_targets_of_a_basket_are_unique(prepare_csv):
    text = "user,item,time,basket\n" + "".join(
        f"{user},{item},{time},{time}\n" for user in (1, 2) for item, time in [(3, 1), (9, 2), (4, 2), (9, 2), (5, 3)]
    )
    data = prepare_csv(text, Protocol(1, 1, 0))
    queries = data.queries("validation", 3)
    assert data.item_ids[queries.targets_of(0)].tolist() == [4, 9]
    assert queries.target_indptr.tolist() == [0, 2]


def naive(rows, min_behaviors):
    """Protocol in plain Python: user -> (ordered groups of items)."""
    users: dict[int, dict] = {}
    for place, (user, item, time, basket) in enumerate(rows):
        group = users.setdefault(user, {}).setdefault(place if basket is None else basket, [time, place, []])
        group[0] = min(group[0], time)
        group[2].append(item)
    ordered = {user: [group[2] for group in sorted(groups.values())] for user, groups in users.items()}
    return {user: groups for user, groups in sorted(ordered.items()) if sum(map(len, groups)) >= min_behaviors}


small = st.integers(1, 4)
log_rows = st.lists(st.tuples(small, st.integers(1, 6), st.integers(-2, 4), small), min_size=12, max_size=40)


@settings(max_examples=25)
@given(log_rows, st.booleans(), st.integers(0, 5))
def test_against_plain_python(rows, with_baskets, seed):
    rows = [(user, item, time, basket if with_baskets else None) for user, item, time, basket in rows]
    expected = naive(rows, 3)
    assume(len({item for groups in expected.values() for group in groups for item in group}) != 1)
    header = "user,item,time" + (",basket" if with_baskets else "")
    lines = [",".join(str(value) for value in row if value is not None) for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.csv"
        path.write_text("\n".join([header, *lines, ""]))
        columns = LogColumns(basket="basket" if with_baskets else None)
        eligible = sum(len(groups) >= 3 for groups in expected.values())
        protocol = Protocol(3, 1, 0, seed)
        out = Path(folder) / "out"
        if eligible < 1 or len(expected) < 2:
            with pytest.raises(DataError, match="users"):
                prepare(lambda scratch: read_log([path], columns, scratch), out, protocol)
            return
        prepare(lambda scratch: read_log([path], columns, scratch, batch_bytes=50), out, protocol)
        data = PreparedData.load(out)
    assert data.user_ids.to_list() == list(expected)
    for user, groups in enumerate(expected.values()):
        assert sequence(data, user) == [item for group in groups for item in group]
        starts = np.cumsum([0, *map(len, groups)])
        first = data.behavior_group_first[data.user_first[user] : data.user_end[user]] - data.user_first[user]
        assert first.tolist() == np.repeat(starts[:-1], np.diff(starts)).tolist()
        if (rows := data.user_targets["validation"][user])[0] >= 0:
            middle = -(-len(groups) // 2) - 1
            expected_rows = starts[middle : middle + 2] + data.user_first[user]
            assert rows.tolist() == expected_rows.tolist()


def many_users(count):
    return "user,item,time\n" + "".join(f"{user},{item},{item}\n" for user in range(1, count + 1) for item in (1, 2, 3))


def test_the_split_is_random_and_repeats_with_its_seed(prepare_csv):
    splits = [roles(prepare_csv(many_users(60), Protocol(3, 10, 20, seed))) for seed in (0, 0, 1)]
    assert [Counter(split) for split in splits] == [{"train": 30, "validation": 10, "test": 20}] * 3
    assert splits[0] == splits[1] != splits[2]
    assert splits[0] != sorted(splits[0])


def test_a_tenth_of_the_users_where_no_number_is_given(prepare_csv):
    assert Counter(roles(prepare_csv(many_users(60), Protocol(3)))) == {"train": 48, "validation": 6, "test": 6}
    assert Counter(roles(prepare_csv(many_users(4), Protocol(3)))) == {"train": 2, "validation": 1, "test": 1}


def test_too_few_users(prepare_csv):
    message = (
        "the log has 5 users with at least 3 behaviours, 5 of them .* expected 2 of these to validate on, 3 to test"
    )
    with pytest.raises(DataError, match=message):
        prepare_csv(many_users(5), Protocol(3, 2, 3))
    prepare_csv(many_users(6), Protocol(3, 2, 3))
    with pytest.raises(DataError, match=r"none of the log's 5 users has 4 behaviours \(the most active has 3\); lower"):
        prepare_csv(many_users(5), Protocol(4))


def test_protocol_numbers_are_checked():
    with pytest.raises(ConfigError, match="min_behaviors is 0; expected at least 1"):
        Protocol(0)
    with pytest.raises(ConfigError, match="test_users is -1; expected at least 0"):
        Protocol(test_users=-1)


def test_text_users_and_profiles_come_through(write, prepare_csv):
    text = "user,item,time\n" + "".join(f"{user},{item},{item}\n" for user in "cab" for item in (1, 2, 3))
    users = write("users.csv", "user,town,age\nb,Rome,old\na,Oslo,\nz,Bonn,new\n")
    data = prepare_csv(text, Protocol(3, 1, 1), profile=ProfileTable(users))
    assert data.user_ids.to_list() == ["a", "b", "c"]
    assert data.user_profiles.tolist() == [[2, 0], [3, 2], [0, 0]]
    assert [field["name"] for field in data.profile_fields] == ["town", "age"]
    queries = data.queries("test", 2)
    assert queries.profiles.tolist() == data.user_profiles[queries.users].tolist()


def test_categories_of_text_numbers_and_none(prepare_csv):
    text = "user,item,time,category\n" + "".join(
        f"{user},{item},{item},{label}\n" for user in (1, 2) for item, label in [(1, "b"), (2, ""), (3, "a"), (3, "b")]
    )
    data = prepare_csv(text, Protocol(3, 1, 0))
    assert data.item_categories.tolist() == [1, 2, 0]
    assert data.category_count == 3
    assert data.manifest["counts"]["items_of_several_categories"] == 1


def test_an_item_has_its_most_frequent_category_of_several_the_newest(prepare_csv):
    labels = {1: "aab", 2: "bba", 3: "ab", 4: "ba", 5: ["c", ""]}
    rows = [
        f"{user},{item},{time},{label}" for user in (1, 2) for item in labels for time, label in enumerate(labels[item])
    ]
    data = prepare_csv("\n".join(["user,item,time,category", *rows, ""]), Protocol(3, 1, 0))
    assert data.item_categories.tolist() == [0, 1, 1, 0, 2]
    counts = data.manifest["counts"]
    assert (counts["items_of_several_categories"], counts["stray_category_rows"], counts["categories_left_out"]) == (
        4,
        8,
        0,
    )
    assert data.manifest["warnings"][0] == (
        "8 rows give 4 items another category than most of their rows do: the most frequent one counts, of several the "
        "newest"
    )


def test_the_folder_holds_what_it_says(prepare_csv, tmp_path):
    data = prepare_csv(ITEM_LOG + "10,5,oops,a\n", Protocol(4, 1, 1), max_bad_share=0.1, name="shop")
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "attributes.parquet",
        "behaviors.parquet",
        "categories.parquet",
        "events.parquet",
        "histories",
        "items.parquet",
        "manifest.json",
        "users.parquet",
    ]
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["format_version"], manifest["name"]) == (2, "shop")
    assert manifest["protocol"]["min_behaviors"] == 4
    bad = "events.csv:20 (time (column 'time') is neither a number of seconds nor an ISO timestamp: 'oops')"
    assert manifest["rows"]["bad_examples"] == [bad]
    assert pl.read_parquet(out / "categories.parquet")["label"].to_list() == ["a", "b", "c"]
    assert pl.read_parquet(out / "behaviors.parquet").schema == {
        "user": pl.Int32,
        "item": pl.Int32,
        "group_first": pl.Int64,
    }
    assert data.manifest == manifest


def test_replaces_a_prepared_data_set_and_nothing_else(prepare_csv, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    prepare_csv(many_users(5), Protocol(3))
    assert prepare_csv(many_users(7), Protocol(3)).user_count == 7
    (out / "manifest.json").write_text('{"format_version": 2}')
    with pytest.raises(DataError, match="out exists and is no prepared data set; it is left as it is"):
        prepare_csv(many_users(5), Protocol(3))
    assert (out / "users.parquet").exists()


def test_refuses_a_file_as_folder(prepare_csv, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(DataError, match="out is a file; expected a folder"):
        prepare_csv(many_users(5), Protocol(3))


def test_a_failure_leaves_the_old_data_set_and_no_rest(prepare_csv, tmp_path):
    prepare_csv(many_users(5), Protocol(3))
    with pytest.raises(DataError, match="no column"):
        prepare_csv("a,b\n1,2\n", Protocol(3))
    assert PreparedData.load(tmp_path / "out").user_count == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.csv", "out"]
