"""The committed bundle of format version 1, and the answers that it must give in every release."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "bundle_v1"
BUNDLE = FOLDER / "bundle"
TOLERANCE = 1e-4
"""Scores are stored with six decimals, and processors differ in the last bits."""


def answers() -> list[dict[str, Any]]:
    """Requests with their `item_ids`, `scores` and `items_scored`."""
    return json.loads((FOLDER / "answers.json").read_text())
