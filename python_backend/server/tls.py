"""TLS of the server's gRPC endpoint."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from nann.errors import ConfigError


@dataclass(frozen=True)
class ServerTls:
    """Certificate and key of the server, as PEM files. Triton's HTTP has no TLS, so it stays on loopback.

    Attributes:
        certificate: the server's certificate and its chain.
        key: its private key.
        client_ca: certificates that sign client certificates; None: clients need none.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    @classmethod
    def of_options(cls, certificate: Path | None, key: Path | None, client_ca: Path | None) -> ServerTls | None:
        """Combines `--tls-cert`, `--tls-key` and `--tls-ca`; None if none of them is given.

        Raises:
            ConfigError: if certificate or key is missing, a file is not a readable PEM file, or their contents
                can't be used together.
        """
        given = {"--tls-cert": certificate, "--tls-key": key, "--tls-ca": client_ca}
        if not any(given.values()):
            return None
        if certificate is None or key is None:
            missing = "--tls-key" if key is None else "--tls-cert"
            raise ConfigError(f"{missing} is missing: TLS takes --tls-cert and --tls-key together")
        for option, path in given.items():
            if path is not None and "-----BEGIN " not in _text(option, path):
                raise ConfigError(
                    f"{option} {path} is not a PEM file; expected a line such as -----BEGIN CERTIFICATE-----"
                )
        _check_contents(certificate, key, client_ca)
        return cls(certificate, key, client_ca)

    def arguments(self) -> list[str]:
        """Options of tritonserver."""
        mutual = [] if self.client_ca is None else [f"--grpc-root-cert={self.client_ca.resolve()}"]
        return [
            "--grpc-use-ssl=true",
            f"--grpc-server-cert={self.certificate.resolve()}",
            f"--grpc-server-key={self.key.resolve()}",
            *mutual,
            f"--grpc-use-ssl-mutual={str(self.client_ca is not None).lower()}",
        ]


def _check_contents(certificate: Path, key: Path, client_ca: Path | None) -> None:
    """Loads the files: with a pair that does not fit, Triton starts, and every connection fails."""

    def refuse_to_ask() -> str:
        raise ConfigError(f"--tls-key {key} is encrypted; `openssl pkey` writes it without a password")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, refuse_to_ask)
    except ssl.SSLError as error:
        raise ConfigError(
            f"--tls-key {key} is not the key of --tls-cert {certificate}, or one of them is damaged: {error.reason}"
        ) from error
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except ssl.SSLError as error:
            raise ConfigError(f"--tls-ca {client_ca} holds no certificate that can be read: {error.reason}") from error


def _text(option: str, path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise ConfigError(f"{option} {path} can't be read: {error.strerror}") from error
