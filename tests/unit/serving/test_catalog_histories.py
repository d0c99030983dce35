"""Journals and a stream that lack some of each other's changes: they become the same, or the start is refused."""

from __future__ import annotations

import shutil

import pytest
from support.catalog_sites import STREAM_KEY, Site, agree
from support.changing_bundle import IDS, ITEMS, make_bundle
from support.waiting import wait_until

from nann.catalog.journal import journal_path
from nann.errors import JournalError


def test_a_redis_that_lost_its_data_gets_them_from_the_journals(sites, redis):
    first, second, new = sites(3)
    first.start(), second.start()
    for number in range(3):
        first.ask("delete_items", [IDS[number]])
    agree(first, second)
    redis.kill()
    shutil.rmtree(redis.folder)
    redis.folder.mkdir()
    redis.start()
    for site in (first, second, new.start()):
        wait_until(lambda site=site: site.ask("catalog_status")["stream"] == "followed")
    wait_until(lambda: new.ask("catalog_status")["items"] == ITEMS - 3)
    assert new.ask("delete_items", [IDS[9]])["sequence"] == 4
    agree(first, second, new)


def test_a_journal_from_before_is_added_to_the_stream(sites, redis, monkeypatch):
    first, second = sites(2)
    with monkeypatch.context() as alone:
        alone.delenv("NANN_CATALOG_STREAM")
        first.start().ask("delete_items", IDS[:2])
        first.ask("upsert_items", [IDS[2]], [{"year": 3}])
        first.stop()
    first.start()
    assert second.start().journal() == first.journal()
    assert second.ask("catalog_status")["changed"] == 1


def test_a_stream_begins_behind_what_the_bundles_contain(sites, redis, tmp_path, monkeypatch):
    (first,) = sites(1)
    with monkeypatch.context() as alone:
        alone.delenv("NANN_CATALOG_STREAM")
        first.start().ask("delete_items", IDS[:1])
        first.ask("delete_items", IDS[1:2])
        first.stop()
    of_today = Site(make_bundle(tmp_path / "today", journal_sequence=2), tmp_path / "today's")
    of_yesterday = Site(make_bundle(tmp_path / "yesterday", journal_sequence=1), tmp_path / "yesterday's")
    shutil.copytree(first.repository / ".catalog", (same := tmp_path / "same") / ".catalog")
    same = Site(make_bundle(tmp_path / "again", journal_sequence=2), same)
    try:
        of_today.start(), same.start()
        assert of_today.ask("delete_items", IDS[2:3])["sequence"] == 3
        assert same.ask("delete_items", IDS[3:4])["sequence"] == 4
        assert first.start().ask("delete_items", IDS[4:5])["sequence"] == 5
        with pytest.raises(JournalError, match="ends with change 0, and the stream no longer has those up to 2"):
            of_yesterday.start()
        wait_until(lambda: first.journal()[-3:] == same.journal()[-3:] == of_today.journal())
        assert of_today.ask("catalog_status")["deleted"] == 3
    finally:
        of_today.stop(), same.stop()


def test_journals_that_were_written_apart(sites, redis, monkeypatch):
    first, second = sites(2)
    with monkeypatch.context() as alone:
        alone.delenv("NANN_CATALOG_STREAM")
        for site in (first, second):
            site.start().ask("delete_items", IDS[:2])
            site.stop()
    first.start()
    with pytest.raises(
        JournalError, match=r"change 1 of the stream is not that of the journal: .* copy \.catalog/journ"
    ):
        second.start()
    first.ask("delete_items", IDS[3:4])
    with pytest.raises(JournalError, match=r"change 1 of the stream is not that of the journal"):
        second.start()
    shutil.copy(journal_path(first.repository), journal_path(second.repository))
    assert second.start().journal() == first.journal()


def test_a_stream_that_lost_its_end_and_went_another_way(sites, redis):
    first, second = sites(2)
    first.start(), second.start()
    first.ask("delete_items", IDS[:1])
    agree(first, second)
    second.stop()
    first.ask("delete_items", IDS[1:2])
    first.stop()
    (beginning,) = redis.client.xrange(STREAM_KEY, count=1)
    redis.client.delete(STREAM_KEY)
    redis.client.xadd(STREAM_KEY, beginning[1], id=beginning[0])
    second.start().ask("delete_items", IDS[2:3])
    with pytest.raises(JournalError, match="change 2 of the stream is not that of the journal"):
        first.start()
    second.ask("delete_items", IDS[3:4])
    with pytest.raises(JournalError, match="change 2 of the stream is not that of the journal"):
        first.start()


@pytest.mark.parametrize("kept", [2, 0])
def test_a_stream_that_was_trimmed_too_early(sites, redis, tmp_path, kept):
    first, second, bare = sites(3)
    first.start(), second.start()
    first.ask("delete_items", IDS[:1])
    agree(first, second)
    second.stop()
    for number in range(1, 6):
        first.ask("delete_items", [IDS[number]])
    redis.client.xtrim(STREAM_KEY, maxlen=kept, approximate=False)
    begin = 6 - kept
    message = (
        rf"ends with change 1, and the stream no longer has those up to {begin}; stop this server, copy .*, or serve"
    )
    with pytest.raises(JournalError, match=message):
        second.start()
    with pytest.raises(JournalError, match=f"ends with change 0, and the stream no longer has those up to {begin}"):
        bare.start()
    shutil.copy(journal_path(first.repository), journal_path(second.repository))
    second.start()
    of_today = make_bundle(tmp_path / "today", journal_sequence=begin)
    fresh = Site(of_today, tmp_path / "fresh")
    fresh.start()
    try:
        assert fresh.ask("delete_items", [IDS[9]])["sequence"] == 7
        wait_until(lambda: fresh.journal()[-1] == first.journal()[-1] == second.journal()[-1])
        assert fresh.journal() == first.journal()[begin:]
        assert fresh.ask("catalog_status")["deleted"] == kept + 1
    finally:
        fresh.stop()


def test_a_compacted_journal_still_knows_where_it_is(sites, redis, tmp_path, monkeypatch):
    from nann.python_backend import catalog_journal

    monkeypatch.setattr(catalog_journal, "_COMPACT_BYTES", 1000)
    first, second = sites(2)
    first.start(), second.start()
    for year in range(40):  # of two items, so that the last of these records is larger than the next one
        first.ask("upsert_items", IDS[:2], [{"year": year}] * 2)
    assert len(first.journal()) < 20
    for site in (first, second):
        site.stop()
        site.start()
    assert second.ask("upsert_items", [IDS[0]], [{"year": 100}])["sequence"] == 41
    wait_until(lambda: first.journal()[-1][0] == 41)
    contains = make_bundle(tmp_path / "contains", journal_sequence=41)
    third = Site(contains, tmp_path / "third")
    shutil.copytree(first.repository / ".catalog", third.repository / ".catalog")
    first.stop()
    monkeypatch.setattr(catalog_journal, "_COMPACT_BYTES", 0)
    third.start().ask("delete_items", [IDS[1]])
    assert [sequence for sequence, _ in third.journal()] == [41, 42]
    third.stop()
    third.start().stop()
