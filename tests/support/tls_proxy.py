"""A proxy that terminates TLS, as nginx does."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def tls_proxy(port: int, certificate: Path, key: Path) -> Iterator[str]:
    """host:port of a proxy with this certificate, in front of a port of 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True) as listener:
        threading.Thread(target=_serve, args=(listener, port), daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def _serve(listener: ssl.SSLSocket, port: int) -> None:
    while True:
        try:
            front, _ = listener.accept()
        except ssl.SSLError:
            continue  # a client that does not trust us
        except OSError:
            return  # closed
        back = socket.create_connection(("127.0.0.1", port))
        for pair in ((front, back), (back, front)):
            threading.Thread(target=_copy, args=pair, daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
    except OSError:
        pass
    finally:
        target.close()
