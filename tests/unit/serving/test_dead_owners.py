"""Locks whose owner died, in the preloaded library (`_dead_owners.cpp`), in a process without Triton."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

from nann.python_backend.server.hidden_key import hidden_key

TAKE = """
import ctypes, json, mmap, os, sys

class Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))

SHARED, ROBUST = 1, 1
process = ctypes.CDLL(None)
memory = mmap.mmap(-1, 4096)
mutex, attributes = ((ctypes.c_char * 64).from_buffer(memory, at) for at in (0, 64))
process.pthread_mutexattr_init(attributes)
process.pthread_mutexattr_setpshared(attributes, SHARED)
process.pthread_mutexattr_setrobust(attributes, ROBUST)
process.pthread_mutex_init(mutex, attributes)
late = ctypes.byref(Timespec(2**40, 0))

def die_with_it():
    owner = os.fork()
    if owner == 0:
        process.pthread_mutex_lock(mutex)
        os._exit(0)
    os.waitpid(owner, 0)

results = {}
for name in sys.argv[2:]:
    die_with_it()
    arguments = (mutex, late) if name == "timedlock" else (mutex,)
    results[name] = getattr(process, f"pthread_mutex_{name}")(*arguments)
    process.pthread_mutex_unlock(mutex)
print(json.dumps(results), flush=True)
os._exit(0)
"""


def results(preloaded: bool, *names: str) -> dict[str, int]:
    """What the functions `pthread_mutex_*` of these names return for a lock whose owner has just died."""
    with hidden_key("thekey") as key:
        environment = key.environment(os.environ) if preloaded else dict(os.environ)
        command = [sys.executable, "-c", TAKE, key.placeholder, *names]
        done = subprocess.run(
            command, env=environment, pass_fds=[key.pipe], capture_output=True, text=True, check=True, timeout=60
        )
    return json.loads(done.stdout)


def test_a_lock_whose_owner_died_is_taken_as_any_other():
    names = ("lock", "trylock", "timedlock", "lock")
    assert results(True, *names) == dict.fromkeys(names, 0)
    assert results(False, "lock") == {"lock": errno.EOWNERDEAD}, "as the backend gets it without the library"
