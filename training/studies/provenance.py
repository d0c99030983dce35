"""Where a study's results come from: command, configuration, machine, versions, date."""

from __future__ import annotations

import platform
from datetime import datetime, timezone
from importlib.metadata import version

from ..reports.machine import machine
from ..reports.store import Json
from .settings import StudySettings

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
