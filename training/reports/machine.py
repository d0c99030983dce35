"""Where a result comes from: command, configuration, machine, versions, date. No name of the machine, no paths."""

from __future__ import annotations

import platform
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import torch

from nann.kernels import core_count

from ..studies.settings import StudySettings
from .store import Json

_PACKAGES = ("nann", "torch", "numpy", "hnswlib")


def provenance(command: str, settings: StudySettings, users: int) -> Json:
    """What stands beside every result.

    Args:
        command: as typed.
        settings: of the studies.
        users: how many test users took part.
    """
    return {
        "command": command,
        "size": settings.size,
        "seeds": list(settings.seeds),
        "users": users,
        "configuration": settings.base.model_dump(mode="json", exclude={"search", "seed"}),
        "machine": machine(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        "date": datetime.now(timezone.utc).date().isoformat(),
    }


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


def in_words(body: Json) -> str:
    """One line of the report."""
    where = body["machine"]
    parts = [
        f"`{body['command']}`",
        f"{body['configuration']['optimization']['steps']:,} training steps of "
        f"{body['configuration']['optimization']['batch_size']:,} contexts",
        f"{body['users']:,} test users",
        f"seeds {body['seeds']}" if len(body["seeds"]) > 1 else f"seed {body['seeds'][0]}",
        f"{where['cpu']}, {where['cores']} cores" + (f", {where['gpu']}" if where["gpu"] else ", no GPU"),
        ", ".join(f"{name} {number}" for name, number in body["versions"].items()),
        body["date"],
    ]
    return "; ".join(parts)
