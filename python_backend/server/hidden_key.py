"""Passes the admin key of the restricted endpoints to the server without showing it in the process list.

Triton takes the key only from its command line. `_hidden_key.cpp`, preloaded into tritonserver, puts it there after the
kernel has published the command line.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from nann.errors import ServerError

from .admin_key import ADMIN_KEY_VARIABLE

_LIBRARY = "nann.python_backend.server._preloaded"
"""The library also contains `_batcher_wakes.cpp`."""


@dataclass(frozen=True)
class HiddenKey:
    """A key for the server that is about to start.

    Attributes:
        pipe: descriptor that the server must inherit; the key can be read from it once.
        placeholder: stands for the key in the command line. It is random, so it is a secret key itself if the
            replacement should fail.
    """

    pipe: int
    placeholder: str = field(default_factory=lambda: secrets.token_hex(16))

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """The environment for the server: `base` without the key, and with the variables that pass the key.

        Raises:
            ServerError: if the preloaded library was not built.
        """
        spec = importlib.util.find_spec(_LIBRARY)
        if spec is None or spec.origin is None:
            raise ServerError(f"{_LIBRARY} is missing; run `pip install .` in the repository (it needs a C++ compiler)")
        rest = base.get("LD_PRELOAD", "")
        return {
            **{name: value for name, value in base.items() if name != ADMIN_KEY_VARIABLE},
            "LD_PRELOAD": f"{spec.origin}:{rest}" if rest else spec.origin,
            "NANN_KEY_PLACEHOLDER": self.placeholder,
            "NANN_KEY_PIPE": str(self.pipe),
        }


@contextmanager
def hidden_key(key: str) -> Iterator[HiddenKey]:
    """Provides the key to one server, which must be started inside the `with` block."""
    reading, writing = os.pipe()
    try:
        with open(writing, "w", encoding="utf-8") as stream:
            stream.write(key)
        yield HiddenKey(reading)
    finally:
        os.close(reading)
