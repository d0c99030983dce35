"""How many processes search side by side (`nann serve --steps one` and `two`)."""

from __future__ import annotations

from pathlib import Path

from nann.bundle import SCORER_FILE, USER_ENCODER_FILE, Bundle
from nann.durable_files import write_json

from ..recorded_setting import recorded_setting
from ..version_folder import ONE

SETTING_FILE = Path(".versions") / "instances.json"
_MORE_BYTES = 512 << 20
"""What all processes but the first may take together."""
_PROCESS_BYTES = 100 << 20
"""What a further process takes, about (`nann bench --only instances`)."""


def fitting_instances(bundle: Bundle, steps: str, cores: int) -> int:
    """One for each core, as far as memory allows.

    Each has what is in the ONNX file of the user encoder, and in ONE in the scorer's. Weights in a file beside it, such
    as item tables, are memory-mapped, so that all processes share them.
    """
    names = (USER_ENCODER_FILE, SCORER_FILE) if steps == ONE else (USER_ENCODER_FILE,)
    weights = sum(int(bundle.manifest["files"][name]["bytes"]) for name in names)
    return max(1, min(cores, 1 + _MORE_BYTES // (_PROCESS_BYTES + weights)))


def recorded_instances(repository: Path) -> int:
    """How many the server of a repository has, unless its config.pbtxt of beam_retrieval says another number than 1.

    Raises:
        ConfigError: if what is recorded can't be read.
    """
    advice = "remove it, and start `nann serve` again"
    instances = recorded_setting(repository / SETTING_FILE, "instances", int, advice)
    return 1 if instances is None else instances


def record_instances(repository: Path, instances: int) -> bool:
    """Records how many the next start has; returns whether that is another number than before."""
    changes = instances != recorded_instances(repository)
    if changes:
        write_json(repository / SETTING_FILE, {"instances": instances})
    return changes
