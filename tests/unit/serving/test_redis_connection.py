"""Connections to Redis: URLs that are refused, passwords, TLS, and a Redis that does not answer."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.certificates import make_certificate
from support.redis_server import running_redis

from nann.errors import ConfigError
from nann.python_backend.redis_connection import RedisError, RedisTimeout, checked_url, open_redis


@pytest.fixture(autouse=True)
def _no_password(monkeypatch):
    for name in ("NANN_REDIS_PASSWORD", "NANN_REDIS_PASSWORD_FILE"):
        monkeypatch.delenv(name, raising=False)


REFUSED = {
    "http://host": r"the Redis URL is 'http://host'; expected redis://\[USER@\]HOST",
    "redis://": "the Redis URL is 'redis:",
    "host:6379": "the Redis URL is 'host:6379'; expected",
    "redis://host:0/1": "the Redis URL is 'redis://host:0/1'; expected",
    "redis://host/0#x": "the Redis URL is 'redis://host/0#x'; expected",
    "redis://host:x/1": "a Redis URL has no valid host or port",
    "redis://[::1/1": "a Redis URL has no valid host or port",
    "redis://host/zero": "the Redis URL redis://host/zero has the database 'zero'; expected its number",
    "redis://host/0?db=1": "has an option 'db'; expected none but ssl_ca_certs, ssl_certfile, ssl_keyfile, with redi",
    "redis://host?ssl_ca_certs=/etc/passwd": "has an option 'ssl_ca_certs'; expected none but",
    "rediss://host?ssl_ca_certs=/no/such": "ssl_ca_certs is '/no/such', which can't be read",
    "redis://me:hush@host/0": "the Redis URL redis://host/0 holds a password, .* set NANN_REDIS_PASSWORD or NANN",
    "redis://:hush@host/0": "the Redis URL redis://host/0 holds a password",
}


@pytest.mark.parametrize("url", REFUSED)
def test_what_is_no_url_of_a_redis(url):
    with pytest.raises(ConfigError, match=REFUSED[url]) as raised:
        open_redis(url, timeout_s=1)
    assert "hush" not in str(raised.value)


@given(st.text(alphabet="redis:/@[]?#%=&.0x ", max_size=25), st.sampled_from(["", "redis://", "redis://:hush@"]))
def test_any_text_is_a_url_or_a_clear_error(text, head):
    try:
        checked_url(head + text)
    except ConfigError as error:
        words = str(error)
    else:
        words = ""
    assert "hush" not in words


def test_passwords(tmp_path, monkeypatch):
    secret = tmp_path / "secret"
    secret.write_text("hush\n")
    monkeypatch.setenv("NANN_REDIS_PASSWORD_FILE", str(secret))
    with running_redis(tmp_path / "redis", "--requirepass", "hush") as server:
        assert server.client.set("a", 1)
        monkeypatch.setenv("NANN_REDIS_PASSWORD", "hush")
        with pytest.raises(ConfigError, match="both NANN_REDIS_PASSWORD and NANN_REDIS_PASSWORD_FILE are set; set one"):
            open_redis(server.url, timeout_s=1)
        monkeypatch.delenv("NANN_REDIS_PASSWORD_FILE")
        assert open_redis(f"redis://default@127.0.0.1:{server.port}", timeout_s=1).get("a") == b"1"
        monkeypatch.setenv("NANN_REDIS_PASSWORD", "wrong-word")
        with pytest.raises(RedisError, match=r"invalid username-password") as raised:
            server.client.ping()
        assert "wrong-word" not in str(raised.value)


def test_files_with_no_password(tmp_path, monkeypatch):
    monkeypatch.setenv("NANN_REDIS_PASSWORD_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="none', which can't be read: FileNotFoundError"):
        open_redis("redis://host", timeout_s=1)
    (tmp_path / "none").write_text(" \n")
    with pytest.raises(ConfigError, match="none', which is empty; expected the password of Redis"):
        open_redis("redis://host", timeout_s=1)


@contextlib.contextmanager
def tls_in_front_of(port: int, certificate, key):
    """A port of 127.0.0.1 that speaks TLS and passes the bytes on; the wheel's Redis was built without TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def serve(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it is closed, at the end
            while True:
                accepted, _ = listening.accept()
                with contextlib.suppress(ssl.SSLError):  # a client that does not trust the certificate
                    pass_on(accepted)

    def pass_on(accepted: socket.socket) -> None:
        with context.wrap_socket(accepted, server_side=True) as front, socket.socket() as back:
            back.connect(("127.0.0.1", port))
            while asked := front.recv(65536):
                back.sendall(asked)
                front.sendall(back.recv(65536))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_tls_checks_who_the_server_is(tmp_path):
    certificate, key = make_certificate(tmp_path, "redis")
    with running_redis(tmp_path / "redis") as server, tls_in_front_of(server.port, certificate, key) as port:
        url = f"rediss://127.0.0.1:{port}/0"
        with contextlib.closing(open_redis(f"{url}?ssl_ca_certs={certificate}", timeout_s=10)) as client:
            assert client.set("a", 1)
        with (
            contextlib.closing(open_redis(url, timeout_s=10)) as client,
            pytest.raises(RedisError, match="CERTIFICATE"),
        ):
            client.ping()
        named = f"rediss://localhost:{port}/0?ssl_ca_certs={certificate}"
        with contextlib.closing(open_redis(named, timeout_s=10)) as client, pytest.raises(RedisError, match="ostname"):
            client.ping()


def test_a_redis_that_does_not_answer_costs_the_timeout_once():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun_s = time.monotonic()
        with (
            contextlib.closing(open_redis(f"redis://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.2)) as client,
            pytest.raises(RedisTimeout),
        ):
            client.get("a")
        assert time.monotonic() - begun_s < 1
