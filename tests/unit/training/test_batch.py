"""`nann batch`: the users of a job, its parts, and its answers in this process."""

import json

import numpy as np
import polars as pl
import pytest
from support import live_bundle
from support.cli_commands import nann
from support.reference import OfflineEnsemble

from nann.errors import DataError
from nann.item_ids import NUMBERS, TEXT
from nann.training.batch.answers import Answers
from nann.training.batch.histories import Histories, read_histories, read_users
from nann.training.batch.parts import Parts, write_parts

USERS = 150


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return live_bundle.make_bundle(tmp_path_factory.mktemp("batch") / "bundle")


@pytest.fixture(scope="module")
def lists():
    rng = np.random.default_rng(2)
    ids = live_bundle.item_ids()[10:]
    return {user: ids[rng.integers(0, len(ids), rng.integers(0, 30))].tolist() for user in range(1, USERS + 1)}


@pytest.fixture(scope="module")
def table(lists, tmp_path_factory):
    path = tmp_path_factory.mktemp("users") / "histories.jsonl"
    path.write_text("".join(json.dumps({"user": user, "items": items}) + "\n" for user, items in lists.items()))
    return path


def batch(table, bundle, out, *options):
    return nann("batch", "--histories", table, "--bundle", bundle.path, "--out", out, *options)


def read(out):
    return pl.read_parquet(out / "answers")


def test_every_user_gets_the_answer_of_the_search_in_the_order_of_the_table(table, bundle, lists, tmp_path):
    ended = batch(table, bundle, tmp_path / "out", "--part-users", 64, "--json")
    assert ended.code == 0, ended.stderr
    assert (ended.json["users"], ended.json["answered"], ended.json["job"]["bundle_id"]) == (
        USERS,
        USERS,
        bundle.bundle_id,
    )
    assert sorted(path.name for path in (tmp_path / "out" / "answers").iterdir()) == [
        "part-0000000000-0000000063.parquet",
        "part-0000000064-0000000127.parquet",
        "part-0000000128-0000000149.parquet",
    ]
    answers = read(tmp_path / "out")
    assert answers.schema == {"user": pl.Int64, "item_ids": pl.List(pl.Int64), "scores": pl.List(pl.Float32)}
    assert answers["user"].to_list() == list(lists)
    offline = OfflineEnsemble(bundle)
    for user, item_ids, scores in answers.iter_rows():
        ids, expected, _ = offline.retrieve(lists[user] or [0])
        assert item_ids == ids.tolist()
        np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)


def test_conditions_and_search_options(table, bundle, lists, tmp_path):
    options = ("--exclude-history", "--filter", "available", "--top-k", 30, "--ef", "20,40,90")
    assert batch(table, bundle, tmp_path / "out", *options).code == 0
    available = set(live_bundle.item_ids()[np.array(live_bundle.attributes()["available"])].tolist())
    for user, item_ids, scores in read(tmp_path / "out").iter_rows():
        assert len(item_ids) == len(set(item_ids)) == 30
        assert set(item_ids) <= available - set(lists[user]), "the whole history, not what the model reads of it"
        assert sorted(scores, reverse=True) == scores


def test_answers_are_without_padding(table, bundle, tmp_path):
    allowed = 'tag = "adult" and price < 10'
    assert batch(table, bundle, tmp_path / "out", "--filter", allowed).code == 0
    attributes = live_bundle.attributes()
    count = sum("adult" in tags and price is not None and price < 10
                for tags, price in zip(attributes["tag"], attributes["price"], strict=True))  # fmt: skip
    assert 0 < count < 20
    assert read(tmp_path / "out")["item_ids"].list.len().unique().to_list() == [count]


def test_users_of_a_list(table, bundle, lists, tmp_path):
    (tmp_path / "users").write_text("17\n3\n\n")
    assert batch(table, bundle, tmp_path / "out", "--users", tmp_path / "users").code == 0
    assert read(tmp_path / "out")["user"].to_list() == [17, 3]
    (tmp_path / "users").write_text("17\nnobody\n")
    ended = batch(table, bundle, tmp_path / "other", "--users", tmp_path / "users")
    assert (ended.code, "1 of 2 users have no history, the first is 'nobody'" in ended.stderr) == (2, True)


def test_a_job_goes_on_where_it_was_interrupted(table, bundle, tmp_path):
    out, whole = tmp_path / "out", tmp_path / "whole"
    assert batch(table, bundle, out, "--part-users", 20).code == 0
    assert batch(table, bundle, whole).code == 0
    kept, *removed = sorted((out / "answers").iterdir())
    written = kept.stat().st_mtime_ns
    for path in removed:
        path.unlink()
    ended = batch(table, bundle, out, "--part-users", 20, "--json")
    assert (ended.json["users"], ended.json["answered"]) == (USERS, USERS - 20)
    assert "20 were there before" in " ".join(ended.stdout.split())
    assert kept.stat().st_mtime_ns == written
    assert read(out).select("user", "item_ids").equals(read(whole).select("user", "item_ids"))


@pytest.mark.parametrize(
    ("options", "name"),
    [(("--top-k", 5), "search"), (("--exclude-history",), "options"), (("--part-users", 7), "part_users")],
)
def test_another_job_is_refused_in_the_same_folder(table, bundle, tmp_path, options, name):
    assert batch(table, bundle, tmp_path / "out").code == 0
    ended = batch(table, bundle, tmp_path / "out", *options)
    assert ended.code == 2
    assert f"holds answers of another job: its {name} is" in ended.stderr
    assert "give another folder, or remove this one" in ended.stderr


def test_other_users_and_another_bundle_are_another_job(table, bundle, tmp_path):
    assert batch(table, bundle, tmp_path / "out").code == 0
    other = live_bundle.make_bundle(tmp_path / "other", seed=2)
    assert "its bundle_id is" in batch(table, other, tmp_path / "out").stderr
    (tmp_path / "users").write_text("17\n")
    assert "its users_hash is" in batch(table, bundle, tmp_path / "out", "--users", tmp_path / "users").stderr


def test_a_folder_of_something_else_is_left_alone(table, bundle, tmp_path):
    (tmp_path / "mine").write_text("mine")
    ended = batch(table, bundle, tmp_path)
    assert (ended.code, "is not empty, and holds no batch job" in ended.stderr) == (2, True)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "job.json").write_text("[")
    assert "job.json can't be read" in batch(table, bundle, tmp_path / "damaged").stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "the users come from --histories or from --data; expected one of them"),
        (("--data", "a", "--histories", "b"), "the users come from --histories or from --data"),
        (("--histories", "b"), "the answers come from --bundle or from --url; expected one of them"),
        (("--histories", "b", "--bundle", "c", "--url", "d:1"), "the answers come from --bundle or from --url"),
        (("--histories", "b", "--url", "d:1", "--workers", 2), "--workers goes with --bundle"),
        (("--histories", "b", "--bundle", "c", "--ray", "auto"), "--ray with --workers"),
        (("--histories", "b", "--bundle", "nowhere"), "nowhere is not a bundle"),
    ],
)
def test_options_that_do_not_fit(tmp_path, options, message):
    ended = nann("batch", "--out", tmp_path / "out", *options)
    assert (ended.code, message in ended.stderr.replace("\n", " ")) == (2, True), ended.stderr
    assert not (tmp_path / "out").exists()


def test_a_filter_that_can_not_be_read_is_told_before_anything_is_written(table, bundle, tmp_path):
    ended = batch(table, bundle, tmp_path / "out", "--filter", "nothing = 5")
    assert (ended.code, "parameter filter" in ended.stderr) == (2, True)
    assert not (tmp_path / "out").exists()


def test_items_that_the_bundle_does_not_know_are_counted(bundle, tmp_path):
    table = tmp_path / "h.csv"
    known = live_bundle.item_ids()[20]
    table.write_text(f'user,items\n1,"{known},999999"\n2,999998\n3,{known}\n')
    ended = batch(table, bundle, tmp_path / "out", "--part-users", 2, "--json")
    assert ended.json["unknown_items"] == 2
    assert "the bundle does not know 2 items of their histories, which count for nothing" in ended.stderr
    table.write_text(f"user,items\n3,{known}\n")
    assert "does not know" not in batch(table, bundle, tmp_path / "known").stderr


def test_text_ids(tmp_path):
    bundle = live_bundle.make_bundle(tmp_path / "bundle", texts=True)
    texts = live_bundle.text_ids()
    pl.DataFrame({"user": ["ann", "bob"], "items": [[texts[20], texts[30]], []]}).write_parquet(tmp_path / "h.parquet")
    assert batch(tmp_path / "h.parquet", bundle, tmp_path / "out").code == 0
    answers = read(tmp_path / "out")
    assert answers.schema == {"user": pl.String, "item_ids": pl.List(pl.String), "scores": pl.List(pl.Float32)}
    assert answers["user"].to_list() == ["ann", "bob"]
    behaviors = bundle.features.item_indices(np.array([[texts[20], texts[30]]], object))
    ids = live_bundle.item_ids()[behaviors[0]].tolist()
    numbers = live_bundle.make_bundle(tmp_path / "numbers")
    expected, _, _ = OfflineEnsemble(numbers).retrieve(ids)
    places = numbers.features.item_indices(expected[None])[0]
    assert answers["item_ids"][0].to_list() == [bundle.id_kind.plain(bundle.item_ids)[place] for place in places]


class TestHistories:
    ROWS = ([1, 2, 3], [[11, 12], [], [13]])

    def check(self, found):
        assert found.users.to_list() == self.ROWS[0]
        assert [items.tolist() for items in found.lists()] == self.ROWS[1]

    def test_the_same_users_from_each_format(self, tmp_path):
        rows = pl.DataFrame({"user": self.ROWS[0], "items": self.ROWS[1]})
        rows.write_parquet(tmp_path / "h.parquet")
        (tmp_path / "h.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows.iter_rows(named=True)))
        (tmp_path / "h.csv").write_text('user,items\n1,"11,12"\n2,\n3,13\n')
        digests = set()
        for name in ("h.parquet", "h.jsonl", "h.csv"):
            found = read_histories(tmp_path / name, NUMBERS)
            self.check(found)
            digests.add(found.digest)
        assert len(digests) == 1

    def test_several_files(self, tmp_path):
        for number in (1, 2):
            pl.DataFrame({"user": [number], "items": [[number]]}).write_parquet(tmp_path / f"{number}.parquet")
        assert read_histories(tmp_path, NUMBERS).users.to_list() == [1, 2]

    def test_users_are_numbers_only_if_all_are_written_so(self, tmp_path):
        (tmp_path / "h.csv").write_text('user,items\n007,"11,12"\n8,13\n')
        assert read_histories(tmp_path / "h.csv", NUMBERS).users.to_list() == ["007", "8"]
        pl.DataFrame({"user": [1, 2**64 - 1], "items": [[1], [2]]}, schema_overrides={"user": pl.UInt64}).write_parquet(
            tmp_path / "h"
        )
        assert read_histories(tmp_path / "h", NUMBERS).users.to_list() == ["1", str(2**64 - 1)]

    def test_texts_with_commas(self, tmp_path):
        (tmp_path / "h.csv").write_text('user,items\n1,"sku-1,""a,b"""\n')
        assert read_histories(tmp_path / "h.csv", TEXT).item_ids.tolist() == ["sku-1", "a,b"]

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ({"user": [1, 1], "items": [[1], [2]]}, "user 1 occurs twice; expected each user once"),
            ({"user": [1, None], "items": [[1], [2]]}, "row 1 has no user; expected one user a row"),
            ({"user": ["x", ""], "items": [[1], [2]]}, "row 1 has no user; expected one user a row"),
            ({"user": [1], "items": [5]}, "items is Int64; expected lists of item ids"),
            ({"user": [1], "items": [["x"]]}, "items can't be read: .*expected whole numbers"),
            ({"user": [1], "items": [[1.5]]}, "items holds List.Float64.; expected whole numbers"),
            ({"user": [1], "item": [[1]]}, "has no column 'items' .a list of item ids, oldest first."),
        ],
    )
    def test_tables_that_are_refused(self, tmp_path, rows, message):
        pl.DataFrame(rows, strict=False).write_parquet(tmp_path / "h.parquet")
        with pytest.raises(DataError, match=message):
            read_histories(tmp_path / "h.parquet", NUMBERS)

    def test_files_of_users_that_are_refused(self, tmp_path):
        with pytest.raises(DataError, match=r"users can't be read .*expected one user a line"):
            read_users(tmp_path / "users")
        (tmp_path / "users").write_text("\n \n")
        with pytest.raises(DataError, match="users names no user; expected one a line"):
            read_users(tmp_path / "users")

    def test_a_part_of_them(self):
        whole = Histories(
            pl.Series([5, 6, 7]), np.array([0, 2, 2, 3]), np.array([11, 12, 13]), np.array([[1], [2], [3]])
        )
        part = whole[1:3]
        assert (part.users.to_list(), part.profiles.tolist()) == ([6, 7], [[2], [3]])
        assert [items.tolist() for items in part.lists()] == [[], [13]]
        assert whole.padded(NUMBERS).tolist() == [[11, 12], [0, 0], [0, 13]]
        chosen = whole.of_users(["7", "5"])
        assert (chosen.users.to_list(), chosen.profiles.tolist()) == ([7, 5], [[3], [1]])
        assert [items.tolist() for items in chosen.lists()] == [[13], [11, 12]]
        with pytest.raises(DataError, match="user 7 occurs twice"):
            whole.of_users(["7", "7"])
        assert len({whole.digest, part.digest, chosen.digest}) == 3


def test_what_was_answered_is_kept_if_the_next_part_fails(tmp_path):
    histories = Histories(pl.Series("user", range(6)), np.arange(7), np.arange(6))
    parts = Parts.open(tmp_path / "out", 6, 2, {"x": 1})

    def answers(blocks):
        for block in blocks:
            if block.users[0] == 4:
                raise DataError("broken")
            yield Answers(block.item_ids[:, None] + 100, np.ones((len(block), 1), np.float32), 0)

    with pytest.raises(DataError, match="broken"):
        write_parts(parts, histories, 1, answers)
    assert read(tmp_path / "out")["item_ids"].to_list() == [[100], [101], [102], [103]]
    assert parts.missing() == [range(4, 6)]


def test_a_part_is_not_written_if_its_answers_may_not_be_kept(tmp_path):
    histories = Histories(pl.Series("user", range(2)), np.arange(3), np.arange(2))
    parts = Parts.open(tmp_path / "out", 2, 2, {})

    def check():
        raise DataError("another bundle by now")

    def answers(blocks):
        return (Answers(block.item_ids[:, None], np.ones((len(block), 1), np.float32), 0) for block in blocks)

    with pytest.raises(DataError, match="another bundle by now"):
        write_parts(parts, histories, 2, answers, check=check)
    assert parts.missing() == [range(2)]
