"""Catalogs with repositories of their own agree through one Redis stream, whatever is killed, lost or changed."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from random import Random

import pytest
from support import triton_fakes
from support.catalog_requests import ask, catalog_of, vectors
from support.changing_bundle import IDS, ITEMS, make_bundle
from support.redis_server import running_redis
from support.waiting import wait_until

from nann.catalog import Changes, JournalReader, JournalWriter
from nann.catalog.journal import journal_path
from nann.errors import ConfigError, JournalError, ServerError
from nann.python_backend.repository.install import install_bundle

KEY = "items"


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory):
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(redis_server, monkeypatch):
    """A Redis without data, which the catalogs that start from now on follow, without long waits."""
    from nann.python_backend import catalog_replica

    monkeypatch.setattr(catalog_replica, "_WAIT_S", 0.05)
    monkeypatch.setattr(catalog_replica, "_PAUSE_S", 0.05)
    monkeypatch.setenv("NANN_CATALOG_STREAM", f"{redis_server.url}/{KEY}")
    redis_server.client.flushall()
    return redis_server


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("made") / "bundle")


class Site:
    """A model repository, and its catalog while it runs."""

    def __init__(self, bundle, folder):
        self.repository = folder
        self.model = None
        install_bundle(bundle.path, folder)

    def start(self):
        self.model = catalog_of(self.repository)
        return self

    def stop(self):
        if self.model is not None:
            self.model.finalize()
            self.model = None

    def ask(self, *asked, **more):
        return ask(self.model, *asked, **more)

    def journal(self):
        with contextlib.closing(JournalReader(journal_path(self.repository))) as reader:
            return [(record.sequence, record.payload) for record in reader.new()]


@pytest.fixture
def sites(bundle, redis, tmp_path):
    """Makes sites that do not run yet."""
    made = []

    def make(count):
        made.extend(Site(bundle, tmp_path / f"repository {len(made) + number}") for number in range(count))
        return made[-count:]

    yield make
    for site in made:
        site.stop()


def agree(*sites):
    wait_until(lambda: len({tuple(site.journal()) for site in sites}) == 1)


def test_what_one_does_is_there_for_the_next_request_to_another(sites):
    first, second = (site.start() for site in sites(2))
    for number in range(20):
        assert first.ask("upsert_items", [number + 1], **vectors(1))["sequence"] == 2 * number + 1
        assert second.ask("delete_items", [number + 1]) == {"sequence": 2 * number + 2, "removed": 1, "unknown": 0}
    assert first.ask("delete_items", [20]) == {"sequence": 40, "removed": 0, "unknown": 1}
    agree(first, second)
    second.ask("upsert_items", [IDS[3]], [{"year": 7}])
    assert first.ask("upsert_items", [IDS[3]], [{"year": 7}])["sequence"] == 42
    status = second.ask("catalog_status")
    assert (status["stream"], status["changed"]) == ("followed", 1)


def test_followers_read_without_being_asked(sites):
    first, second = (site.start() for site in sites(2))
    first.ask("delete_items", IDS[:3])
    wait_until(lambda: len(second.journal()) == 1)
    assert second.ask("catalog_status")["deleted"] == 3


def test_writers_at_the_same_time(sites):
    running = [site.start() for site in sites(3)]

    def write(number):
        items = IDS[9 * number : 9 * number + 9]
        done.extend(running[number].ask("delete_items", [item])["sequence"] for item in items)

    done: list[int] = []
    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == list(range(1, 28))
    agree(*running)
    assert [site.ask("catalog_status")["items"] for site in running] == [ITEMS - 27] * 3


def test_a_restart_goes_on_where_the_journal_ends(sites, redis):
    first, second = (site.start() for site in sites(2))
    first.ask("delete_items", IDS[:1])
    agree(first, second)
    second.stop()
    with journal_path(second.repository).open("ab") as stream:
        stream.write(first.journal()[0][1][:30])  # what a kill left
    for number in range(1, 5):
        first.ask("delete_items", [IDS[number]])
    second.start()
    assert second.journal() == first.journal()
    assert [sequence for sequence, _ in second.journal()] == [1, 2, 3, 4, 5]
    assert redis.client.xlen(KEY) == 5


def test_while_redis_is_away(sites, redis):
    first, second, late = sites(3)
    first.start(), second.start()
    first.ask("delete_items", [IDS[0]])
    redis.kill()
    try:
        code, message = first.ask("delete_items", [IDS[1]])
        assert (code, "Redis does not answer at redis://127.0.0.1" in message) == ("UNAVAILABLE", True), message
        assert first.ask("catalog_status")["items"] == ITEMS - 1
        wait_until(lambda: second.ask("catalog_status")["stream"] != "followed")
        assert "changes are refused for now: Redis does not answer" in second.ask("delete_items", [IDS[1]])[1]
        late.start()
        assert late.ask("catalog_status")["items"] == ITEMS
        assert "does not follow the changes of other servers: Redis does not" in triton_fakes.Logger.warnings[-1]
    finally:
        redis.start()
    for site in (first, second, late):
        wait_until(lambda site=site: site.ask("catalog_status")["stream"] == "followed")
    assert any("/items again" in line for line in triton_fakes.Logger.warnings)
    assert late.ask("delete_items", [IDS[1]]) == {"sequence": 2, "removed": 1, "unknown": 0}
    agree(first, second, late)


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
        agree(first, same)
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
    (beginning,) = redis.client.xrange(KEY, count=1)
    redis.client.delete(KEY)
    redis.client.xadd(KEY, beginning[1], id=beginning[0])
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
    redis.client.xtrim(KEY, maxlen=kept, approximate=False)
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
    for year in range(40):
        first.ask("upsert_items", [IDS[0]], [{"year": year}])
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


def entry(payload, previous=b"0 ", sequence=1):
    return {b"payload": payload, b"previous": previous}, f"{sequence}-0"


FOREIGN = {
    "entry 1-0 of the stream was not written by a catalog": entry(b"", b"who knows"),
    "change 1 of the stream can't be applied here: ": entry(b"\1"),
    "item 'a text' came; the ids of this bundle are whole numbers": entry(Changes(1.0, (), ["a text"]).pack()),
    "has format 9; this release reads 1": entry(Changes(1.0, (), [3]).pack().replace(b'"format":1', b'"format":9')),
}


@pytest.mark.parametrize("message", FOREIGN)
def test_an_entry_that_can_not_be_applied_is_said_and_never_reaches_the_journal(sites, redis, message):
    (site,) = sites(1)
    site.start()
    fields, stream_id = FOREIGN[message]
    redis.client.xadd(KEY, fields, id=stream_id)
    problem = wait_until(lambda: (found := site.ask("catalog_status")["stream"]) != "followed" and found)
    assert message in problem
    code, words = site.ask("delete_items", IDS[:1])
    assert (code, "changes are refused for now: " in words) == ("UNAVAILABLE", True)
    assert site.journal() == []
    site.stop()
    with pytest.raises(JournalError, match=message):
        site.start()
    redis.client.delete(KEY)
    assert site.start().ask("delete_items", IDS[:1])["sequence"] == 1


def test_a_full_disk_behind_the_stream(sites, redis, monkeypatch):
    first, second = (site.start() for site in sites(2))
    first.ask("delete_items", IDS[:1])
    agree(first, second)
    real, full = os.pwrite, journal_path(first.repository).stat().st_ino

    def pwrite(descriptor, data, offset):
        if os.fstat(descriptor).st_ino == full:
            raise OSError(28, "No space left on device")
        return real(descriptor, data, offset)

    with monkeypatch.context() as broken:
        broken.setattr(os, "pwrite", pwrite)
        code, message = first.ask("delete_items", IDS[1:2])
        assert (code, message[:26]) == ("INTERNAL", "change 2 is in the stream,")
        assert "can't be written: No space left on device; it is done here as soon as it can be" in message
        wait_until(lambda: len(second.journal()) == 2)
        assert len(first.journal()) == 1
    agree(first, second)
    wait_until(lambda: first.ask("catalog_status")["stream"] == "followed")
    assert first.ask("delete_items", IDS[2:3])["sequence"] == 3


def test_what_redis_refuses_stops_the_start(sites, redis, tmp_path, monkeypatch):
    (site,) = sites(1)
    redis.client.set(KEY, "a text")
    with pytest.raises(ServerError, match=r"Redis refuses redis://127.*/items: WRONGTYPE"):
        site.start()
    monkeypatch.setenv("NANN_REDIS_PASSWORD", "not its password")
    with pytest.raises(ServerError, match=r"Redis refuses redis://127.*AUTH") as raised:
        site.start()
    assert "not its password" not in str(raised.value)
    monkeypatch.setenv("NANN_CATALOG_STREAM", f"{redis.url}")
    with pytest.raises(ConfigError, match=r"the URL of the stream has no key; expected redis://\[USER@\]HOST"):
        site.start()


def test_metrics(sites):
    first, second = (site.start() for site in sites(2))
    first.ask("delete_items", IDS[:4])
    agree(first, second)
    values = triton_fakes.Metric.values
    second.stop()
    assert (values["nann_catalog_stream_followed"], values["nann_catalog_stream_sequence"]) == (1, 1)
    assert values["nann_catalog_stream_read_timestamp_seconds"] > 1e9


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_all_end_with_one_history(sites, redis, seed):
    """Random changes, kills of Redis, and stops of servers: each acknowledged change is in every journal, once."""
    random, four, acknowledged = Random(seed), sites(4), []
    for site in four:
        site.start()
    for step in range(2 * ITEMS):
        site = random.choice(four)
        if random.random() < 0.25:
            (site.start if site.model is None else site.stop)()
        if random.random() < 0.05:
            redis.kill()
            redis.start()
        if site.model is not None:
            answer = site.ask("upsert_items", [IDS[step % ITEMS]], [{"year": step}])
            if isinstance(answer, dict):
                acknowledged.append((answer["sequence"], IDS[step % ITEMS]))
    for site in four:
        if site.model is None:
            site.start()
        wait_until(lambda site=site: site.ask("catalog_status")["stream"] == "followed")
    agree(*four)
    history = {
        (sequence, upsert.id) for sequence, payload in four[0].journal() for upsert in Changes.unpack(payload).upserted
    }
    assert set(acknowledged) <= history
    assert len(acknowledged) > 10
    assert len(four[0].journal()) == len(history) == redis.client.xlen(KEY)
    assert four[0].ask("catalog_status")["changed"] == len({item for _, item in history})


def test_digests_tell_the_writer_where_it_is(tmp_path):
    writer = JournalWriter(tmp_path / "journal")
    assert writer.digest == ""
    writer.append(b"some")
    digest = writer.digest
    writer.close()
    again = JournalWriter(tmp_path / "journal")
    assert (len(digest), again.digest) == (16, digest)
    again.replace(())
    assert (again.sequence, again.digest) == (1, "")
    again.close()
