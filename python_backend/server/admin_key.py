"""The admin key, which opens the server's endpoints for model control."""

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
    """Reads the key from a file or from the environment; None if there is none.

    Args:
        path: a file that holds only the key and that only its owner may read; None: read the environment.

    Raises:
        ConfigError: if the file can't be read, other users may read it, or the key is empty or not one line of text.
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
        raise ConfigError(f"{path} holds the admin key, and other users may read it; run `chmod 600 {path}`")
    return _checked(text, str(path))


def _checked(text: str, where: str) -> str:
    key = text.strip()
    if not key:
        raise ConfigError(f"{where} holds an empty admin key; `openssl rand -hex 16` makes one")
    # The key is sent as an HTTP header, and is part of an option that Triton splits at colons and equal signs.
    if not (key.isascii() and key.isalnum()):
        raise ConfigError(f"{where} holds an admin key with characters other than letters and digits")
    return key
