"""The waits of Triton's batcher in the preloaded library (`_batcher_wakes.cpp`), in a process without Triton."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

from nann.python_backend.server.hidden_key import hidden_key

WAIT_FOR = """
import ctypes, json, sys, time

class Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))

process = ctypes.CDLL(None)
condition, mutex = (ctypes.create_string_buffer(64) for _ in range(2))  # zeros: what their initializers are
process.pthread_mutex_lock(mutex)
started, until = time.monotonic(), time.monotonic() + float(sys.argv[1])
deadline, waits, result = Timespec(int(until), int(until % 1 * 1e9)), 0, 0
while result == 0:
    result = process.pthread_cond_clockwait(condition, mutex, time.CLOCK_MONOTONIC, ctypes.byref(deadline))
    waits += 1
print(json.dumps({"result": result, "waits": waits, "total_s": time.monotonic() - started}))
"""


def wait_for(seconds: float) -> int:
    """Waits for this time on a condition that is never notified; returns how many waits that took."""
    with hidden_key("thekey") as key:
        command = [sys.executable, "-c", WAIT_FOR, str(seconds), key.placeholder]
        environment = key.environment(os.environ)
        done = subprocess.run(command, env=environment, pass_fds=[key.pipe], capture_output=True, text=True, check=True)
    body = json.loads(done.stdout)
    assert body["result"] == errno.ETIMEDOUT
    assert body["total_s"] >= seconds, "nobody waits for less than was asked for"
    return int(body["waits"])


def test_a_batchers_wait_ends_every_few_milliseconds_until_its_end():
    assert wait_for(0.5) > 3  # 100 on an idle machine


def test_other_waits_stay_as_they_are():
    assert wait_for(0.3) == 1
