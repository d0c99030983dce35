"""`nann explore` as a process of its own."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.ports import free_ports

WITH_PORTS = """
import sys
from nann.cli import explore, main
command = sys.modules["nann.cli.explore"]
command._GRPC_PORT, command._HTTP_PORT, command._METRICS_PORT = map(int, sys.argv[1:4])
sys.argv = ["nann", "explore", *sys.argv[4:]]
main.main()
"""
"""The usual ports may be those of a server of the person who runs the tests."""


@contextlib.contextmanager
def exploring(bundle: Path, folder: Path, *options: object) -> Iterator[dict[str, Any]]:
    """What the process printed; interrupted, it must end in order."""
    command = [sys.executable, "-c", WITH_PORTS, *free_ports(3), "--bundle", bundle, "--cache", folder / "cache"]
    command += ["--repository", folder / "repository", "--port", 0, "--json", *options]
    process = subprocess.Popen([str(word) for word in command], cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.wait(timeout=60)
        yield json.loads(line)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
        process.stdout.close()
