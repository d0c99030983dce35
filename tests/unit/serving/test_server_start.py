"""What is checked and reserved before a server starts: address, open files, repository, shared memory, and its log."""

import fcntl
import io
import os
import resource
import subprocess
import sys

import pytest
from support.waiting import wait_until

from nann.errors import ConfigError, ServerError
from nann.python_backend.server import shared_memory
from nann.python_backend.server.log import NO_GPU_LINES, LogRelay
from nann.python_backend.server.ports import address_of, check_ports, free_ports, raise_file_limit
from nann.python_backend.server.repository_lock import repository_lock
from nann.python_backend.server.shared_memory import own_regions, remove_dead


def test_a_name_is_resolved():
    assert address_of("localhost") == "127.0.0.1"
    assert address_of("0.0.0.0") == "0.0.0.0"
    check_ports("localhost", {"http-port": free_ports(1)[0]})


@pytest.mark.parametrize("host", ["::1", "a..b", "", "256.1.1.1"])
def test_a_host_without_an_ipv4_address(host):
    with pytest.raises(ConfigError, match=f"--host is '{host}'; expected an IPv4 address, or a name that has one"):
        check_ports(host, {"http-port": free_ports(1)[0]})


LIMIT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
from nann.python_backend.server.ports import raise_file_limit
raise_file_limit()
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def limited(soft: int, hard: int) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", LIMIT, str(soft), str(hard)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_as_many_files_as_allowed_may_be_open():
    assert limited(64, 1024).stdout == "1024\n"
    assert "this process may open 64 files, and Triton needs 256 and one for each connection" in limited(64, 64).stderr
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    raise_file_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= before[0]


def test_a_repository_is_locked_while_any_process_has_the_descriptor(tmp_path):
    with repository_lock(tmp_path / "r", "the first server") as descriptor:
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[descriptor])
    with (
        pytest.raises(
            ConfigError, match=rf"r is in use by process {os.getpid()} \(the first server\); stop that process"
        ),
        repository_lock(tmp_path / "r", "another"),
    ):
        pass
    child.communicate()
    with repository_lock(tmp_path / "r", "another"):
        assert (tmp_path / "r" / ".versions" / ".served").read_text() == f"{os.getpid()} another"


def test_a_lock_of_a_killed_process_is_waited_for(tmp_path):
    with repository_lock(tmp_path, "a server") as descriptor:
        child = subprocess.Popen(["sleep", "0.3"], pass_fds=[descriptor])
    (tmp_path / ".versions" / ".served").write_text("999999999 a server that was killed")
    with repository_lock(tmp_path, "another"):
        assert child.poll() is not None
    child.wait()


def test_a_lock_that_can_not_be_made(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigError, match=r"the lock of the repository, can't be made: Not a directory"),
        repository_lock(tmp_path / "file", "a server"),
    ):
        pass


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Stands for /dev/shm."""
    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path)
    return tmp_path


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_memory_of_dead_servers_is_removed_and_that_of_others_stays(folder):
    for name in ("nann-triton-dead-1", "nann-triton-dead-lock", "nann-triton-older-1", "psm_1", "nann-triton-x-lock"):
        (folder / name).touch()
    with own_regions("nann-triton-own") as descriptor, (folder / "nann-triton-x-lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        (folder / "nann-triton-own-1").touch()
        assert os.fstat(descriptor).st_mode & 0o777 == 0o600
        remove_dead()
        of_others = {"psm_1", "nann-triton-older-1", "nann-triton-x-lock"}
        assert names(folder) == {"nann-triton-own-1", "nann-triton-own-lock", *of_others}
    assert names(folder) == of_others


def test_a_server_without_shared_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path / "nowhere")
    remove_dead()
    with (
        pytest.raises(ServerError, match=r"share memory in .*nowhere, which can't be used"),
        own_regions("nann-triton-x"),
    ):
        pass


class FullDisk(io.StringIO):
    """Takes nothing while it is full."""

    full = True

    def write(self, text):
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(text)


def test_a_log_that_can_not_be_written_does_not_stop_the_server():
    reading, writing = os.pipe()
    disk = FullDisk()
    relay = LogRelay(os.fdopen(reading), disk, NO_GPU_LINES)
    with os.fdopen(writing, "w") as stream:
        stream.write("a line\n" * 10_000)  # more than the pipe holds
        stream.flush()
        wait_until(lambda: len(relay.lines) == 2000)
        disk.full = False
        stream.write("E1126 CudaDriverHelper has not been initialized.\nthere is room\n")
    relay.close()
    assert disk.getvalue().splitlines()[-1] == "there is room"
    assert not relay.says_load_failed
    assert "Cuda" not in f"{disk.getvalue()}{relay.lines}"
