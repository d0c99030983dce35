"""A missing package is answered with the name of its extra; one version, one changelog."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from support.cli_commands import nann as run
from typer.main import get_command

import nann
from nann.cli.extras import COMMANDS, DISTRIBUTIONS, advice, packages_by_extra
from nann.cli.main import app
from nann.packages import find_package

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = ("nann", "cli", "clients", "explore", "perf", "python_backend", "training", "model_repository")
REQUIRED = {"numpy", "rich", "typer", "nann"}
BY_TRITON = {"triton_python_backend_utils"}


@pytest.mark.parametrize(
    ("module", "command", "line"),
    [
        ("polars", "prepare", 'prepare needs polars; install it with: pip install "nann[train]"'),
        ("yaml", "train", 'train needs pyyaml; install it with: pip install "nann[train]"'),
        ("onnxruntime", "deploy", 'deploy needs onnxruntime; install it with: pip install "nann[deploy]"'),
        ("pytriton", "serve", 'serve needs nvidia-pytriton; install it with: pip install "nann[serve]"'),
        ("onnx", "serve", 'serve needs onnx; install it with: pip install "nann[serve-torch]"'),
        ("opentelemetry.sdk", "serve", 'serve needs opentelemetry-sdk; install it with: pip install "nann[trace]"'),
        ("redis.retry", "serve", 'serve needs redis; install it with: pip install "nann[redis]"'),
        ("tritonclient", "query", 'query needs tritonclient; install it with: pip install "nann[client]"'),
        ("ray.util", "batch", 'batch needs ray; install it with: pip install "nann[ray]"'),
        ("hnswlib", "demo", 'demo needs hnswlib; install it with: pip install "nann[train,serve,client]"'),
        ("matplotlib.ticker", "bench", 'bench needs matplotlib; install it with: pip install "nann[train,serve,perf]"'),
        ("implicit.cpu.als", "baselines", 'baselines needs implicit; install it with: pip install "nann[baselines]"'),
    ],
)
def test_the_extra_that_brings_a_module(module, command, line):
    assert advice(ModuleNotFoundError(name=module), command) == f"nann: {line}"


@pytest.mark.parametrize("name", [None, "nann.no_such_module", "no_such_package"])
def test_a_module_that_no_extra_brings_is_a_fault_of_ours(name):
    assert advice(ModuleNotFoundError(name=name), "train") is None


def without(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command where a module is not installed."""
    code = f"import sys; sys.modules['{module}'] = None; from nann.cli.main import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_command_without_its_extra_ends_in_one_line():
    ended = without("polars", "prepare", "synthetic", "--items", "50")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == 'nann: prepare needs polars; install it with: pip install "nann[train]"\n'


def test_a_module_of_ours_that_is_missing_keeps_its_traceback():
    ended = without("nann.training.data.synthetic", "prepare", "synthetic", "--items", "50")
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr


def test_a_server_without_a_stream_needs_no_redis(tmp_path):
    serve = ("serve", "--repository", str(tmp_path), "--http-port", "0")
    assert "--http-port is 0; expected 1 to 65535" in without("redis", *serve).stderr
    ended = without("redis", *serve, "--catalog-stream", "redis://127.0.0.1:6379/0/items")
    assert ended.stderr == 'nann: serve needs redis; install it with: pip install "nann[redis]"\n'


def test_a_package_is_found_or_missed_as_an_import_would():
    assert find_package("numpy").origin
    with pytest.raises(ModuleNotFoundError, match="No module named 'no_such_package'") as raised:
        find_package("no_such_package")
    assert raised.value.name == "no_such_package"


def test_each_command_and_its_extras_are_known():
    assert set(COMMANDS) == set(get_command(app).commands)
    assert {extra for needed in COMMANDS.values() for extra in needed} <= set(packages_by_extra())


def test_whatever_is_imported_is_declared():
    declared = set().union(*packages_by_extra().values())
    for path in (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names.append(node.module)
            for module in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - REQUIRED - BY_TRITON:
                assert DISTRIBUTIONS.get(module, module) in declared, f"{path} imports {module}"


def test_the_newest_release_in_the_changelog_is_the_version():
    headings = re.findall(r"^## \[(.+?)\](.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == ("Unreleased", "")
    assert headings[1][0] == nann.__version__ == version("nann")
    assert re.fullmatch(r" - \d{4}-\d{2}-\d{2}", headings[1][1])
    assert run("--version").stdout == f"nann {nann.__version__}\n"
