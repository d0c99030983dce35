"""The installed wheel: what it holds, and that each extra brings what its commands need.

The wheel is built from the source distribution. Each extra is really installed, with its dependencies, into a virtual
environment of its own: none, train, serve, serve-torch, client, explore, perf, deploy, trace. Commands run outside of
the repository.

- In each environment: `--help` of every command; every command of a missing extra says so in one line.
- train: prepare, train, index, export, evaluate, baselines, plan-shapes and tune on a small log.
- serve and client: `nann serve` answers `nann query`; serve-torch: so it does with the target torch.
- deploy: `nann deploy` makes another bundle the current version of that server, `nann rollback` takes it back.

Not installed are baselines, trt-rtx and perf-engines, which bring one library each that their unit tests use; dev and
fuzz, which only the repository needs.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from support.cli_commands import CONFIG
from support.environments import ROOT, Environment, clean_environment
from support.tiny_log import write_log

import nann
from nann.cli.extras import COMMANDS
from nann.python_backend.server.ports import free_ports

pytestmark = [pytest.mark.wheel, pytest.mark.timeout(900)]

KEY = {"NANN_ADMIN_KEY": "akeyfortests"}
EXTRAS = {
    "bare": set(),
    "train": {"train", "deploy"},  # both have onnxruntime: all of deploy
    "serve": {"serve", "deploy", "client"},  # pytriton has tritonclient
    "deploy": {"deploy"},
    "trace": set(),
    "client": {"client"},
    "explore": {"client", "deploy", "explore"},
    "serve_torch": {"serve", "deploy", "client"},
    "perf": {"client", "perf"},
}
"""Environment -> the extras whose packages it has. The two that grow out of another come after all its tests."""
RUN = """
import contextlib, io, json, sys
from nann.cli.main import main
ended = {}
for command, *arguments in json.loads(sys.argv[1]):
    out, err, sys.argv = io.StringIO(), io.StringIO(), ["nann", command, *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            ended[command] = [end.code, out.getvalue(), err.getvalue()]
print(json.dumps(ended))
"""
"""Runs commands one after another in one process, since starting each anew in each environment takes minutes."""
ARGUMENTS = {
    **dict.fromkeys(("train", "evaluate", "baselines", "tune", "plan-shapes"), ("--data", "nowhere")),
    **dict.fromkeys(("index", "export"), ("--data", "nowhere", "--checkpoint", "nowhere.pt")),
    "prepare": ("synthetic", "--items", "50"),
    "deploy": ("nowhere",),
    "rollback": ("--offline",),
    "query": ("--ids", "1,2"),
    "events": ("nowhere", "--to", "nowhere"),
    "batch": ("--data", "nowhere", "--url", "127.0.0.1:1", "--out", "nowhere"),
}


def test_the_wheel_holds_what_is_needed_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0] for name in names} == {"nann", f"nann-{nann.__version__}.dist-info"}
    kinds = {Path(name).suffix for name in names if "dist-info" not in name}
    assert kinds == {".py", ".pyi", ".so", ".pbtxt", ".yaml", ".csv", ".typed", ".html", ".css", ".js", ".svg"}
    missing = {
        f"nann/{path.relative_to(ROOT)}" if path.parts[len(ROOT.parts)] != "nann" else str(path.relative_to(ROOT))
        for folder in ("nann", "cli", "clients", "explore", "perf", "python_backend", "training", "model_repository")
        for pattern in ("*.py", "*.pbtxt", "*.yaml", "*.csv", "*.html", "*.css", "*.js", "*.svg", "py.typed")
        for path in (ROOT / folder).rglob(pattern)
        if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
    } - names
    assert not missing
    assert any(name.startswith("nann/_kernels.") and name.endswith(".so") for name in names)
    assert "nann/python_backend/server/_preloaded.so" in names


def test_version(bare):
    assert bare.done("--version") == f"nann {nann.__version__}\n"
    assert bare.python("import nann; print(nann.__version__, nann.__file__)").split() == [
        nann.__version__,
        str(next(bare.folder.glob("venv/lib/python*/site-packages/nann/__init__.py"))),
    ]


@pytest.mark.parametrize("name", [name for name in EXTRAS if name not in ("serve_torch", "perf")])
def test_help_and_missing_extras(name, request):
    _help_and_missing_extras(request.getfixturevalue(name), EXTRAS[name])


def _help_and_missing_extras(environment: Environment, extras: set[str]) -> None:
    def ended(commands: list[tuple[object, ...]]) -> dict[str, tuple[int, str, str]]:
        return json.loads(environment.python(RUN, json.dumps(commands)))

    shown = ended([(command, "--help") for command in COMMANDS])
    assert {command: code for command, (code, _, _) in shown.items()} == dict.fromkeys(COMMANDS, 0)
    lacking = {command: needed for command, needed in COMMANDS.items() if not set(needed) <= extras}
    refused = ended([(command, *ARGUMENTS.get(command, ())) for command in lacking])
    assert set(refused) == set(lacking)
    for command, (code, out, err) in refused.items():
        assert (code, out) == (2, ""), (command, err)
        extra = ",".join(lacking[command])
        assert re.fullmatch(rf'nann: {command} needs [\w-]+; install it with: pip install "nann\[{extra}\]"\n', err), (
            err
        )


def test_the_page_is_installed(explore):
    names = explore.python(
        "from nann.explore.app import STATIC; print(*(path.name for path in STATIC.iterdir()))"
    ).split()
    assert set(names) == {path.name for path in (ROOT / "explore/static").iterdir()}


def test_trace_reports_spans(trace):
    assert trace.python("from nann.python_backend.watch.spans import SearchSpans; print(SearchSpans('x'))")


@pytest.fixture(scope="module")
def bundles(train) -> tuple[Path, Path]:
    """The whole way offline. The bundle as exported, and as it was tuned."""
    write_log(train.cwd / "log.csv")
    (train.cwd / "config.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    users = ("--validation-users", 10, "--test-users", 20)
    train.done("prepare", "log", "log.csv", "--category", "category", *users, "--out", "data")
    train.done("train", "--data", "data", "--config", "config.yaml", "--out", "train")
    source = ("--data", "data", "--checkpoint", "train/checkpoint.pt")
    train.done("index", *source, "--out", "bundle", "--threads", 1)
    train.done("export", *source, "--bundle", "bundle")
    exported = Path(shutil.copytree(train.cwd / "bundle", train.cwd / "exported"))
    train.done("plan-shapes", "--bundle", "bundle", "--data", "data", "--shapes", 2)
    train.done("tune", "--bundle", "bundle", "--data", "data", "--coverage", 0.5)
    return exported, train.cwd / "bundle"


def test_evaluate(train, bundles):
    shown = json.loads(train.done("evaluate", "--data", "data", "--bundle", bundles[1], "--json").splitlines()[-1])
    assert 0.0 <= shown["recall_all"] <= 1.0
    train.done("baselines", "--data", "data", "--bundle", bundles[1], "--users", 5)  # without ALS, which it says


def test_build_engine_says_where_tensorrt_comes_from(train, bundles):
    ended = train.nann("build-engine", "--bundle", bundles[1], "--full-precision")
    assert ended.returncode == 2
    assert "pip install 'nann[trt-rtx]'" in ended.stderr


@contextmanager
def serving(environment: Environment, bundle: Path, *options: str) -> Iterator[tuple[str, str]]:
    """`nann serve` until it answers; its addresses for HTTP and gRPC. Interrupted, it must end in order."""
    http, grpc, metrics = free_ports(3)
    ports = ("--http-port", http, "--grpc-port", grpc, "--metrics-port", metrics)
    command = [environment.folder / "venv/bin/nann", "serve", "--bundle", bundle, *ports, *options]
    log = environment.cwd / "serve.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [str(word) for word in command], cwd=environment.cwd, stderr=file, env={**clean_environment(), **KEY}
        )
    try:
        deadline = time.monotonic() + 180
        while not _ready(http) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        assert _ready(http), log.read_text()[-3000:]
        yield f"127.0.0.1:{http}", f"127.0.0.1:{grpc}"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0, log.read_text()[-3000:]


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


def best(client: Environment, *arguments: object) -> list[int]:
    """The items that a query is answered with."""
    shown = client.done("query", *arguments, "--ids", "11,12,13", "--top-k", 5, "--json")
    return [item["item_id"] for item in json.loads(shown.splitlines()[-1])["users"][0]["items"]]


def test_serve_query_deploy_and_rollback(serve, client, deploy, bundles):
    exported, tuned = bundles
    with serving(serve, exported) as (http, grpc):
        before = best(client, "--url", grpc)
        assert len(before) == 5
        assert best(client, "--url", http, "--protocol", "http") == before
        server = ("--repository", serve.cwd / "build/model_repository", "--url", http)
        assert json.loads(deploy.done("deploy", tuned, *server, "--json", **KEY).splitlines()[-1])["version"] == 2
        assert len(best(client, "--url", grpc)) == 5
        deploy.done("rollback", *server, **KEY)
        assert best(client, "--url", grpc) == before


def test_serving_with_torch(serve, serve_torch, client, bundles):
    with serving(serve_torch, bundles[0], "--target", "torch") as (_, grpc):
        assert len(best(client, "--url", grpc)) == 5


@pytest.mark.parametrize("name", ["serve_torch", "perf"])
def test_help_and_missing_extras_of_what_grew(name, request):
    _help_and_missing_extras(request.getfixturevalue(name), EXTRAS[name])
