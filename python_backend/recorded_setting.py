"""What `nann serve` keeps in a model repository for its next start: files of one value each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from nann.errors import ConfigError

ValueT = TypeVar("ValueT")


def recorded_setting(path: Path, name: str, read: Callable[[Any], ValueT], advice: str) -> ValueT | None:
    """The value of the name in a JSON file, as `read` makes it; None: there is no file.

    Raises:
        ConfigError: if it can't be read; `advice` says what to do.
    """
    if not path.exists():
        return None
    try:
        return read(json.loads(path.read_text(encoding="utf-8"))[name])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} can't be read ({error}); {advice}") from error
