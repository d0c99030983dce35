"""Provenance of a result: command, machine, versions; without the machine's name or paths."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path

import torch

from nann.threads import core_count

from .store import Json


def provenance(command: str, packages: Sequence[str], **details: Json) -> dict[str, Json]:
    """The provenance of a result: the command as typed, `details`, the machine, versions of installed packages."""
    installed = {each.metadata["Name"]: each.version for each in distributions()}
    versions = {name: installed[name] for name in packages if name in installed}
    about = {"machine": machine(), "versions": {"python": platform.python_version(), **versions}}
    return {"command": command, **details, **about}


def in_words(made: Json, details: Sequence[str]) -> str:
    """The provenance of a result in one line, `details` after the command."""
    where = made["machine"]
    parts = [
        f"`{made['command']}`",
        *details,
        f"{where['cpu']}, {where['cores']} cores" + (f", {where['gpu']}" if where["gpu"] else ", no GPU"),
        ", ".join(f"{name} {number}" for name, number in made["versions"].items()),
        made["date"] + (f", {made['took_s']} s" if "took_s" in made else ""),
    ]
    return "; ".join(parts)


def machine() -> dict[str, str | int | None]:
    """Processor, usable cores, and the GPU's name, None without one."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": _cpu_model(), "cores": core_count(), "gpu": gpu}


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
