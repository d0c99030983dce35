"""What one process has found out, the others take over; a file is hashed once, unless it is written to."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from nann import manifest
from nann.errors import BundleError
from nann.found_once import FOLDER_VARIABLE, found_once
from nann.manifest import sha256_of, verify_file

_TICK_S = 0.02
"""Kernels before 6.13 tell the times of two changes apart only if some milliseconds lie between them."""
SLOW = """
import sys, time
from nann.found_once import found_once
def find():
    print("looking", flush=True)
    time.sleep(0.5)
    return "from the other process"
print(found_once("key", find), flush=True)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "found").mkdir()
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "found"))
    return tmp_path / "found"


def unexpected() -> str:
    raise AssertionError("this was found before")


def test_what_was_found_is_not_looked_for_again(folder):
    assert found_once("key", lambda: "first") == "first"
    assert found_once("key", unexpected) == "first"
    assert found_once("key", unexpected, folder) == "first"
    assert found_once("another", lambda: "") == ""
    assert found_once("another", unexpected) == ""


def test_who_asks_meanwhile_waits(folder):
    process = subprocess.Popen([sys.executable, "-c", SLOW], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "looking\n"
    assert found_once("key", unexpected) == "from the other process"
    assert process.communicate()[0] == "from the other process\n"


def test_threads_of_a_process_wait_for_each_other_as_well(folder):
    inside, answers = threading.Barrier(2), []

    def find() -> str:
        inside.wait()
        return "one"

    threads = [threading.Thread(target=lambda: answers.append(found_once("key", find))) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.wait(timeout=10)
    for thread in threads:
        thread.join(timeout=10)
    assert answers == ["one", "one"]


def test_nothing_is_kept_of_a_failure_or_of_a_process_that_was_killed_while_it_wrote(folder):
    with pytest.raises(ZeroDivisionError):
        found_once("key", lambda: str(1 / 0))
    (folder / "key").write_text("hal")
    assert found_once("key", lambda: "whole") == "whole"
    assert found_once("key", unexpected) == "whole"


def test_without_a_folder_everybody_looks(folder, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder / "gone"))
    assert [found_once("key", lambda word=word: word) for word in "ab"] == ["a", "b"]
    monkeypatch.delenv(FOLDER_VARIABLE)
    assert [found_once("key", lambda word=word: word) for word in "ab"] == ["a", "b"]


def test_a_file_is_hashed_again_only_when_it_was_written_to(folder, tmp_path, monkeypatch):
    path, hashed = tmp_path / "file", []
    path.write_bytes(b"content")
    entry = {"bytes": 7, "sha256": sha256_of(path)}
    monkeypatch.setattr(manifest, "sha256_of", lambda path: (hashed.append(path.name), sha256_of(path))[1])
    before = path.stat()
    for _ in range(3):
        verify_file(path, entry)
    assert hashed == ["file"]
    time.sleep(_TICK_S)
    with path.open("r+b") as stream:  # as many bytes, and the time of the last change put back
        stream.write(b"CONTENT")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2):
        with pytest.raises(BundleError, match=r"file has sha256 .*; the manifest says"):
            verify_file(path, entry)
    path.unlink()
    time.sleep(_TICK_S)
    path.write_bytes(b"content")
    verify_file(path, entry)
    assert hashed == ["file"] * 3
