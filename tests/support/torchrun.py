"""A script under torchrun: two processes on the CPU, on one node or on two."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_TIMEOUT_S = 240
_SUBNET = "10.213.77"


def two_processes(script: Path, lines: str) -> subprocess.CompletedProcess[str]:
    """Writes the lines into the script and runs it in two processes, which must end well."""
    script.write_text(lines)
    command = [*_torchrun("--standalone", "--nproc-per-node", "2"), str(script)]
    done = subprocess.run(command, capture_output=True, text=True, env=_environment(), timeout=_TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def two_nodes(script: Path, lines: str) -> list[str]:
    """The same, one process on each of two nodes: network namespaces with a cable between them and no other network.

    The variable NODE is "0" or "1". Returns what each node printed; skips the test where there are no namespaces.
    """
    script.write_text(lines)
    with _network() as nodes, contextlib.ExitStack() as stack:
        running = []
        for number, node in enumerate(nodes):
            options = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "rehearsal"]
            options += ["--rdzv-endpoint", f"{_SUBNET}.1:29400", "--local-addr", f"{_SUBNET}.{number + 1}"]
            options += ["--rdzv-conf", f"is_host={int(number == 0)}"]
            command = ["ip", "netns", "exec", node, *_torchrun(*options), str(script)]
            environment = {**_environment(), "NODE": str(number), "GLOO_SOCKET_IFNAME": node}
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
            )
            stack.callback(process.kill)
            running.append(process)
        ended = [process.communicate(timeout=_TIMEOUT_S) for process in running]
        assert [process.returncode for process in running] == [0, 0], [errors[-3000:] for _, errors in ended]
    return [words for words, _ in ended]


@contextlib.contextmanager
def _network() -> Iterator[list[str]]:
    """Two namespaces, each with an end of the cable that is called as the namespace is."""
    ip = shutil.which("ip")
    nodes = [f"nann{os.getpid()}{end}" for end in "ab"]
    if ip is None or os.geteuid() != 0 or subprocess.run([ip, "netns", "add", nodes[0]], check=False).returncode:
        pytest.skip("no network namespaces here: they take root and the command ip")

    def run(*words: str) -> None:
        subprocess.run([ip, *words], check=True, timeout=60)

    with contextlib.ExitStack() as stack:
        stack.callback(run, "netns", "delete", nodes[0])
        run("netns", "add", nodes[1])
        stack.callback(run, "netns", "delete", nodes[1])
        run("-n", nodes[0], "link", "add", nodes[0], "type", "veth", "peer", "name", nodes[1], "netns", nodes[1])
        for number, node in enumerate(nodes, 1):
            run("-n", node, "address", "add", f"{_SUBNET}.{number}/24", "dev", node)
            run("-n", node, "link", "set", "lo", "up")
            run("-n", node, "link", "set", node, "up")
        yield nodes


def _torchrun(*options: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", *options]


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
