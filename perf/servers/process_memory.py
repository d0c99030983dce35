"""Memory of a server's processes by model: PSS, which counts a page shared by several processes once in total."""

from __future__ import annotations

from pathlib import Path

from nann.signature import PROCESSES

_PROC = Path("/proc")


def model_pss_mb(server_pid: int) -> dict[str, float]:
    """PSS in MB of each model's Python processes, summed over its instances.

    Args:
        server_pid: of tritonserver, which leads the process group.
    """
    found = {spec.name: 0.0 for spec in PROCESSES}  # the ensemble has no process
    for folder in _PROC.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            group = int((folder / "stat").read_text().rpartition(")")[2].split()[2])
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            pss_kb = _pss_kb(folder) if group == server_pid else 0
        except (OSError, ValueError):  # it ended meanwhile, or belongs to another user
            continue
        for model in found:
            if group == server_pid and f"/{model}/" in command:
                found[model] += pss_kb / 1e3
    return {model: mb for model, mb in found.items() if mb}


def _pss_kb(folder: Path) -> int:
    for line in (folder / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0
