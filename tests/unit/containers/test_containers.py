"""The containers as far as they can be checked without an engine.

The compose file against the specification, the Dockerfile by hadolint and by what it copies and installs, Prometheus
and Grafana by what they refer to. tests/integration/test_container_commands.py runs the entry commands.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from compose_pydantic import ComposeSpecification
from dockerfile_parse import DockerfileParser

from nann.cli.main import app

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
ENVIRONMENT = dict(
    line.split("=", 1) for line in (ROOT / ".env").read_text().splitlines() if line and not line.startswith("#")
)
PYPROJECT = (ROOT / "pyproject.toml").read_text()
_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
SERVERS = ("server-cpu", "server-onnxruntime", "server-gpu", "server-gpu-torch")


def interpolated(text: str) -> str:
    """As compose does it, with what .env sets."""

    def value(match: re.Match[str]) -> str:
        name, kind, default = match.groups()
        if name in ENVIRONMENT:
            return interpolated(ENVIRONMENT[name])
        assert kind == "-", f"{name} is neither in .env nor has a default"
        return default

    return _VARIABLE.sub(value, text)


def list_in_pyproject(key: str) -> list[str]:
    """A list of strings, which TOML writes as Python does."""
    found = re.search(rf"^{re.escape(key)} = (\[.*?\])$", PYPROJECT, re.MULTILINE | re.DOTALL)
    return ast.literal_eval(found.group(1))


@pytest.fixture(scope="module")
def compose() -> dict:
    return yaml.safe_load(interpolated((ROOT / "docker-compose.yml").read_text()))


@pytest.fixture(scope="module")
def instructions(tmp_path_factory) -> list[dict]:
    parser = DockerfileParser(path=str(tmp_path_factory.mktemp("dockerfile")))
    parser.content = DOCKERFILE.read_text()
    return [entry for entry in parser.structure if entry["instruction"] != "COMMENT"]


def stages(instructions) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for entry in instructions:
        if entry["instruction"] == "FROM":
            name = entry["value"].split(" AS ")[1]
            found[name] = []
        if found:
            found[name].append(entry)
    return found


# docker-compose.yml


def test_it_is_a_compose_file(compose):
    ComposeSpecification.model_validate({key: value for key, value in compose.items() if not key.startswith("x-")})


def test_the_check_would_notice_a_misspelt_key(compose):
    spoilt = {**compose["services"]["server-cpu"], "shmsize": "1gb"}
    with pytest.raises(ValueError, match="shmsize"):
        ComposeSpecification.model_validate({"services": {"server-cpu": spoilt}})


def test_profiles(compose):
    by_profile: dict[str, set[str]] = {}
    for name, service in compose["services"].items():
        for profile in service["profiles"]:
            by_profile.setdefault(profile, set()).add(name)
    assert by_profile == {
        "cpu": {"server-cpu"},
        "onnxruntime": {"server-onnxruntime"},
        "gpu": {"build-engine", "server-gpu"},
        "gpu-torch": {"server-gpu-torch"},
        "perf": {"perf"},
        "redis": {"redis"},
        "observability": {"prometheus", "grafana"},
    }


@pytest.mark.parametrize("name", SERVERS)
def test_servers_have_what_triton_needs(compose, name):
    service = compose["services"][name]
    assert service["shm_size"] == "1gb"
    locked = {} if name == "server-cpu" else {"memlock": -1}  # what CUDA locks
    assert service["ulimits"] == {**locked, "stack": 67108864}
    assert service["ports"] == [f"127.0.0.1:{port}:{port}" for port in (8000, 8001, 8002)]
    assert "./build/bundle:/bundle:ro" in service["volumes"]
    assert "triton" in service["networks"]["default"]["aliases"]
    assert service["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("name", SERVERS)
def test_servers_write_only_into_volumes_and_tmp(compose, name):
    """Each has a volume of its own for the repository: a new container serves the version that was current."""
    service = compose["services"][name]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    (repository,) = [volume for volume in service["volumes"] if volume.endswith(":/var/lib/nann")]
    others = {volume for other in SERVERS if other != name for volume in compose["services"][other]["volumes"]}
    assert repository not in others


def test_no_service_has_or_gains_privileges(compose):
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not {"privileged", "cap_add", "pid", "ipc", "network_mode"} & set(service), name
        assert service.get("user") == ("redis" if name == "redis" else None)


def test_redis_keeps_what_it_answered_for(compose):
    redis = compose["services"]["redis"]
    assert redis["command"] == ["redis-server", "--appendonly", "yes", "--save", ""]
    assert redis["volumes"] == ["redis:/data"]
    assert redis["healthcheck"]["test"] == ["CMD", "redis-cli", "ping"]
    assert "ports" not in redis, "it has no password: the containers beside it alone reach it"


def test_every_port_is_published_on_loopback_alone(compose):
    for service in compose["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_only_gpu_services_ask_for_a_gpu(compose):
    asking = {name for name, service in compose["services"].items() if "deploy" in service}
    assert asking == {"build-engine", "server-gpu", "server-gpu-torch"}
    for name in asking:
        (device,) = compose["services"][name]["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}


def test_plans_are_built_once_by_the_image_that_serves_them(compose, instructions):
    builder, server = compose["services"]["build-engine"], compose["services"]["server-gpu"]
    assert server["depends_on"] == {"build-engine": {"condition": "service_completed_successfully"}}
    assert "restart" not in builder
    assert "plans:/plans" in builder["volumes"]
    assert "plans:/plans:ro" in server["volumes"]
    assert builder["build"]["args"] == server["build"]["args"]
    assert stages(instructions)["engine-builder"][0]["value"] == "server AS engine-builder"


def test_named_volumes_and_mounted_files_exist(compose):
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if not source.startswith("."):
                assert source in compose["volumes"]
            elif not source.startswith("./build/"):
                assert (ROOT / source).exists()


def test_the_variables_that_servers_get_are_read_by_our_code(compose):
    code = "".join(path.read_text() for folder in ("cli", "python_backend") for path in (ROOT / folder).rglob("*.py"))
    for name in SERVERS:
        for variable in compose["services"][name]["environment"]:
            assert f'"{variable}"' in code, variable


def test_the_servers_get_the_variables_of_the_commands_options(compose):
    command = typer.main.get_command(app).commands["serve"]
    variables = {option.envvar for option in command.params if option.envvar}
    assert {"NANN_STEPS", "NANN_INSTANCES", "NANN_ENGINE"} <= variables
    for name in SERVERS:
        assert variables <= compose["services"][name]["environment"].keys()


def test_targets_and_build_arguments_are_the_dockerfiles(compose, instructions):
    declared = {entry["value"] for entry in instructions if entry["instruction"] == "ARG"}
    for service in compose["services"].values():
        if "build" in service:
            assert service["build"]["target"] in stages(instructions)
            assert set(service["build"]["args"]) == declared
            versions = {name: value for name, value in service["build"]["args"].items() if name in ENVIRONMENT}
            if service["build"]["args"]["BASE"] == "debian":
                assert versions.pop("PYTHON_VERSION") == ENVIRONMENT["DEBIAN_PYTHON_VERSION"]
            assert versions == {name: interpolated(ENVIRONMENT[name]) for name in versions}


# docker/Dockerfile


def test_hadolint_has_nothing_to_say():
    hadolint = Path(sys.executable).parent / "hadolint"
    result = subprocess.run([hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")


def test_every_source_exists_and_is_sent_to_the_engine(instructions):
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    copied = []
    for entry in instructions:
        if entry["instruction"] == "COPY" and not entry["value"].startswith("--from="):
            *sources, _ = shlex.split(entry["value"])
            copied += sources
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignore, source


def test_the_packages_that_are_copied_are_those_that_are_installed(instructions):
    (package,) = list_in_pyproject("wheel.packages")
    linked = {path.resolve().name for path in (ROOT / package).iterdir() if path.is_symlink()}
    copied = {
        source
        for entry in instructions
        if entry["instruction"] == "COPY" and not entry["value"].startswith("--from=")
        for source in shlex.split(entry["value"])[:-1]
    }
    described = {"docker/requirements.py", "pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE"}
    assert {package} | linked | described == copied


def test_compilers_stay_in_the_build_stage_and_nothing_runs_as_root(instructions):
    for name, entries in stages(instructions).items():
        values = [entry["value"] for entry in entries]
        if name not in ("debian", "compiler"):
            assert not any("apt-get" in value for value in values), name
        assert any("g++" in value for value in values) == (name == "compiler")
        if name in ("server", "server-torch", "engine-builder"):
            users = [entry["value"] for entry in entries if entry["instruction"] == "USER"]
            assert users[-1] == "10001", name


@pytest.mark.parametrize("name", ["PYTHON_VERSION", "DEBIAN_PYTHON_VERSION"])
def test_python_is_one_that_the_package_supports(name):
    low, high = re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', PYPROJECT).groups()
    assert int(low) <= int(ENVIRONMENT[name].split(".")[1]) < int(high)


def extras_of(compose) -> dict[str, str]:
    """The image's Python, by the extras that its packages come from."""
    arguments = [service["build"]["args"] for service in compose["services"].values() if "build" in service]
    return {one["EXTRAS"]: one["PYTHON_VERSION"] for one in arguments}


def printed_requirements(extras: str, folder: Path) -> list[str]:
    """What docker/requirements.py prints, run as in the image."""
    for source in ("docker/requirements.py", "pyproject.toml"):
        shutil.copy(ROOT / source, folder)
    command = [sys.executable, "requirements.py", extras]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11; images have it")
def test_requirements_are_those_of_the_extras_each_once(tmp_path):
    wanted = [
        package
        for key in ("dependencies", "serve", "trace", "deploy", "client", "redis")
        for package in list_in_pyproject(key)
    ]
    assert printed_requirements("serve,trace,deploy,client,redis", tmp_path) == list(dict.fromkeys(wanted))
    assert set(list_in_pyproject("serve")) < set(printed_requirements("serve-torch", tmp_path))


def pip_lines(instructions) -> list[list[str]]:
    """Arguments of each `pip install` in the Dockerfile that names packages."""
    runs = [interpolated_build_arguments(entry["value"]) for entry in instructions if entry["instruction"] == "RUN"]
    commands = [command for run in runs for command in run.split("&&") if "pip install" in command and "==" in command]
    return [shlex.split(command.split("pip install", 1)[1]) for command in commands]


def interpolated_build_arguments(text: str) -> str:
    """With the build arguments that .env has."""
    return re.sub(r"\$\{(\w+)\}", lambda match: ENVIRONMENT.get(match[1], match[0]), text)


def resolves(arguments: list[str], python: str, folder: Path) -> None:
    """As a dry run for a Python on Linux, of wheels alone."""
    platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in range(5, 40)]
    command = [
        *(sys.executable, "-m", "pip", "install", "--dry-run", "--only-binary=:all:", f"--target={folder}"),
        *(f"--python-version={python}", "--implementation=cp", *platforms, "--platform=manylinux2014_x86_64"),
        *(word for word in arguments if word != "--no-cache-dir"),
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert result.returncode == 0, result.stderr
    assert "Would install" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", range(4))
def test_each_pip_line_resolves_for_nvidias_python(instructions, tmp_path, number):
    lines = pip_lines(instructions)
    assert len(lines) == 4
    resolves(lines[number], ENVIRONMENT["PYTHON_VERSION"], tmp_path)


@pytest.mark.slow
def test_requirements_resolve_for_each_images_python(compose, tmp_path):
    for extras, python in extras_of(compose).items():
        resolves(printed_requirements(extras, tmp_path), python, tmp_path / "target")


# Prometheus and Grafana


def test_prometheus_scrapes_the_servers_metrics_port():
    config = yaml.safe_load((ROOT / "docker/prometheus/prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["triton:8002"]}]


def test_grafanas_dashboard_uses_the_provisioned_source():
    source = yaml.safe_load((ROOT / "docker/grafana/provisioning/datasources/prometheus.yml").read_text())
    uid = source["datasources"][0]["uid"]
    dashboard = json.loads((ROOT / "docker/grafana/dashboards/nann.json").read_text())
    for panel in dashboard["panels"]:
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {uid}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
