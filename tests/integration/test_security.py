"""Which clients can reach what: see SECURITY.md."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from support.certificates import make_certificate
from support.live_bundle import item_ids
from support.ports import free_ports
from support.server_usage import commands_with, group_processes
from support.tls_proxy import tls_proxy
from tritonclient.utils import InferenceServerException

from nann.clients import RetrievalClient, Tls
from nann.errors import ServerUnavailable
from nann.python_backend.repository.install import install_bundle
from nann.python_backend.server.admin_key import ADMIN_HEADER, GRPC_ADMIN_HEADER
from nann.python_backend.server.tls import ServerTls
from nann.python_backend.server.triton import ServerOptions, TritonServer

pytestmark = pytest.mark.triton

KEY = f"key{secrets.token_hex(12)}"
"""Its own for each run: another run of these tests on this machine must not be taken for a leak."""
USER = item_ids()[20:25]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> dict[str, tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("certificates")
    return {name: make_certificate(folder, name) for name in ("server", "client", "stranger")}


@pytest.fixture(scope="module")
def start(live_bundle_path, tmp_path_factory):
    """Starts servers of the live bundle, each with its own options."""
    servers = []

    def start(**options) -> TritonServer:
        folder = tmp_path_factory.mktemp("server")
        install_bundle(live_bundle_path, folder / "repository")
        options = {"host": "127.0.0.1", **options}
        ports = dict(zip(("http_port", "grpc_port", "metrics_port"), free_ports(3), strict=True))
        server = TritonServer(ServerOptions(folder / "repository", log_file=folder / "log", **ports, **options))
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def secured(start, certificates) -> TritonServer:
    """With an admin key, TLS in both directions, and a host other than the default."""
    os.environ["NANN_ADMIN_KEY"] = KEY
    try:
        tls = ServerTls(*certificates["server"], client_ca=certificates["client"][0])
        return start(host="0.0.0.0", admin_key=KEY, tls=tls)
    finally:
        del os.environ["NANN_ADMIN_KEY"]


RESTRICTED_HTTP = [
    ("GET", "/v2/systemsharedmemory/status"),
    ("POST", "/v2/systemsharedmemory/region/x/register"),
    ("GET", "/v2/cudasharedmemory/status"),
    ("POST", "/v2/repository/index"),
    ("POST", "/v2/repository/models/nobody/load"),
    ("POST", "/v2/repository/models/nobody/unload"),
    ("GET", "/v2/trace/setting"),
    ("POST", "/v2/models/nann/trace/setting"),
    ("GET", "/v2/logging"),
    ("POST", "/v2/logging"),
]
"""One or more of each restricted group: shared-memory, model-repository, trace, logging."""
RESTRICTED_GRPC = {
    "get_system_shared_memory_status": (),
    "unregister_system_shared_memory": (),
    "get_cuda_shared_memory_status": (),
    "get_model_repository_index": (),
    "load_model": ("nobody",),
    "unload_model": ("nobody",),
    "get_trace_settings": (),
    "update_trace_settings": (),
    "get_log_settings": (),
    "update_log_settings": ({},),
}
OPEN_HTTP = ["/v2", "/v2/health/ready", "/v2/models/nann", "/v2/models/nann/config", "/v2/models/nann/stats"]


def ask_http(server, method: str, path: str, key: str | None) -> tuple[int, str]:
    headers = {} if key is None else {ADMIN_HEADER: key}
    data = b"{}" if method == "POST" else None
    request = urllib.request.Request(f"http://{server.http_url}{path}", data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize(("method", "path"), RESTRICTED_HTTP)
def test_http_endpoints_open_with_the_key_alone(secured, method, path):
    for wrong in (None, "", KEY[:-1], KEY + "x", KEY.upper()):
        status, words = ask_http(secured, method, path, wrong)
        assert (status, "restricted" in words) == (403, True), (wrong, words)
        assert KEY not in words
    assert ask_http(secured, method, path, KEY)[0] != 403


@pytest.fixture(scope="module")
def grpc(secured, certificates):
    certificate, key = (str(path) for path in certificates["client"])
    ca = str(certificates["server"][0])
    client = triton_grpc.InferenceServerClient(
        f"127.0.0.1:{secured.options.grpc_port}",
        ssl=True,
        root_certificates=ca,
        private_key=key,
        certificate_chain=certificate,
    )
    yield client
    client.close()


@pytest.mark.parametrize("call", RESTRICTED_GRPC)
def test_grpc_calls_open_with_the_key_alone(grpc, call):
    def ask(headers) -> str:
        try:
            getattr(grpc, call)(*RESTRICTED_GRPC[call], headers=headers)
        except InferenceServerException as error:
            return error.message()
        return ""

    for wrong in (None, KEY[:-1], KEY + "x"):
        words = ask(None if wrong is None else {GRPC_ADMIN_HEADER: wrong})
        assert "This protocol is restricted" in words
        assert KEY not in words
    assert "restricted" not in ask({GRPC_ADMIN_HEADER: KEY})


def test_the_key_opens_them_for_real(secured, grpc):
    """Logging is changed over HTTP and read back over gRPC."""
    request = urllib.request.Request(
        f"http://{secured.http_url}/v2/logging", b'{"log_verbose_level":1}', {ADMIN_HEADER: KEY}, method="POST"
    )
    urllib.request.urlopen(request, timeout=20).close()
    settings = grpc.get_log_settings(headers={GRPC_ADMIN_HEADER: KEY}, as_json=True)
    assert settings["settings"]["log_verbose_level"] == {"uint32_param": 1}
    grpc.update_log_settings({"log_verbose_level": 0}, headers={GRPC_ADMIN_HEADER: KEY})


def test_what_clients_need_is_open(server):
    for path in OPEN_HTTP:
        assert ask_http(server, "GET", path, None)[0] == 200, path


def test_without_a_key_they_are_closed_to_everybody(server):
    """The placeholder in the process list opens nothing."""
    command = Path(f"/proc/{server.pid}/cmdline").read_bytes().decode().split("\0")
    (shown,) = {word.split(f"{ADMIN_HEADER}=")[1] for word in command if f"{ADMIN_HEADER}=" in word}
    for key in (None, shown):
        assert ask_http(server, "GET", "/v2/logging", key)[0] == 403


def test_no_process_of_the_server_shows_the_key(secured):
    """The key is in our environment, but not in the server's command line, environment or log."""
    processes = group_processes(secured.pid)
    assert len(processes) == 6, "tritonserver and five stubs"
    for process in processes:
        for name in ("cmdline", "environ"):
            assert KEY.encode() not in (process / name).read_bytes(), (process, name)
    assert commands_with(KEY) == []
    assert KEY not in secured.options.log_file.read_text()
    assert KEY not in repr(secured.options)


def test_only_tritonserver_is_preloaded_and_only_it_had_the_pipe(secured):
    stubs = [process for process in group_processes(secured.pid) if process.name != str(secured.pid)]
    assert len(stubs) == 5
    for stub in stubs:
        assert "_preloaded" not in (stub / "maps").read_text()
        environment = (stub / "environ").read_bytes()
        assert b"LD_PRELOAD" not in environment
        assert b"NANN_KEY" not in environment


def test_no_other_user_can_open_the_memory_through_which_histories_pass(server):
    """Nor its regions that grew, nor those of a process that was loaded again: each is made in the same way."""
    name = Path(f"/proc/{server.pid}/cwd").readlink().name
    with RetrievalClient(server.grpc_url, timeout_s=30) as client:
        client.retrieve(np.full((16, 10_000), USER[0]))
    regions = list(Path("/dev/shm").glob(f"{name}-*"))
    assert len(regions) >= 5, "one for each process"
    assert [path for path in regions if path.stat().st_mode & 0o077] == []
    if os.geteuid() == 0:
        code = "import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534); open(sys.argv[1], 'rb')"
        done = subprocess.run(
            [sys.executable, "-c", code, str(regions[0])], capture_output=True, text=True, check=False
        )
        assert "PermissionError: [Errno 13] Permission denied" in done.stderr


def listening(pid: int) -> dict[int, str]:
    """Address by port of the TCP sockets on which a process listens."""
    own = {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}
    found = {}
    for name in ("tcp", "tcp6"):  # gRPC's are IPv6 sockets of mapped addresses
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            address, port = fields[1].split(":")
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in own:
                found[int(port, 16)] = socket.inet_ntoa(bytes.fromhex(address[-8:])[::-1])
    return found


def test_it_listens_on_loopback_unless_told_otherwise(server, secured):
    assert ServerOptions(Path()).host == "127.0.0.1"
    assert listening(server.pid) == dict.fromkeys(server.options.ports.values(), "127.0.0.1")
    options = secured.options
    expected = {options.http_port: "127.0.0.1", options.grpc_port: "0.0.0.0", options.metrics_port: "0.0.0.0"}
    assert listening(secured.pid) == expected, "HTTP, which has no TLS, stays on loopback where there is a certificate"


def retrieves(url: str, tls: Tls | None) -> bool:
    with RetrievalClient(url, timeout_s=10, retry=False, tls=tls) as client:
        try:
            return client.retrieve(USER, top_k=3).item_ids.shape == (1, 3)
        except ServerUnavailable:
            return False


def test_tls_in_both_directions(secured, certificates, server):
    url = f"127.0.0.1:{secured.options.grpc_port}"
    ca, (certificate, key) = certificates["server"][0], certificates["client"]
    assert retrieves(url, Tls(ca, certificate, key))
    assert not retrieves(url, None), "unencrypted"
    assert not retrieves(url, Tls(ca)), "a client without a certificate"
    assert not retrieves(url, Tls(ca, *certificates["stranger"])), "a client that nobody knows"
    assert not retrieves(url, Tls(certificates["stranger"][0], certificate, key)), (
        "a server that the client does not know"
    )
    assert not retrieves(server.grpc_url, Tls(ca)), "a server without TLS"


def test_tls_of_the_server_alone_and_the_commands(live_bundle_path, certificates, tmp_path):
    """`nann serve` and `nann query`, as on the command line."""
    http, grpc_port, metrics = free_ports(3)
    nann = [sys.executable, "-m", "nann"]
    certificate, key = certificates["server"]
    command = [
        *(*nann, "serve", "--bundle", live_bundle_path, "--repository", tmp_path / "repository"),
        *("--http-port", str(http), "--grpc-port", str(grpc_port), "--metrics-port", str(metrics)),
        *("--tls-cert", certificate, "--tls-key", key, "--log-file", tmp_path / "log"),
    ]
    query = [*nann, "query", "--ids", ",".join(map(str, USER)), "--url", f"127.0.0.1:{grpc_port}", "--json"]
    process = subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True)
    try:
        for line in process.stderr:
            if "Ctrl-C" in line:
                break
        done = subprocess.run([*query, "--tls-ca", str(certificate)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert len(json.loads(done.stdout.splitlines()[-1])["users"]) == 1
        for options in ((), ("--tls",)):
            done = subprocess.run([*query, *options], capture_output=True, text=True, check=False)
            assert (done.returncode, "no retrieval server answers" in done.stderr) == (2, True)
    finally:
        process.terminate()
        process.communicate(timeout=120)


def test_https_through_a_proxy(server, certificates):
    with tls_proxy(server.options.http_port, *certificates["server"]) as url:
        with RetrievalClient(url, "http", timeout_s=10, tls=Tls(certificates["server"][0])) as client:
            answer = client.retrieve(USER)
        with RetrievalClient(server.http_url, "http") as client:
            np.testing.assert_array_equal(answer.item_ids, client.retrieve(USER).item_ids)
        with (
            RetrievalClient(url, "http", timeout_s=10, retry=False, tls=Tls(certificates["stranger"][0])) as client,
            pytest.raises(ServerUnavailable),
        ):
            client.retrieve(USER)
