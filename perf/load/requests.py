"""Real requests for load: validation users' histories, as perf_analyzer's `--input-data` or a log for `plan-shapes`.

python -m nann.perf.load.requests --data build/data/complete_journey --out build/perf/requests.json
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from nann.signature import BEHAVIOR_ITEM_IDS, PADDING_IDS, USER_PROFILE

from ..command import run_command


def histories(data: Path, length: int, users: int) -> list[list[int]]:
    """External item ids of validation users, oldest first, without padding.

    Raises:
        DataError: if the folder is no prepared data set.
    """
    from ...training.data.prepared import PreparedData

    rows = PreparedData.load(data).queries("validation", length, users).external_ids.tolist()
    return [[item for item in row if item not in PADDING_IDS] or [0] for row in rows]


def perf_analyzer_input(users: Sequence[Sequence[int]], profile_fields: int = 0) -> dict[str, list[dict[str, Any]]]:
    """perf_analyzer's JSON: one step a user, each of its own length."""

    def step(ids: Sequence[int]) -> dict[str, Any]:
        tensors = {BEHAVIOR_ITEM_IDS.name: {"content": list(ids), "shape": [len(ids)]}}
        if profile_fields:
            tensors[USER_PROFILE.name] = {"content": [0] * profile_fields, "shape": [profile_fields]}
        return tensors

    return {"data": [step(ids) for ids in users]}


def main(
    data: Annotated[Path, typer.Option(help="Prepared data set.")],
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("build/perf/requests.json"),
    length: Annotated[int, typer.Option(min=1, help="Behaviours a history.")] = 50,
    users: Annotated[int, typer.Option(min=1, help="At most this many.")] = 1000,
    log: Annotated[bool, typer.Option("--log", help="Write a log for `nann plan-shapes` in place of it.")] = False,
) -> None:
    """Write validation users' histories as requests."""
    each = histories(data, length, users)
    out.parent.mkdir(parents=True, exist_ok=True)
    if log:
        text = "".join(json.dumps({BEHAVIOR_ITEM_IDS.name: ids}) + "\n" for ids in each)
    else:
        text = json.dumps(perf_analyzer_input(each)) + "\n"
    out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
