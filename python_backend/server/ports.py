"""Checks addresses, TCP ports and the limit of open files before a server starts, and finds free ports."""

from __future__ import annotations

import resource
import socket
from collections.abc import Mapping

from nann.errors import ConfigError

_MOST_FILES, _LEAST_FILES = 65_536, 256


def raise_file_limit() -> None:
    """Lets this process and its children open as many files as they may, up to 65,536: a connection is one.

    Raises:
        ConfigError: if these are too few. Triton would say that a port is in use.
    """
    limit, highest = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if highest == resource.RLIM_INFINITY else min(_MOST_FILES, highest)
    if wanted < _LEAST_FILES:
        raise ConfigError(
            f"this process may open {wanted} files, and Triton needs {_LEAST_FILES} and one for each connection; raise "
            "the limit, such as with `ulimit -n 4096`"
        )
    if limit != resource.RLIM_INFINITY and limit < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, highest))


def address_of(host: str) -> str:
    """The IPv4 address of a host: Triton's HTTP takes any name for 255.255.255.255, and listens nowhere.

    Raises:
        ConfigError: if it has none.
    """
    try:
        return str(socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--host is {host!r}; expected an IPv4 address, or a name that has one: {error}") from error


def check_ports(host: str, ports: Mapping[str, int]) -> None:
    """Checks that the server can bind its ports, given by the names of their command line options.

    Raises:
        ConfigError: naming the port, the option and what to do; or the host, if it has no address.
    """
    address = address_of(host)
    options: dict[int, str] = {}
    for option, port in ports.items():
        if not 1 <= port <= 65535:
            raise ConfigError(f"--{option} is {port}; expected 1 to 65535")
        if port in options:
            raise ConfigError(f"--{options[port]} and --{option} are both {port}; give each its own port")
        options[port] = option
        with _socket() as probe:
            try:
                probe.bind((address, port))
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
