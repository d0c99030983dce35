"""Ports that two test runs at the same time are given."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.ports import free_ports
from support.waiting import wait_until

TESTS = Path(__file__).resolve().parents[2]


def test_another_process_gets_others_and_none_is_given_twice():
    code = "from support.ports import free_ports; print(*free_ports(50)); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        theirs = [int(port) for port in other.stdout.readline().split()]
        ours = free_ports(25) + free_ports(25)
        other.communicate("\n")
    assert len({*theirs, *ours}) == 100


def test_a_port_that_is_listened_on_is_passed_over():
    (port,) = free_ports(1)
    with socket.create_server(("127.0.0.1", port + 1)):
        assert free_ports(1) == [port + 2]


def test_a_wait_that_ends_says_what_there_was_instead():
    assert wait_until(lambda: 3) == 3
    with pytest.raises(AssertionError, match="not within 0 s; two are left"):
        wait_until(lambda: False, lambda: "two are left", timeout_s=0)
