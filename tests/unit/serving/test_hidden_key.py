"""Passing the admin key to a process; tests/integration/test_security.py does so with tritonserver."""

import os
import subprocess
import sys

import pytest

from nann.errors import ServerError
from nann.python_backend.server import hidden_key as module
from nann.python_backend.server.hidden_key import hidden_key

SHOW = (
    "import os, sys; print(sys.argv[1], open('/proc/self/cmdline').read().split(chr(0))[-2],"
    "[name for name in os.environ if name.startswith(('LD_PRELOAD', 'NANN'))])"
)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    with hidden_key("thekey") as key:
        command = [sys.executable, "-c", SHOW, *(word.replace("KEY", key.placeholder) for word in arguments)]
        base = {**os.environ, "NANN_ADMIN_KEY": "thekey", **environment}
        done = subprocess.run(
            command, env=key.environment(base), pass_fds=[key.pipe], capture_output=True, text=True, check=False
        )
        done.stdout = done.stdout.replace(key.placeholder, "PLACEHOLDER")
        return done


def test_the_process_has_it_and_its_command_line_does_not():
    assert run("--api=x:header=KEY").stdout.strip() == "--api=x:header=thekey --api=x:header=PLACEHOLDER []"


def test_another_preloaded_library_stays():
    done = run("KEY", LD_PRELOAD="/nowhere/other.so")
    assert done.stdout.strip() == "thekey PLACEHOLDER ['LD_PRELOAD']"


def test_without_the_key_nothing_starts():
    with hidden_key("") as key:
        command = [sys.executable, "-c", "print('started')"]
        environment = key.environment(os.environ)
        done = subprocess.run(
            command, env=environment, pass_fds=[key.pipe], capture_output=True, text=True, check=False
        )
    assert (done.returncode, done.stdout) == (1, "")
    assert "the admin key could not be passed to Triton: the pipe is empty" in done.stderr


def test_a_library_that_was_not_built(monkeypatch):
    monkeypatch.setattr(module, "_LIBRARY", "nann.python_backend.server._not_built")
    with hidden_key("thekey") as key, pytest.raises(ServerError, match=r"_not_built is missing; run `pip install \.`"):
        key.environment({})
