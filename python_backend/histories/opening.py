"""Which store of histories a server asks: opened by its address, and recorded in the model repository."""

from __future__ import annotations

from pathlib import Path

from nann.durable_files import remove_file, write_json
from nann.errors import ConfigError
from nann.histories import HISTORY_LIMIT, FileHistories, Histories

from ..recorded_setting import recorded_setting

SETTING_FILE = ".histories.json"
"""In a model repository. Triton does not look at it."""
REDIS_SCHEMES = ("redis://", "rediss://")
FEAST_SCHEME = "feast:"


def open_histories(address: str, timeout_s: float, limit: int = HISTORY_LIMIT) -> Histories:
    """Opens a store; one behind a network is not connected to yet.

    Args:
        address: a folder, or `redis://host:6379/0`, `rediss://...`, or `feast:FOLDER#VIEW`.
        timeout_s: how long a read may take.
        limit: the most behaviours of a user that are read, or kept when behaviours are added.

    Raises:
        ConfigError: if the address is of no store.
        DataError: if the folder is no store.
    """
    if address.startswith(REDIS_SCHEMES):
        from .redis_histories import RedisHistories

        return RedisHistories(address, timeout_s, limit)
    if address.startswith(FEAST_SCHEME):
        from .feast_histories import FeastHistories

        return FeastHistories(address, limit)
    if "://" in address:
        raise ConfigError(
            f"the store of histories is {address!r}; expected a folder that `nann prepare` or `nann events` wrote, or "
            "redis://HOST:PORT/DATABASE, or feast:FOLDER"
        )
    return FileHistories(Path(address))


def is_folder(address: str) -> bool:
    """Whether an address is the folder of a `FileHistories`."""
    return "://" not in address and not address.startswith(FEAST_SCHEME)


def recorded_address(repository: Path) -> str | None:
    """The address of the store that the server of a repository asks; None: it has none.

    Raises:
        ConfigError: if what is recorded can't be read.
    """
    return recorded_setting(
        repository / SETTING_FILE, "address", str, "start the server with `nann serve --histories` again"
    )


def record_address(repository: Path, address: str | None) -> None:
    """Records which store the server of a repository asks, from its next start on; None: no store."""
    path = repository / SETTING_FILE
    if address is not None and address.startswith(FEAST_SCHEME):
        address = FEAST_SCHEME + str(Path(address.removeprefix(FEAST_SCHEME)).resolve())
    elif address is not None and is_folder(address):
        address = str(Path(address).resolve())
    if address is not None:
        write_json(path, {"address": address})
    elif path.exists():
        remove_file(path)
