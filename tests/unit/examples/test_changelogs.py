"""ChangeLogs of source trees as a log and a table of items, and that nothing personal is in them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cli_commands import nann

from examples.changelogs import Changes, hasher, main, make_log, read_trees
from nann.errors import ConfigError, DataError

ROOT = Path(__file__).resolve().parents[3]
KEY = "a key for tests only"
ADA, BOB = "2004-03-07  Ada Example  <ada@example.org>", "2004-03-08  Bob Example  <bob@example.org>"
PERSONAL = ("Ada", "ada", "Bob", "bob", "Example", "example.org")
WriteTrees = Callable[[dict[str, str]], Path]


@pytest.fixture
def write_trees(tmp_path: Path) -> WriteTrees:
    """Writes files below a folder of source trees."""

    def write(texts: dict[str, str]) -> Path:
        for name, text in texts.items():
            path = tmp_path / "trees" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path / "trees"

    return write


def two_trees(write_trees: WriteTrees) -> Path:
    """Two trees that share a folder, in which one of them is ahead."""
    shared = f"{ADA}\n\n\t* alloc.c, vec-2.h: New.\n"
    return write_trees(
        {
            "one-1.2/lib/ChangeLog": shared,
            "one-1.2/ChangeLog-2004": f"{ADA}\n\n\t* configure: Regenerate.\n\t* lib/alloc.c: Likewise.\n",
            "two/lib/ChangeLog": f"{BOB}\n\n\t* alloc.c: Fix.\n\n2004-13-01  Bob Example\n\n{shared}",
            "two/lib/notes": f"{ADA}\n\n\t* no-changelog.c: Not read.\n",
        }
    )


def test_two_trees_with_a_folder_in_common(write_trees):
    changes = read_trees(two_trees(write_trees), lambda name: name)
    log, items = make_log(changes)
    assert log.rows() == [
        ("ada example", 1, date(2004, 3, 7), 1, "."),
        ("ada example", 2, date(2004, 3, 7), 1, "lib"),
        ("ada example", 3, date(2004, 3, 7), 1, "lib"),
        ("bob example", 2, date(2004, 3, 8), 2, "lib"),
    ]
    assert log.schema == dict(zip(log.columns, (pl.String, pl.Int64, pl.Date, pl.Int64, pl.String), strict=True))
    assert items.rows(named=True) == [
        item(1, "configure", ".", [], "configure", ["one"], ["configure"]),
        item(2, "lib/alloc.c", "lib", ["lib"], ".c", ["one", "two"], ["alloc"]),
        item(3, "lib/vec-2.h", "lib", ["lib"], ".h", ["one", "two"], ["vec"]),
    ]
    assert changes.not_understood == ["two/lib/ChangeLog:5"]


def item(*values: object) -> dict[str, object]:
    names = ("item", "name", "directory", "folders", "type", "projects", "words")
    return dict(zip(names, values, strict=True))


def test_folders_and_words_of_a_path(write_trees):
    folder = write_trees({"one/a/ChangeLog": f"{ADA}\n\t* b/c/Some-name_x86.test.cc: New.\n"})
    items = make_log(read_trees(folder, str))[1].row(0, named=True)
    assert items["folders"] == ["a", "a/b", "a/b/c"]
    assert items["words"] == ["name", "some", "test", "x86"]
    assert items["type"] == ".cc"


triples = st.tuples(st.integers(0, 3), st.integers(0, 6), st.integers(0, 5))


@given(st.lists(triples, min_size=1, max_size=40), st.none() | st.integers(1, 4))
def test_the_log_holds_each_change_once(rows, max_basket):
    """Compared with sets in plain Python."""
    changes = Changes({f"u{code}": code for code in range(4)}, {f"d{code % 2}/{code}.c": code for code in range(7)})
    changes.trees = [{"tree"}] * 7
    for user, code, day in rows:
        changes.user.append(user)
        changes.code.append(code)
        changes.day.append(day)
    sizes = {(user, day): len({r[1] for r in rows if (r[0], r[2]) == (user, day)}) for user, _, day in rows}
    kept = {row for row in rows if max_basket is None or sizes[row[0], row[2]] <= max_basket}
    if not kept:
        with pytest.raises(DataError, match=r"no change is left of \d+ in 0 ChangeLogs; expected entries like .*raise"):
            make_log(changes, max_basket)
        return
    log, items = make_log(changes, max_basket)
    paths = dict(items.select("item", "name").iter_rows())
    codes = {number: changes.paths[path] for number, path in paths.items()}
    epoch = date(1970, 1, 1)
    found = [(int(user[1:]), codes[number], (day - epoch).days) for user, number, day, _, _ in log.iter_rows()]
    assert sorted(found) == sorted(kept)
    assert list(paths) == list(range(1, len({code for _, code, _ in kept}) + 1))
    assert log["time"].is_sorted()
    by_basket = log.group_by("basket").agg(pl.col("user", "time").n_unique())
    assert by_basket.height == len({(user, day) for user, _, day in kept})
    assert by_basket.select(pl.col("user", "time").max()).row(0) == (1, 1)
    assert all(category == paths[number].split("/")[0] for number, category in log.select("item", "category").rows())


def test_one_key_gives_the_same_users_and_another_gives_others():
    first, second = hasher(KEY.encode()), hasher(b"another key for tests")
    assert first("ada") == hasher(KEY.encode())("ada")
    assert len({first("ada"), first("bob"), second("ada"), second("bob")}) == 4
    assert all(len(hashed) == 16 and int(hashed, 16) >= 0 for hashed in map(first, ("ada", "bob")))


@pytest.mark.parametrize("key", [KEY, None])
def test_nothing_personal_is_written_or_printed(write_trees, tmp_path, capfd, key):
    main(two_trees(write_trees), tmp_path / "out", key)
    printed = "".join(capfd.readouterr())
    assert "two/lib/ChangeLog:5" in printed
    for name in ("log.parquet", "items.parquet"):
        frame = pl.read_parquet(tmp_path / "out" / name)
        printed += frame.write_json()
    assert '"name":"lib/alloc.c"' in printed
    for word in PERSONAL:
        assert word not in printed


def test_without_a_key_each_run_has_its_own(write_trees, tmp_path):
    folder = two_trees(write_trees)
    for out in ("a", "b"):
        main(folder, tmp_path / out)
    first, second = (set(pl.read_parquet(tmp_path / out / "log.parquet")["user"]) for out in ("a", "b"))
    assert len(first) == len(second) == 2
    assert not first & second


def test_the_log_is_accepted_by_prepare(write_trees, tmp_path):
    days = "".join(
        f"2004-01-{day:02}  Dev{user} X\n\n\t* f{day % 7}.c, g{user}.h: Fix.\n\n"
        for user in range(9)
        for day in range(1, 9)
    )
    main(write_trees({"one/lib/ChangeLog": days}), tmp_path / "out", KEY)
    log, items = tmp_path / "out/log.parquet", tmp_path / "out/items.parquet"
    columns = ("--basket", "basket", "--category", "category", "--items", items, "--items-name", "name")
    protocol = ("--protocol", "leave-one-out", "--include-history")
    ended = nann("prepare", "log", log, *columns, *protocol, "--out", tmp_path / "data", "--json")
    assert ended.code == 0, ended.stderr
    counts = ended.json["counts"]
    assert (counts["users"], counts["items"], counts["behaviors"], counts["groups"]) == (9, 16, 144, 72)


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_without_changelogs(tmp_path, exists):
    folder = tmp_path / "trees"
    if exists:
        (folder / "empty").mkdir(parents=True)
        (folder / "ChangeLog").write_text(f"{ADA}\n\t* a.c: In no source tree.\n")
    with pytest.raises(DataError, match=r"trees holds no folder with a file ChangeLog; expected one folder for each"):
        read_trees(folder, str)


def test_a_short_key(tmp_path):
    with pytest.raises(ConfigError, match=r"--key has 5 characters; expected at least 16: names can be guessed"):
        main(tmp_path, tmp_path / "out", "short")


def test_an_error_ends_the_command_with_one_line(tmp_path):
    command = [sys.executable, "-m", "examples.changelogs", str(tmp_path), "--out", str(tmp_path / "out")]
    ended = subprocess.run(command, cwd=ROOT, env={**os.environ, "COLUMNS": "200"}, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: {tmp_path} holds no folder with a file ChangeLog")
    assert not (tmp_path / "out").exists()
