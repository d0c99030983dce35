"""The key that opens the server's endpoints for model control to those who run it."""

from __future__ import annotations

import os
from pathlib import Path

from nann.errors import ConfigError

ADMIN_HEADER = "nann-admin-key"
"""HTTP header that carries the key."""
GRPC_ADMIN_HEADER = f"triton-grpc-protocol-{ADMIN_HEADER}"
"""Key of gRPC metadata that carries it."""
ADMIN_KEY_VARIABLE = "NANN_ADMIN_KEY"
"""Environment variable that may hold it."""
_OTHERS = 0o077


def read_admin_key(path: Path | None) -> str | None:
    """The key in a file, else that in the environment, else None.

    Args:
        path: a file that holds nothing else and that nobody but its owner may read; None: look in the environment.

    Raises:
        ConfigError: if the file can't be read, others may read it, or the key is empty or not one line of text.
    """
    if path is None:
        key = os.environ.get(ADMIN_KEY_VARIABLE)
        return None if key is None else _checked(key, f"the environment variable {ADMIN_KEY_VARIABLE}")
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the admin key in {path} can't be read: {error}") from error
    if mode & _OTHERS:
        raise ConfigError(f"{path} holds the admin key and others may read it; run `chmod 600 {path}`")
    return _checked(text, str(path))


def _checked(text: str, where: str) -> str:
    key = text.strip()
    if not key:
        raise ConfigError(f"{where} holds an empty admin key; `openssl rand -hex 16` makes one")
    # It travels as an HTTP header and stands in an option that is split at colons and equal signs.
    if not (key.isascii() and key.isalnum()):
        raise ConfigError(f"{where} holds an admin key with other characters than letters and digits")
    return key
