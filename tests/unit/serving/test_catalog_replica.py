"""Catalogs with repositories of their own agree through one Redis stream, whatever is killed or fails."""

from __future__ import annotations

import os
import shutil
import threading
from random import Random

import pytest
from support import triton_fakes
from support.catalog_requests import vectors
from support.catalog_sites import STREAM_KEY, agree
from support.changing_bundle import IDS, ITEMS
from support.waiting import wait_until

from nann.catalog import Changes
from nann.catalog.journal import journal_path
from nann.errors import ConfigError, JournalError, ServerError


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
    assert redis.client.xlen(STREAM_KEY) == 5


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


def test_an_answer_of_redis_that_is_lost(sites, redis, monkeypatch):
    from nann.python_backend import catalog_stream

    monkeypatch.setattr(catalog_stream, "_TIMEOUT_S", 0.3)
    first, second = (site.start() for site in sites(2))
    redis.client.execute_command("CLIENT PAUSE 1500 WRITE")
    code, message = first.ask("delete_items", IDS[:1])
    assert (code, "the change may be done, or not; send it again: Redis does not" in message) == ("UNAVAILABLE", True)
    redis.client.execute_command("CLIENT UNPAUSE")
    for site in (first, second):
        wait_until(lambda site=site: site.ask("catalog_status")["stream"] == "followed")
    answer = first.ask("delete_items", IDS[:1])
    assert answer["removed"] + answer["unknown"] == 1
    agree(first, second)
    assert second.ask("catalog_status")["deleted"] == 1


def test_servers_that_add_one_journal_at_the_same_time(sites, redis, monkeypatch):
    three = sites(3)
    with monkeypatch.context() as alone:
        alone.delenv("NANN_CATALOG_STREAM")
        three[0].start()
        for number in range(20):
            three[0].ask("delete_items", [IDS[number]])
        three[0].stop()
    for site in three[1:]:
        shutil.copytree(three[0].repository / ".catalog", site.repository / ".catalog")
    threads = [threading.Thread(target=site.start) for site in three]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert redis.client.xlen(STREAM_KEY) == 20
    assert [site.ask("catalog_status")["stream"] for site in three] == ["followed"] * 3
    assert three[1].ask("delete_items", [IDS[20]])["sequence"] == 21


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
    redis.client.xadd(STREAM_KEY, fields, id=stream_id)
    problem = wait_until(lambda: (found := site.ask("catalog_status")["stream"]) != "followed" and found)
    assert message in problem
    code, words = site.ask("delete_items", IDS[:1])
    assert (code, "changes are refused for now: " in words) == ("UNAVAILABLE", True)
    assert site.journal() == []
    site.stop()
    with pytest.raises(JournalError, match=message):
        site.start()
    redis.client.delete(STREAM_KEY)
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
    redis.client.set(STREAM_KEY, "a text")
    with pytest.raises(ServerError, match=r"Redis refuses redis://127.*/items: WRONGTYPE"):
        site.start()
    monkeypatch.setenv("NANN_REDIS_PASSWORD", "not its password")
    with pytest.raises(ServerError, match=r"Redis refuses redis://127.*AUTH") as raised:
        site.start()
    assert "not its password" not in str(raised.value)
    monkeypatch.setenv("NANN_CATALOG_STREAM", f"{redis.url}")
    with pytest.raises(
        ConfigError, match=r"the URL of the stream has no database and key; expected redis://\[USER@\]HOST"
    ):
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
    assert len(four[0].journal()) == len(history) == redis.client.xlen(STREAM_KEY)
    assert four[0].ask("catalog_status")["changed"] == len({item for _, item in history})
