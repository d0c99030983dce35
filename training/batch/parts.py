"""The output of a batch job: a folder of Parquet parts, each written whole or not at all, and what they answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from nann.durable_files import entries, new_file, write_json
from nann.errors import ConfigError
from nann.item_ids import NUMBERS, kind_of

from .answers import Answers
from .histories import Histories

JOB_FILE, ANSWERS_FOLDER = "job.json", "answers"
"""What was asked, and the parts: apart, since polars refuses a folder of Parquet files that holds another file."""


@dataclass(frozen=True)
class Parts:
    """The parts of one job.

    Attributes:
        folder: of the job.
        users: how many the job has.
        size: users a part.
    """

    folder: Path
    users: int
    size: int

    @classmethod
    def open(cls, folder: Path, users: int, size: int, job: dict[str, Any]) -> Parts:
        """Begins a job in a new folder, or goes on with the same one.

        Args:
            folder: of the parts.
            users: how many there are.
            size: users a part.
            job: what decides the answers, as JSON has it.

        Raises:
            ConfigError: if the folder holds another job, or something else.
        """
        path, job = folder / JOB_FILE, json.loads(json.dumps({**job, "part_users": size}))
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            try:
                before = json.loads(path.read_text(encoding="utf-8"))
                differs = [name for name in job if before.get(name) != job[name]]
            except (ValueError, AttributeError) as error:
                raise ConfigError(f"{path} can't be read ({error}); give another folder, or remove this one") from error
            if differs:
                name = differs[0]
                raise ConfigError(
                    f"{folder} holds answers of another job: its {name} is {before.get(name)}, and this one's "
                    f"{job[name]}; give another folder, or remove this one"
                )
        elif entries(folder):
            raise ConfigError(f"{folder} is not empty, and holds no batch job; give another folder")
        else:
            write_json(path, job)
        return cls(folder, users, size)

    def path(self, first: int) -> Path:
        """The part that begins with this user, by place."""
        return self.folder / ANSWERS_FOLDER / f"part-{first:010}-{min(first + self.size, self.users) - 1:010}.parquet"

    def missing(self) -> list[range]:
        """The users of each part that is not there."""
        starts = range(0, self.users, self.size)
        return [range(start, min(start + self.size, self.users)) for start in starts if not self.path(start).exists()]

    def write(self, users: pl.Series, first: int, answers: Answers) -> None:
        """Writes one part: `user`, `item_ids` and `scores`, best first and without padding."""
        kind, ids = kind_of(answers.item_ids), answers.item_ids
        lengths = pl.Series("length", np.count_nonzero(~kind.is_padding(ids), axis=1))  # padding is at the end
        lists = (
            pl.Series("item_ids", ids).arr.to_list()
            if kind is NUMBERS
            else pl.Series("item_ids", ids.tolist(), pl.List(pl.String))
        )
        columns = [users.rename("user"), lists, pl.Series("scores", answers.scores).arr.to_list()]
        heads = pl.col("item_ids", "scores").list.head(pl.col("length"))
        frame = pl.DataFrame([*columns, lengths]).select("user", heads)
        with new_file(self.path(first)) as temporary:
            frame.write_parquet(temporary)


def write_parts(
    parts: Parts,
    histories: Histories,
    block: int,
    answers: Callable[[Iterable[Histories]], Iterator[Answers]],
    *,
    check: Callable[[], None] = lambda: None,
    progress: Callable[[int], None] = lambda users: None,
) -> tuple[int, int]:
    """Answers and writes the parts that are missing.

    Args:
        parts: of the job.
        histories: of all its users.
        block: users that are asked for at once.
        answers: gives those of each block, in order.
        check: called before a part is written; raises if its answers may not be kept.
        progress: called with the number of users of each block.

    Returns:
        How many users were answered, and how many items of their histories the bundle does not know.
    """
    missing = parts.missing()

    def blocks() -> Iterator[Histories]:
        for part in missing:
            for start in range(part.start, part.stop, block):
                yield histories[start : min(start + block, part.stop)]

    given, answered, unknown = answers(blocks()), 0, 0
    for part in missing:
        found, users = [], 0
        while users < len(part):
            found.append(next(given))
            users += len(found[-1].scores)
            progress(len(found[-1].scores))
        check()
        joined = Answers.joined(found)
        parts.write(histories.users[part.start : part.stop], part.start, joined)
        answered, unknown = answered + users, unknown + joined.unknown_items
    return answered, unknown
