"""The histories that are served are those that a model is trained on: the same log, prepared and loaded as events."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from support.cli_commands import nann
from support.redis_server import running_redis

from nann.features import FeatureTransform
from nann.histories import FileHistories, StoredRows
from nann.python_backend.histories.opening import open_histories
from nann.training.data.prepared import PreparedData

LENGTH = 12
"""Behaviours that the model reads; most users have more."""


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


def log(*, texts=False, baskets=False):
    """Rows in no order, with equal times, repeats, users of few behaviours, and baskets that last a while."""
    rng = np.random.default_rng(5)
    counts = rng.integers(1, 60, 40)
    users = np.repeat(np.arange(1, 41), counts)
    rows = pl.DataFrame(
        {
            "user": users,
            "item": rng.integers(1, 15, users.size),
            "time": 1_700_000_000 + rng.integers(0, 40, users.size),
        }
    ).sample(fraction=1.0, shuffle=True, seed=3)
    if baskets:
        rows = rows.with_columns(basket=pl.Series(rng.integers(0, 9, users.size)))
    if texts:
        rows = rows.with_columns(pl.format("u {}", "user").alias("user"), pl.format("sku:{}", "item").alias("item"))
    return rows


def behaviors(store, users, features):
    """What the model reads of the stored histories, `int32[U, LENGTH]`."""
    found = store.read([str(user).encode() for user in users])
    assert None not in found
    ids = StoredRows(found, np.zeros(len(found), bool)).before(None, features.id_kind, 1_000)
    return features.behaviors(ids)[0]


@pytest.mark.parametrize("options", [(), ("--merge-repeats",)], ids=["all", "merged"])
@pytest.mark.parametrize("given", [{}, {"texts": True}, {"baskets": True}], ids=["numbers", "texts", "baskets"])
def test_the_store_gives_what_the_data_set_has(tmp_path, redis, given, options):
    rows = log(**given)
    rows.write_csv(tmp_path / "log.csv")
    if given.get("baskets"):
        options += ("--basket", "basket")
    prepared = nann("prepare", "log", tmp_path / "log.csv", "--out", tmp_path / "data", "--min-behaviors", 5, *options)
    assert prepared.code == 0, prepared.stderr
    data = PreparedData.load(tmp_path / "data")
    assert 0 < data.user_count < 40
    redis.client.flushall()
    for to in (redis.url, tmp_path / "store"):
        for added in (True, False):  # again: nothing changes
            sent = nann("events", tmp_path / "log.csv", "--to", to, "--json", *options)
            assert sent.code == 0, sent.stderr
            assert sent.json["added"] == (sent.json["events"] if added else 0)
    features = FeatureTransform(data.item_ids, LENGTH)
    fewer = FeatureTransform(data.item_ids[::2], LENGTH)
    everyone = data.contexts(data.user_first, data.user_end, LENGTH)
    whole = data.contexts(data.user_first, data.user_end, 60)
    of_prepare = FileHistories(tmp_path / "data" / "histories")
    assert of_prepare.user_count == 40, "also those with too few behaviours to train on"
    for store in (of_prepare, FileHistories(tmp_path / "store"), open_histories(redis.url, 5.0)):
        np.testing.assert_array_equal(behaviors(store, data.user_ids, features), everyone)
        known = behaviors(store, data.user_ids, fewer)
        for row, items in enumerate(whole):
            left = [item // 2 for item in items.tolist() if item >= 0 and item % 2 == 0][-LENGTH:]
            assert known[row].tolist() == [-1] * (LENGTH - len(left)) + left
        few = rows.filter(~pl.col("user").is_in(data.user_ids.implode()))["user"].unique().to_list()
        np.testing.assert_array_equal(behaviors(store, few, features), behaviors(of_prepare, few, features))
        store.close()


def test_days_may_come_in_any_order_and_from_standard_input(tmp_path, redis, monkeypatch):
    rows = log()
    redis.client.flushall()
    days = [rows.filter(pl.col("time") % 40 // 10 == day) for day in (2, 0, 3, 1, 2)]
    for place, day in enumerate(days):
        day.write_ndjson(tmp_path / f"{place}.jsonl")
        with (tmp_path / f"{place}.jsonl").open("rb") as stream:
            monkeypatch.setattr("sys.stdin", type("Input", (), {"buffer": stream}))
            assert nann("events", "-", "--to", redis.url).code == 0
    rows.write_parquet(tmp_path / "log.parquet")
    assert nann("events", tmp_path / "log.parquet", "--to", tmp_path / "store").code == 0
    users = [b"%d" % user for user in range(1, 41)]
    expected = [one.item_ids.astype("S").tolist() for one in FileHistories(tmp_path / "store").read(users)]
    store = open_histories(redis.url, 5.0)
    assert [one.item_ids.tolist() for one in store.read(users)] == expected
    store.close()


def test_a_folder_is_copied_with_its_profiles(tmp_path, redis):
    log().write_csv(tmp_path / "log.csv")
    (tmp_path / "users.csv").write_text("user,town\n" + "".join(f"{user},t{user % 3}\n" for user in range(1, 41)))
    options = (
        "--out",
        tmp_path / "data",
        "--profile",
        tmp_path / "users.csv",
        "--validation-users",
        2,
        "--test-users",
        2,
    )
    prepared = nann("prepare", "log", tmp_path / "log.csv", *options)
    assert prepared.code == 0, prepared.stderr
    redis.client.flushall()
    copied = nann("events", tmp_path / "data" / "histories", "--to", redis.url, "--json")
    assert (copied.code, copied.json["users"]) == (0, 40)
    users = [b"%d" % user for user in range(1, 41)]
    store = open_histories(redis.url, 5.0)
    for user, one, other in zip(
        users, store.read(users), FileHistories(tmp_path / "data" / "histories").read(users), strict=True
    ):
        assert one.item_ids.tolist() == other.item_ids.astype("S").tolist()
        assert one.profile.tolist() == other.profile.tolist() == [1 + int(user) % 3]
    store.close()
    ended = nann("events", tmp_path / "data" / "histories", tmp_path / "log.csv", "--to", redis.url)
    assert "2 files are given, and one is a folder of histories; expected it alone" in ended.stderr
