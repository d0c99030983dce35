"""The journal: cut at every byte, damaged at every byte, killed again and again, and followed by other processes."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from nann.catalog import Changes, JournalReader, JournalWriter, Upsert, compacted
from nann.catalog import journal as journal_module
from nann.catalog.journal_format import HEADER_BYTES, Record
from nann.errors import JournalError

PAYLOADS = [b"first", b"", bytes(range(99)), b"NREC" * 9, b"last one"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / ".catalog" / "journal"


def write(path, payloads):
    with contextlib.closing(JournalWriter(path)) as writer:
        return [writer.append(payload) for payload in payloads]


def read(path):
    with contextlib.closing(JournalReader(path)) as reader:
        return [record.payload for record in reader.new()]


def test_what_was_appended_is_read_by_all_that_follow(path):
    early = JournalReader(path)
    assert list(early.new()) == []
    assert write(path, PAYLOADS[:2]) == [1, 2]
    assert early.new() == [Record(1, PAYLOADS[0]), Record(2, PAYLOADS[1])]
    assert list(early.new()) == []
    assert write(path, PAYLOADS[2:]) == [3, 4, 5]
    assert [record.payload for record in early.new()] == PAYLOADS[2:]
    assert read(path) == PAYLOADS
    assert early.sequence == 5
    early.close()


def test_cut_at_every_byte(path):
    ends = [HEADER_BYTES]
    with contextlib.closing(JournalWriter(path)) as writer:
        for payload in PAYLOADS:
            writer.append(payload)
            ends.append(path.stat().st_size)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        if size < HEADER_BYTES:
            with pytest.raises(JournalError, match="is damaged at byte 0: it has no header of a journal; restore it"):
                read(path)
            continue
        count = sum(end <= size for end in ends) - 1
        assert read(path) == PAYLOADS[:count]
        with contextlib.closing(JournalWriter(path)) as writer:
            assert writer.dropped_bytes == size - ends[count]
            assert writer.append(b"next") == count + 1
        assert read(path) == [*PAYLOADS[:count], b"next"]


def test_damage_at_any_byte_is_no_other_change(path):
    write(path, PAYLOADS)
    whole = path.read_bytes()
    last = len(whole) - 24 - len(PAYLOADS[-1])
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :])
        if place < last:
            for opened in (read, JournalWriter):
                with pytest.raises(JournalError, match=r"journal is damaged at byte \d+") as error:
                    opened(path)
            at = int(str(error.value).partition("at byte ")[2].partition(";")[0].partition(":")[0])
            assert at <= place
        else:  # it can't be told from what a crash leaves
            assert read(path) == PAYLOADS[:-1]


def test_a_file_that_became_shorter(path):
    write(path, PAYLOADS)
    with contextlib.closing(JournalReader(path)) as reader:
        reader.new()
        os.truncate(path, HEADER_BYTES)
        with pytest.raises(
            JournalError, match=rf"ends at byte {HEADER_BYTES} and had [\d,]+ bytes of changes; restore"
        ):
            reader.new()


def test_one_writer(path, monkeypatch):
    monkeypatch.setattr(journal_module, "_PATIENCE_S", 0.1)
    with (
        contextlib.closing(JournalWriter(path)),
        pytest.raises(JournalError, match=r"another process has .*\.journal\.lock"),
    ):
        JournalWriter(path)
    JournalWriter(path).close()


def test_the_next_writer_waits_for_the_end_of_the_last(path):
    writer = JournalWriter(path)
    threading.Timer(0.2, writer.close).start()
    JournalWriter(path).close()


def test_a_full_disk_adds_nothing(path, monkeypatch):
    with contextlib.closing(JournalWriter(path)) as writer:
        writer.append(b"kept")
        real = os.pwrite

        def full(descriptor, data, offset):
            if offset > HEADER_BYTES + 60:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(descriptor, data[:20], offset)

        monkeypatch.setattr(os, "pwrite", full)
        with contextlib.closing(JournalReader(path)) as reader, pytest.raises(OSError, match="No space left"):
            writer.append(b"x" * 100)
        monkeypatch.undo()
        assert read(path) == [b"kept"]
        assert writer.append(b"more") == 2
        with contextlib.closing(JournalReader(path)) as reader:
            assert [record.payload for record in reader.new()] == [b"kept", b"more"]


def test_a_failed_sync_ends_the_writer(path, monkeypatch):
    with contextlib.closing(JournalWriter(path)) as writer:

        def fails(_):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "fdatasync", fails)
        with pytest.raises(
            JournalError, match="can't be synced: Input/output error; it is not known whether the change"
        ):
            writer.append(b"x")
        monkeypatch.undo()
        with pytest.raises(JournalError, match="is closed after a failure; start the server again"):
            writer.append(b"y")


def test_a_record_of_gigabytes_is_refused(path, monkeypatch):
    monkeypatch.setattr(journal_module, "MAX_PAYLOAD_BYTES", 3)
    writer = JournalWriter(path)
    with pytest.raises(JournalError, match="the changes have 4 bytes; expected at most 3; send fewer items"):
        writer.append(b"four")
    writer.close()


_WRITER = """
import sys
from pathlib import Path
from nann.catalog import JournalWriter
writer = JournalWriter(Path(sys.argv[1]))
while True:
    number = writer.sequence + 1
    writer.append(str(number).encode() * 2000)
    print(number, flush=True)
"""


def test_nothing_acknowledged_is_lost_by_a_kill(path):
    acknowledged = 0
    with contextlib.closing(JournalReader(path)) as follower:
        followed: list[Record] = []
        for turn in range(4):
            process = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True)
            for _ in range(3 + turn):
                acknowledged = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            acknowledged = max([acknowledged, *map(int, process.stdout.read().split())])
            process.wait()
            process.stdout.close()
            followed += follower.new()
            payloads = read(path)
            assert len(payloads) >= acknowledged
            assert payloads == [str(number + 1).encode() * 2000 for number in range(len(payloads))]
            assert [record.payload for record in followed] == payloads
    assert acknowledged >= 18


def test_a_compaction_leaves_out_what_later_changes_made_of_no_account(path):
    def changes(*upserted, deleted=(), model=""):
        return Changes(1.5, [Upsert(*each) for each in upserted], deleted, model).pack()

    row, light = np.arange(3, dtype=np.float32), np.ones(2, np.float32)
    payloads = [
        changes((1, {"price": 1, "tag": "a"}), (2, {"price": 2})),
        changes((3, {"price": 3}, row, light), model="A"),
        changes(deleted=[2]),
        changes((1, {"price": 4}), (3, {"price": 5}), ("text", {})),
        changes(("text", {})),
        changes((3, {"tag": "b"}, row + 1, light), model="A"),
        changes((3, {}, row + 2, light, light + 4), model="B"),
        changes((2, {})),
    ]
    with contextlib.closing(JournalWriter(path)) as writer, contextlib.closing(JournalReader(path)) as reader:
        for payload in payloads:
            writer.append(payload)
        records = reader.new()
        writer.replace(compacted(records, 0))
        assert list(reader.new()) == []
        assert writer.append(changes(deleted=[1])) == 9
        assert [record.sequence for record in reader.new()] == [9]
        assert reader.sequence == 9
    with contextlib.closing(JournalReader(path)) as reader:
        kept = {record.sequence: Changes.unpack(record.payload) for record in reader.new()}
    described = {
        number: ([(each.id, each.attributes, None if each.row is None else each.row.tolist()) for each in one.upserted],
                 one.deleted)
        for number, one in kept.items()
    }  # fmt: skip
    assert described == {
        1: ([(1, {"tag": "a"}, None)], []),
        3: ([], [2]),
        4: ([(1, {"price": 4}, None), (3, {"price": 5}, None)], []),
        5: ([("text", {}, None)], []),
        6: ([(3, {"tag": "b"}, [1, 2, 3])], []),
        7: ([(3, {}, [2, 3, 4])], []),
        8: ([(2, {}, None)], []),
        9: ([], [1]),
    }
    assert (kept[7].upserted[0].light.tolist(), kept[7].upserted[0].vector.tolist()) == ([1, 1], [5, 5])
    assert kept[6].upserted[0].vector is None
    assert (kept[7].model, kept[7].time_s) == ("B", 1.5)


def test_a_compaction_of_all_changes_keeps_the_count(path):
    write(path, PAYLOADS)
    with contextlib.closing(JournalWriter(path)) as writer:
        writer.replace(())
    with contextlib.closing(JournalReader(path)) as reader:
        assert (list(reader.new()), reader.sequence) == ([], 5)
    assert write(path, [b"next"]) == [6]


def test_records_of_a_later_release(path):
    payload = Changes(1.0, (), [1]).pack().replace(b'"format":1', b'"format":2')
    with pytest.raises(JournalError, match="a record of the journal has format 2; this release reads 1"):
        Changes.unpack(payload)
    write(path, [b"x"])
    data = bytearray(path.read_bytes())
    data[8] = 2
    from zlib import crc32

    data[HEADER_BYTES - 4 : HEADER_BYTES] = crc32(bytes(data[: HEADER_BYTES - 4])).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(JournalError, match="has format version 2; this release reads version 1"):
        read(path)


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
