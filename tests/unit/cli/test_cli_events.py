"""`nann events`: what it reads, what it says, and what it refuses."""

import io

import pytest
from support.cli_commands import nann, refused

from nann.histories import FileHistories

LOG = """uid,sku,at,kind
17,5,2024-01-02,buy
17,6,2024-01-01,buy
17,7,2024-01-03,view
9,8,2024-01-01,buy
9,,2024-01-02,buy
"""
COLUMNS = ("--user", "uid", "--item", "sku", "--time", "at", "--event-column", "kind", "--events", "buy")


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(LOG)
    return path


def stored(folder):
    return {user: [item for _, item in events] for user, events in FileHistories(folder).events().each()}


def test_rows_are_read_as_prepare_reads_them(log, tmp_path):
    ended = nann("events", log, "--to", tmp_path / "store", *COLUMNS, "--max-bad-share", 0.5, "--json")
    assert ended.code == 0, ended.stderr
    body = ended.json
    assert stored(tmp_path / "store") == {b"17": [b"6", b"5"], b"9": [b"8"]}
    assert {key: body[key] for key in ("rows", "bad", "filtered", "repeats", "users", "events", "added")} == {
        **{"rows": 5, "bad": 1, "filtered": 1, "repeats": 0},
        **{"users": 2, "events": 3, "added": 3},
    }
    assert "3 of 3 behaviours of 2 users are new in" in ended.stderr
    again = nann("events", log, "--to", tmp_path / "store", *COLUMNS, "--max-bad-share", 0.5)
    assert "0 of 3 behaviours of 2 users are new in" in again.stderr


def test_a_new_folder_has_the_limit_that_is_asked_for(log, tmp_path):
    options = (*COLUMNS[:6], "--max-bad-share", 0.5)
    assert nann("events", log, "--to", tmp_path / "store", "--limit", 2, *options).code == 0
    assert stored(tmp_path / "store")[b"17"] == [b"5", b"7"]
    again = nann("events", log, "--to", tmp_path / "store", *options)
    assert "or older than the newest 2 of a user" in again.stderr


def test_an_existing_folder_keeps_its_limit_and_a_copy_has_another(log, tmp_path):
    options, store = (*COLUMNS[:6], "--max-bad-share", 0.5), tmp_path / "store"
    assert nann("events", log, "--to", store, "--limit", 2, *options).code == 0
    for limit in (1, 3):
        line = refused("events", log, "--to", store, "--limit", limit, *options)
        assert f"--limit is {limit}, and {store} was made with 2; leave --limit out, or copy the folder" in line
    assert nann("events", log, "--to", store, "--limit", 2, *options).code == 0
    assert nann("events", store, "--to", tmp_path / "new", "--limit", 1).code == 0
    assert stored(tmp_path / "new")[b"17"] == [b"7"]


def test_a_log_in_another_form_is_read_with_the_options_of_prepare(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes(
        'user;item;time;stars\nJosé;5;2024-01-02;4\nJosé;6;2024-01-03;2\nJosé;7"x;2024-01-04;5\n'.encode("latin-1")
    )
    ways = ("--encoding", "latin-1", "--quote", "", "--value-column", "stars", "--min-value", 3, "--item-ids", "text")
    ended = nann("events", path, "--to", tmp_path / "store", *ways)
    assert ended.code == 0, ended.stderr
    assert stored(tmp_path / "store") == {"José".encode(): [b"5", b'7"x']}


def test_an_hour_without_events_is_no_error(tmp_path, monkeypatch):
    empty = tmp_path / "empty.csv"
    empty.write_text(LOG.splitlines()[0] + "\n")
    monkeypatch.setattr("sys.stdin", type("Input", (), {"buffer": io.BytesIO()}))
    for file in (empty, "-"):
        ended = nann("events", file, "--to", tmp_path / "store", *COLUMNS, "--json")
        assert ended.code == 0, ended.stderr
        assert (ended.json["events"], ended.json["added"]) == (0, 0)
        assert "0 of 0 behaviours of 0 users are new in" in ended.stderr


def test_a_file_that_ends_within_a_line_is_told(log, tmp_path):
    log.write_text(LOG.replace("9,,2024-01-02,buy\n", "9,12,2024-0"))
    ended = nann("events", log, "--to", tmp_path / "store", *COLUMNS, "--json")
    assert ended.code == 0, ended.stderr
    assert (ended.json["rows"], ended.json["cut_last_lines"], ended.json["events"]) == (4, 1, 3)
    assert "1 file ends within a line, which is left out: send the rest again" in ended.stderr


def test_what_can_not_be_used(log, tmp_path):
    assert "1 of 5 rows are bad (20.0%; at most 1.0% may be)" in refused(
        "events", log, "--to", tmp_path / "store", *COLUMNS
    )
    assert "the store of histories is 'kafka://x'" in refused("events", log, "--to", "kafka://x")
    assert "is no store of histories" in refused("events", log, "--to", tmp_path)
    assert "the Redis URL redis://h/0 holds a password" in refused("events", log, "--to", "redis://:secret@h/0")
    assert "log.csv has no column 'user'" in refused("events", log, "--to", tmp_path / "other")
    gone = refused("events", log, "--to", "redis://127.0.0.1:1/0", *COLUMNS, "--max-bad-share", 0.5)
    assert "Redis does not take the behaviours" in gone
