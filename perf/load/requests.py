"""Real requests: validation users' histories as perf_analyzer's `--input-data`, or as a log for `nann plan-shapes`.

python -m nann.perf.load.requests --data build/data/complete_journey --out build/perf/requests.json
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from nann.item_ids import Ids, kind_of
from nann.signature import BEHAVIOR_ITEM_IDS

from ..command import run_command


def histories(data: Path, length: int, users: int) -> list[list[Any]]:
    """External item ids of validation users, oldest first, without padding.

    Raises:
        DataError: if the folder is no prepared data set.
    """
    from ...training.data.prepared import PreparedData

    return unpadded(PreparedData.load(data).queries("validation", length, users).external_ids)


def unpadded(external_ids: Ids) -> list[list[Any]]:
    """Rows of external ids, `[U, L]`, as lists without padding; a user without behaviours gets a padding."""
    kind = kind_of(external_ids)
    rows = zip(kind.plain(external_ids), kind.is_padding(external_ids), strict=True)
    return [[item for item, out in zip(*row, strict=True) if not out] or [kind.request_padding] for row in rows]


def perf_analyzer_input(users: Sequence[Sequence[Any]]) -> dict[str, list[dict[str, Any]]]:
    """perf_analyzer's JSON: one step per user, each of its own length."""
    return {"data": [{BEHAVIOR_ITEM_IDS.name: {"content": list(ids), "shape": [len(ids)]}} for ids in users]}


def main(
    data: Annotated[Path, typer.Option(help="Prepared data set.")],
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("build/perf/requests.json"),
    length: Annotated[int, typer.Option(min=1, help="Most behaviours in a history.")] = 50,
    users: Annotated[int, typer.Option(min=1, help="Most users.")] = 1000,
    log: Annotated[bool, typer.Option("--log", help="Write a log for `nann plan-shapes` instead.")] = False,
) -> None:
    """Write validation users' histories as requests."""
    each = histories(data, length, users)
    out.parent.mkdir(parents=True, exist_ok=True)
    if log:
        text = "".join(json.dumps({BEHAVIOR_ITEM_IDS.name: ids}, ensure_ascii=False) + "\n" for ids in each)
    else:
        text = json.dumps(perf_analyzer_input(each)) + "\n"
    out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
