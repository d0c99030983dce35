"""The machine that a result comes from: no name of it, no paths."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from nann.kernels import core_count


def machine() -> dict[str, str | int | None]:
    """Processor, usable cores, and the GPU's name, None without one."""
    cores = core_count()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": _cpu_model(), "cores": cores, "gpu": gpu}


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
