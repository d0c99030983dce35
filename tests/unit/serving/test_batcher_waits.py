"""The waits of Triton's batcher in the preloaded library (`_batcher_wakes.cpp`), in a process without Triton."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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


TRITON = "void* TRITONBACKEND_ModelInstanceReportBatchStatistics(void) { return 0; }"
"""What stands for Triton's own function."""
IDLE = """
import ctypes, json, os, sys, threading, time

class Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))

process = ctypes.CDLL(None)

def zeros():
    return [ctypes.create_string_buffer(64) for _ in range(2)]  # what the initializers of condition and mutex are

def batcher():
    condition, mutex = zeros()
    process.pthread_mutex_lock(mutex)
    for _ in range(200):
        until = time.monotonic() + 0.45
        deadline, started = Timespec(int(until), int(until % 1 * 1e9)), time.monotonic()
        process.pthread_cond_clockwait(condition, mutex, time.CLOCK_MONOTONIC, ctypes.byref(deadline))
        waits.append(time.monotonic() - started)

def instance():
    condition, mutex = zeros()

    def requests():
        while waiting.is_alive():
            time.sleep(0.001)
            process.pthread_cond_signal(condition)

    threading.Thread(target=requests).start()
    process.pthread_mutex_lock(mutex)
    while waiting.is_alive():
        if executes:
            process.TRITONBACKEND_ModelInstanceReportBatchStatistics(None, *[ctypes.c_uint64(0)] * 5)
        process.pthread_cond_wait(condition, mutex)

executes, waits = sys.argv[1] == "yes", []
waiting = threading.Thread(target=batcher)
waiting.start()
threading.Thread(target=instance, daemon=True).start()
waiting.join()
print(json.dumps(sorted(waits)), flush=True)
os._exit(0)
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="a C compiler stands for Triton")
def test_a_thread_that_has_executed_a_batch_wakes_the_batcher_as_it_begins_to_wait(tmp_path: Path):
    (tmp_path / "triton.c").write_text(TRITON)
    library = tmp_path / "triton.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "triton.c"], check=True)
    medians_s = {}
    for executes in ("yes", "no"):
        with hidden_key("thekey") as key:
            environment = key.environment({**os.environ, "LD_PRELOAD": str(library)})
            command = [sys.executable, "-c", IDLE, executes, key.placeholder]
            done = subprocess.run(
                command, env=environment, pass_fds=[key.pipe], capture_output=True, text=True, check=True
            )
        waits = json.loads(done.stdout)
        medians_s[executes] = waits[len(waits) // 2]
    assert medians_s["no"] > 0.004, "nobody wakes it: it looks every 5 ms"
    assert medians_s["yes"] < 0.004
