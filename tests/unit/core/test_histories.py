import json
import shutil
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.history_events import events_of

from nann.errors import ConfigError, DataError, HistoryError
from nann.histories import FileHistories, ids_of_kind, is_histories, merged
from nann.histories.file_histories import write_histories
from nann.item_ids import NUMBERS, TEXT

BATCHES = st.lists(st.lists(st.tuples(st.integers(0, 6), st.sampled_from([b"1", b"2", b"3"])), max_size=6), max_size=5)


def in_time(batch):
    return sorted(batch, key=lambda event: event[0])


@given(BATCHES, st.integers(1, 8))
def test_the_same_again_changes_nothing_and_no_more_is_kept_than_the_limit(batches, limit):
    stored, seen = [], Counter()
    for batch in map(in_time, batches):
        before = len(stored)
        stored, added = merged(stored, batch, limit)
        assert merged(stored, batch, limit) == (stored, 0)
        assert stored == in_time(stored)
        assert len(stored) <= min(limit, before + added)
        seen |= Counter(batch)
    for batch in map(in_time, batches):
        assert merged(stored, batch, limit) == (stored, 0)
    newest = [event[0] for event in in_time(seen.elements())][-limit:]
    if len(newest) < limit:  # nothing was ever left out
        assert [event[0] for event in stored] == newest
        assert Counter(stored) == seen


@given(BATCHES)
def test_what_comes_in_order_is_stored_in_order(batches):
    whole = in_time([event for batch in batches for event in batch])
    cuts = [[event for event in whole if event[0] // 3 == part] for part in range(3)]
    stored = []
    for part in cuts:
        stored, added = merged(stored, part, 4)
        assert added == min(len(part), 4)
    assert stored == whole[-4:]


def test_equal_times_keep_their_order_and_count():
    old = [(5, b"b"), (5, b"a"), (5, b"a")]
    assert merged(old, [(5, b"a"), (5, b"c"), (5, b"b"), (5, b"b")], 9) == ([*old, (5, b"c"), (5, b"b")], 2)
    assert merged(old, [(1, b"x"), (4, b"y")], 3) == (old, 0)
    assert merged(old, [(1, b"x"), (4, b"y"), (6, b"z")], 4) == ([*old, (6, b"z")], 1)


@pytest.fixture
def folder(tmp_path):
    write_histories(
        tmp_path / "store", events_of({b"17": [(1, 11), (2, 12), (3, 13)], b"4": [(9, 14)]}, [[1, 2], [3, 0]])
    )
    return tmp_path / "store"


def read(store, *users):
    return [None if one is None else one.item_ids.tolist() for one in store.read([user.encode() for user in users])]


def test_a_folder_is_read_by_user(folder):
    store = FileHistories(folder)
    assert read(store, "4", "17", "5", "170", "", "1\0", "17\0", "u" * 300) == [[14], [11, 12, 13], *[None] * 6]
    assert [one.profile.tolist() for one in store.read([b"17", b"4"])] == [[1, 2], [3, 0]]
    assert (store.user_count, read(store)) == (2, [])
    assert [user for user, _ in store.events().each()] == [b"17", b"4"]
    store.close()


def test_behaviours_are_added_and_the_rest_stays(folder):
    store, other = FileHistories(folder), FileHistories(folder)
    assert store.append(events_of({b"17": [(3, 13), (2, 12)][::-1], b"9": [(1, 15)]})) == 1
    assert read(store, "17", "9", "4") == [[11, 12, 13], [15], [14]]
    assert read(other, "9") == [[15]], "a server reads what another process wrote"
    assert [one.profile.tolist() for one in store.read([b"17", b"9"])] == [[1, 2], [0, 0]]
    assert store.append(events_of({b"9": [(2, b"sku-1")]})) == 1
    assert read(store, "17", "9") == [[b"11", b"12", b"13"], [b"15", b"sku-1"]]
    assert store.append(events_of({b"9": []}, [[7]])) == 0
    assert [one.profile.tolist() for one in store.read([b"17", b"9"])] == [[0], [7]], "codes of another data set"


def test_the_newest_are_kept(tmp_path):
    write_histories(tmp_path / "few", events_of({b"a": [(time, time) for time in range(1, 6)], b"b": []}), limit=3)
    store = FileHistories(tmp_path / "few")
    assert read(store, "a", "b") == [[3, 4, 5], []]
    assert store.append(events_of({b"a": [(2, 2), (6, 6)]})) == 1
    assert read(store, "a") == [[4, 5, 6]]
    with pytest.raises(ConfigError, match="limit is 0; expected at least 1 behaviour for each user"):
        write_histories(tmp_path / "none", events_of({}), limit=0)


def test_an_empty_store_takes_texts(tmp_path):
    write_histories(tmp_path / "empty", events_of({}))
    store = FileHistories(tmp_path / "empty")
    assert read(store, "a") == [None]
    assert store.append(events_of({b"a": [(1, b"x y"), (1, "ü".encode())]})) == 2
    assert read(store, "a") == [[b"x y", "ü".encode()]]


def test_a_folder_that_another_process_takes_away(folder):
    store = FileHistories(folder)
    shutil.rmtree(folder)
    assert read(store, "4") == [[14]]
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(HistoryError, match="is no store of histories"):
        store.read([b"4"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda at: (at / "manifest.json").unlink(), "is no store of histories: manifest.json can't be read"),
        (lambda at: (at / "manifest.json").write_text("[]"), "is no store of histories: its manifest.json is another"),
        (lambda at: edit(at, format_version=9), "has format version 9; this release reads 1: make it again"),
        (lambda at: edit(at, users=3), "damaged store of histories: its arrays have 2 users and 4 behaviours"),
        (lambda at: edit(at, profile_fields=3), r"damaged store of histories: profiles.npy has shape \[2, 2\]"),
        (
            lambda at: edit(at, text_items=True),
            "damaged store of histories: .*item_ids.npy holds int64.*; make it again",
        ),
        (lambda at: (at / "times.npy").write_bytes(b"x"), "damaged store of histories: .*times.npy can't be read"),
        (lambda at: np.save(at / "indptr.npy", np.array([0, 5, 4])), "damaged store of histories: its arrays"),
    ],
)
def test_damaged_folders_are_refused(folder, change, message):
    change(folder)
    with pytest.raises(DataError, match=message):
        FileHistories(folder)


def edit(folder, **changes):
    manifest = json.loads((folder / "manifest.json").read_text()) | changes
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_other_folders_and_users_are_refused(tmp_path):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(DataError, match="exists and is no store of histories; it is left as it is"):
        write_histories(tmp_path, events_of({}))
    assert not is_histories(tmp_path)
    for user in ("", "a\0", "u" * 257):
        with pytest.raises(DataError, match=r"a user id is .*; expected 1 to 256 bytes of UTF-8 without NUL"):
            write_histories(tmp_path / "new", events_of({user.encode(): [(1, 1)]}))


def test_ids_as_a_bundle_has_them():
    assert ids_of_kind(NUMBERS, [b"11", b"12"]).tolist() == [11, 12]
    largest = b"%d" % (2**63 - 1)  # 19 digits, as many as ids made from a clock have
    assert ids_of_kind(NUMBERS, [b"11", largest, b"%d" % (2**63)]).tolist() == [11, 2**63 - 1, -2]
    unknown = ids_of_kind(NUMBERS, np.array([b"11", b"sku", b"", b"9" * 30, "³".encode()])).tolist()
    assert (unknown[0], {*unknown[1:]}) == (11, {-2})
    assert not NUMBERS.is_padding(np.array(unknown)).any()
    assert ids_of_kind(TEXT, np.array([11, 12])).tolist() == [b"11", b"12"]
    assert ids_of_kind(TEXT, np.array([b"a", b"bc"])).tolist() == [b"a", b"bc"]
    assert ids_of_kind(NUMBERS, np.array([11, 12])).dtype == np.int64
