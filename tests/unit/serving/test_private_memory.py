"""The modes of shared memory in the preloaded library (`_private_memory.cpp`), in a process without Triton."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys

from nann.python_backend.server.hidden_key import hidden_key

MAKE = """
import ctypes, json, os, sys, tempfile

os.umask(0)
process = ctypes.CDLL(None)
name = sys.argv[1].encode()
modes = []
region = process.shm_open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
process.shm_unlink(name)
modes.append(os.fstat(region).st_mode & 0o777)
process.fchmod(region, 0o644)  # as boost does after it made a region
modes.append(os.fstat(region).st_mode & 0o777)
with tempfile.TemporaryFile() as file:
    process.fchmod(file.fileno(), 0o644)
    modes.append(os.fstat(file.fileno()).st_mode & 0o777)
print(json.dumps(modes))
"""


def test_regions_are_their_owners_alone_and_other_files_stay_as_they_are():
    with hidden_key("thekey") as key:
        command = [sys.executable, "-c", MAKE, f"/nann-test-{secrets.token_hex(8)}", key.placeholder]
        environment = key.environment(os.environ)
        done = subprocess.run(command, env=environment, pass_fds=[key.pipe], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [0o600, 0o600, 0o644]
