"""Connections to Redis: what their URLs may say, TLS, and the password, which is in no URL and no message.

This file alone imports the package `redis`, an extra: import it where a Redis is configured, and nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisUnreachable
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeout
from redis.retry import Retry

from nann.errors import ConfigError

__all__ = ["Redis", "RedisError", "RedisTimeout", "RedisUnreachable", "checked_url", "open_redis"]

PASSWORD_VARIABLE = "NANN_REDIS_PASSWORD"  # noqa: S105
"""Environment variable that may hold the password."""
PASSWORD_FILE_VARIABLE = "NANN_REDIS_PASSWORD_FILE"  # noqa: S105
"""Environment variable that may name a file that holds it, such as a mounted secret."""
_FORM = "redis://[USER@]HOST[:PORT][/DATABASE], or rediss:// for TLS"
_TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


def open_redis(url: str, *, timeout_s: float) -> Redis:
    """A client of one Redis; it connects with its first command, and again after each failure.

    Nothing is sent twice by itself: whoever gets no answer does not know whether the command was done.

    Args:
        url: redis://[USER@]HOST[:PORT][/DATABASE], or rediss:// for TLS, which takes the options ssl_ca_certs (whoever
            signs the server's certificate, if the system does not know it), ssl_certfile and ssl_keyfile (the client's
            own), as in rediss://redis.example:6380/0?ssl_ca_certs=/etc/ca.crt
        timeout_s: of connecting, and of each answer.

    Raises:
        ConfigError: if the URL, a file that it names, or the password can't be used. Commands raise `RedisError`.
    """
    checked_url(url)
    tls = {"ssl_check_hostname": True} if urlsplit(url).scheme == "rediss" else {}
    return Redis.from_url(
        url,
        password=_password(os.environ),
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        **tls,
    )


def checked_url(url: str) -> str:
    """A URL as `open_redis` takes it, which does not connect.

    Raises:
        ConfigError: if it is none. The message has no password, should the URL hold one.
    """
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port != 0
    except ValueError:  # a port that is no number: urlsplit's own message would show what stands there
        raise ConfigError(f"a Redis URL has no valid host or port; expected {_FORM}") from None
    shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    if parts.password is not None:
        raise ConfigError(
            f"the Redis URL {shown} holds a password, which everybody could read in the list of processes; leave it "
            f"out, and set {PASSWORD_VARIABLE} or {PASSWORD_FILE_VARIABLE}"
        )
    database = parts.path.removeprefix("/")
    if parts.scheme not in ("redis", "rediss") or not parts.hostname or not port_is_fine or parts.fragment:
        raise ConfigError(f"the Redis URL is {shown!r}; expected {_FORM}")
    if database and not (database.isascii() and database.isdecimal()):
        raise ConfigError(f"the Redis URL {shown} has the database {database!r}; expected its number")
    _check_options(shown, parts.scheme, dict(parse_qsl(parts.query, keep_blank_values=True)))
    return url


def _check_options(shown: str, scheme: str, options: Mapping[str, str]) -> None:
    for name, value in options.items():
        if scheme != "rediss" or name not in _TLS_FILES:
            raise ConfigError(
                f"the Redis URL {shown} has an option {name!r}; expected none but {', '.join(_TLS_FILES)}, with rediss://"
            )
        if not os.access(value, os.R_OK):
            raise ConfigError(f"the Redis URL {shown}: {name} is {value!r}, which can't be read")


def _password(environment: Mapping[str, str]) -> str | None:
    """The password, or None where none is set."""
    password, path = environment.get(PASSWORD_VARIABLE), environment.get(PASSWORD_FILE_VARIABLE)
    if password and path:
        raise ConfigError(f"both {PASSWORD_VARIABLE} and {PASSWORD_FILE_VARIABLE} are set; set one of them")
    if not path:
        return password or None
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{PASSWORD_FILE_VARIABLE} is {path!r}, which can't be read: {type(error).__name__}"
        ) from None
    if not text:
        raise ConfigError(f"{PASSWORD_FILE_VARIABLE} is {path!r}, which is empty; expected the password of Redis")
    return text
