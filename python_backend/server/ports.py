"""Checks TCP ports, and finds free ones."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from nann.errors import ConfigError


def check_ports(host: str, ports: Mapping[str, int]) -> None:
    """Checks that the server can bind its ports, given by the names of their command line options.

    Raises:
        ConfigError: naming the port, the option and what to do.
    """
    options: dict[int, str] = {}
    for option, port in ports.items():
        if not 1 <= port <= 65535:
            raise ConfigError(f"--{option} is {port}; expected 1 to 65535")
        if port in options:
            raise ConfigError(f"--{options[port]} and --{option} are both {port}; give each its own port")
        options[port] = option
        with _socket() as probe:
            try:
                probe.bind((host, port))
            except OSError as error:
                raise ConfigError(
                    f"port {port} on {host} can't be used: {error.strerror}; "
                    f"stop what listens there or choose another with --{option}"
                ) from error


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Different ports that nothing uses at this moment."""
    sockets = [_socket() for _ in range(count)]
    try:
        for probe in sockets:
            probe.bind((host, 0))
        return [probe.getsockname()[1] for probe in sockets]
    finally:
        for probe in sockets:
            probe.close()


def _socket() -> socket.socket:
    probe = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # As in the server: a port in TIME_WAIT counts as free.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return probe
