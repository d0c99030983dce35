"""TLS files of a client: the certificates that it trusts, and its own."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nann.errors import ConfigError


@dataclass(frozen=True)
class Tls:
    """Files in PEM form. Over HTTP they are for a proxy in front of the server, since Triton's HTTP has no TLS.

    Attributes:
        ca: certificates to trust; None: the system's.
        certificate: the client's own, where the server asks for one.
        key: its private key.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("a client certificate and its key belong together; expected both, or neither")
        for path in (self.ca, self.certificate, self.key):
            if path is not None and not Path(path).is_file():
                raise ConfigError(f"{path} is no file; expected certificates or a key in PEM form")

    def grpc_options(self) -> dict[str, Any]:
        """Arguments of tritonclient's gRPC client."""
        files = (
            ("root_certificates", self.ca),
            ("certificate_chain", self.certificate),
            ("private_key", self.key),
        )
        return {"ssl": True, **{name: str(path) for name, path in files if path is not None}}

    def http_options(self) -> dict[str, Any]:
        """Arguments of tritonclient's HTTP client."""
        files = (("ca_certs", self.ca), ("certfile", self.certificate), ("keyfile", self.key))
        return {"ssl": True, "ssl_options": {name: str(path) for name, path in files if path is not None}}

    def context(self) -> ssl.SSLContext:
        """For asyncio's HTTP client."""
        context = ssl.create_default_context(cafile=self.ca)
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context
