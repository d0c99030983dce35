"""A script under torchrun: two processes on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def two_processes(script: Path, lines: str) -> subprocess.CompletedProcess[str]:
    """Writes the lines into the script and runs it in two processes, which must end well."""
    script.write_text(lines)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done
