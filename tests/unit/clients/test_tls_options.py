"""TLS options that client and server refuse; tests/integration/test_security.py tests real connections."""

import subprocess

import pytest
from support.certificates import make_certificate

from nann.clients import Tls
from nann.errors import ConfigError
from nann.python_backend.server.tls import ServerTls


@pytest.fixture
def pem(tmp_path):
    path = tmp_path / "some.pem"
    path.write_text("-----BEGIN CERTIFICATE-----\n")
    return path


def test_a_clients_certificate_and_key_belong_together(pem):
    for options in ({"certificate": pem}, {"key": pem}):
        with pytest.raises(ConfigError, match="a client certificate and its key belong together"):
            Tls(**options)


def test_a_clients_files_must_exist(tmp_path):
    with pytest.raises(ConfigError, match="nowhere is no file; expected certificates or a key in PEM form"):
        Tls(ca=tmp_path / "nowhere")


def test_a_server_without_options_has_no_tls():
    assert ServerTls.of_options(None, None, None) is None


@pytest.mark.parametrize(("given", "missing"), [("certificate", "--tls-key"), ("key", "--tls-cert")])
def test_a_servers_certificate_and_key_belong_together(pem, given, missing):
    options = {"certificate": None, "key": None, "client_ca": None, given: pem}
    with pytest.raises(ConfigError, match=f"{missing} is missing: TLS takes --tls-cert and --tls-key together"):
        ServerTls.of_options(**options)


def test_a_servers_files_are_pem(pem, tmp_path):
    with pytest.raises(ConfigError, match=r"--tls-key .*nowhere can't be read: No such file or directory"):
        ServerTls.of_options(pem, tmp_path / "nowhere", None)
    (tmp_path / "der").write_bytes(b"\x30\x82\x01\x0a")
    with pytest.raises(ConfigError, match=r"--tls-ca .*der is not a PEM file; expected a line such as"):
        ServerTls.of_options(pem, pem, tmp_path / "der")


def test_a_servers_key_must_be_that_of_its_certificate(tmp_path, pem):
    (certificate, key), (other, _) = (make_certificate(tmp_path, name) for name in ("one", "other"))
    assert ServerTls.of_options(certificate, key, other) == ServerTls(certificate, key, other)
    for wrong in ((other, key, None), (certificate, pem, None), (pem, key, None)):
        with pytest.raises(
            ConfigError, match=r"--tls-key .* is not the key of --tls-cert .*, or one of them is damaged"
        ):
            ServerTls.of_options(*wrong)
    with pytest.raises(ConfigError, match=r"--tls-ca .*one\.key holds no certificate that can be read"):
        ServerTls.of_options(certificate, key, key)
    locked = tmp_path / "locked.key"
    command = ["openssl", "pkey", "-in", str(key), "-aes256", "-passout", "pass:secret", "-out", str(locked)]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(ConfigError, match=r"--tls-key .*locked\.key is encrypted; `openssl pkey` writes it without"):
        ServerTls.of_options(certificate, locked, None)
