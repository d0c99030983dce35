"""What a log is read from, and how: kept in the manifest, so that more of the same can be read later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .canonical_rows import LogColumns, LogRules
from .csv_rows import TextFormat
from .item_table import ItemTable


@dataclass(frozen=True)
class ProfileTable:
    """A table of users.

    Attributes:
        path: CSV (with a header), JSON lines or Parquet.
        user: its column of user ids.
        fields: the columns that are profile fields; empty: all others.
        numbers: fields to be read as numbers; columns of floats always are.
    """

    path: Path
    user: str = "user"
    fields: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()


@dataclass(frozen=True)
class LogSource:
    """A log's files and how they are read; see `read_log`."""

    files: tuple[Path, ...]
    columns: LogColumns
    name: str = "log"
    text: TextFormat = field(default_factory=TextFormat)
    rules: LogRules = field(default_factory=LogRules)
    profile: ProfileTable | None = None
    items: ItemTable | None = None

    def settings(self) -> dict[str, Any]:
        """All but the files, for the manifest."""
        settings = {"columns": self.columns.named(), "text": asdict(self.text), "rules": asdict(self.rules)}
        tables = {"profile": self.profile, "items": self.items}
        return settings | {
            key: {**asdict(table), "path": str(table.path)} for key, table in tables.items() if table is not None
        }

    @classmethod
    def of_settings(cls, files: tuple[Path, ...], name: str, settings: Mapping[str, Any]) -> LogSource:
        """Other files, read in the same way; the inverse of `settings`."""
        profile, items = (
            {**settings[key], "path": Path(settings[key]["path"])} if key in settings else None
            for key in ("profile", "items")
        )
        return cls(
            files,
            LogColumns(**{"time": None, **settings["columns"]}),
            name,
            TextFormat(**_with_tuples(settings["text"])),
            LogRules(**_with_tuples(settings["rules"])),
            None if profile is None else ProfileTable(**_with_tuples(profile)),
            None if items is None else ItemTable(**_with_tuples(items)),
        )


def _with_tuples(body: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in body.items()}
