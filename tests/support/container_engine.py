"""A Docker engine for tests, the base images where no registry can be reached, and one compose project at a time."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from .waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
_IMAGES = ROOT / "tests" / "containers" / "images"
_NO_ENGINE = "no container engine: "
"""How a skipped test's reason begins."""
_CERTIFICATES = ("PIP_CERT", "SSL_CERT_FILE")
_IMAGES_GB = 8
"""What the images of all tests take, and what their building leaves behind."""


@dataclass(frozen=True)
class Engine:
    """A running engine.

    Attributes:
        environment: of the commands that speak to it.
        published: whether it can publish a container's ports. If not, its containers use the machine's network.
    """

    environment: dict[str, str]
    published: bool

    def run(self, *arguments: object, check: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
        """`docker ARGUMENTS`; shows what it said if it fails."""
        command = ["docker", *map(str, arguments)]
        environment = {**self.environment, **more.pop("environment", {})}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT, **more)
        assert done.returncode == 0 or not check, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done

    def build(self, tag: str, dockerfile: Path, context: Path, *options: str, **arguments: str) -> str:
        """Builds an image and gives the build's log."""
        given = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
        build = ("build", "--progress", "plain", "--network", "host", "--tag", tag, "--file", dockerfile)
        return self.run(*build, *given, *options, context, timeout=1200).stderr

    def inspect(self, name: str) -> dict[str, Any]:
        """What the engine knows of a container or an image."""
        return json.loads(self.run("inspect", name).stdout)[0]

    def has_image(self, name: str) -> bool:
        """Whether the engine has an image, or can get it."""
        return any(
            self.run(*words, name, check=False, timeout=600).returncode == 0
            for words in (("image", "inspect"), ("pull",))
        )


@contextmanager
def running_engine(folder: Path) -> Iterator[Engine]:
    """The machine's own engine, or one that is started for the tests; skips the test if there is neither."""
    if shutil.which("docker") is None:
        pytest.skip(f"{_NO_ENGINE}no command docker")
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    own = None
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode != 0:
        if os.geteuid() != 0 or shutil.which("dockerd") is None:
            pytest.skip(f"{_NO_ENGINE}none runs, and this user can't start dockerd")
        _check_room(folder)
        environment["DOCKER_HOST"] = f"unix://{folder / 'docker.sock'}"
        own = _start_engine(folder)
    try:
        if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode != 0:
            pytest.skip(f"{_NO_ENGINE}docker has no compose, version 2")
        info = ["docker", "info"]
        wait_until(lambda: subprocess.run(info, env=environment, capture_output=True, check=False).returncode == 0)
        networks = subprocess.run(
            ["docker", "network", "ls", "--format", "{{.Name}}"],
            env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        yield Engine(environment, published="bridge" in networks.stdout.split())
    finally:
        if own is not None:
            own.terminate()
            own.wait(timeout=60)
            subprocess.run(["umount", folder / "exec/netns/default"], capture_output=True, check=False)
            shutil.rmtree(folder)


def _check_room(folder: Path) -> None:
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < _IMAGES_GB:
        pytest.fail(
            f"{free_gb:.1f} GB are free in {folder}; the images take {_IMAGES_GB}: make room, or set TMPDIR to a "
            "folder that has it"
        )


def _start_engine(folder: Path) -> subprocess.Popen[bytes]:
    """Without a network of its own, which needs rights that the machine may not give."""
    command = ["dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none", f"--data-root={folder / 'data'}"]
    command += [f"--exec-root={folder / 'exec'}", f"--host=unix://{folder / 'docker.sock'}"]
    with (folder / "dockerd.log").open("wb") as log:
        return subprocess.Popen([*command, f"--pidfile={folder / 'pid'}"], stdout=log, stderr=log)


def debian_image(engine: Engine, name: str, folder: Path) -> str:
    """The image `name` from its registry, or a stand-in for it."""
    if engine.has_image(name):
        return name
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        pytest.skip(f"{_NO_ENGINE}{name} can't be pulled, and there is no debootstrap to make a stand-in")
    stand_in = f"nann-test/{name}"
    if engine.run("image", "inspect", stand_in, check=False).returncode == 0:
        return stand_in
    root, context = folder / "root", folder / "context"
    subprocess.run(["debootstrap", "--variant=minbase", "bookworm", root], check=True, capture_output=True)
    for place in ("cache/apt", "lib/apt/lists"):
        shutil.rmtree(root / "var" / place)
    for place in ("doc", "man", "locale", "info"):
        shutil.rmtree(root / "usr/share" / place)
    (context / "pip").mkdir(parents=True)
    certificates = [os.environ[name] for name in _CERTIFICATES if name in os.environ]
    shutil.copy([*certificates, "/etc/ssl/certs/ca-certificates.crt"][0], context / "pip/certificates.crt")
    subprocess.run(["tar", "--create", "--file", context / "root.tar", "--directory", root, "."], check=True)
    engine.build(stand_in, _IMAGES / "debian.Dockerfile", context)
    return stand_in


def stand_in(engine: Engine, name: str, context: Path = _IMAGES, **arguments: str) -> str:
    """Builds tests/containers/images/NAME.Dockerfile; `arguments` are its build arguments."""
    tag = f"nann-test/{name}"
    engine.build(tag, _IMAGES / f"{name}.Dockerfile", context, **arguments)
    return tag


def copy_wheels(folder: Path) -> list[str]:
    """Copies the wheels that this machine's pip is told to look at; returns their names."""
    for wheels in filter(Path.is_dir, map(Path, os.environ.get("PIP_FIND_LINKS", "").split())):
        shutil.copytree(wheels, folder, dirs_exist_ok=True)
    folder.mkdir(exist_ok=True)
    return [path.name for path in folder.iterdir()]


@dataclass
class Compose:
    """The project's docker-compose.yml under a name of the test's own.

    Attributes:
        engine: what runs it.
        folder: for the file with what this machine needs differently.
        variables: what .env and the caller's environment would set.
        changes: what a service of the test has in place of what the file says.
        name: of the compose project.
    """

    engine: Engine
    folder: Path
    variables: dict[str, str]
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    name: str = "nann-test"

    def __call__(self, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        """`docker compose ARGUMENTS`, of all profiles."""
        path = self.folder / "here.yml"
        path.write_text(yaml.dump(self._here()).replace("'!reset []'", "!reset []"))
        files = ("--file", ROOT / "docker-compose.yml", "--file", path)
        compose = ("compose", "--project-name", self.name, *files, "--profile", "*")
        return self.engine.run(*compose, *arguments, environment=self.variables, **options)

    def container(self, service: str) -> str:
        """The id of a service's container."""
        return self("ps", "--all", "--quiet", service).stdout.strip()

    def _here(self) -> dict[str, Any]:
        services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
        return {
            "services": {
                name: {**self._of_machine(one), **self.changes.get(name, {})} for name, one in services.items()
            }
        }

    def _of_machine(self, service: dict[str, Any]) -> dict[str, Any]:
        """Where ports can't be published: the machine's network. Where locked memory is limited: no more of it."""
        here: dict[str, Any] = {}
        if not self.engine.published:
            here |= {"network_mode": "host", "networks": "!reset []", "ports": "!reset []"}
            here["extra_hosts"] = ["triton:127.0.0.1"]
            if "build" in service:
                here["build"] = {"network": "host"}
        if resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] != resource.RLIM_INFINITY and "ulimits" in service:
            here["ulimits"] = {"memlock": {"soft": 8192, "hard": 8192}}
        return here


@contextmanager
def project(compose: Compose, *services: str) -> Iterator[Compose]:
    """Starts services; takes containers and volumes away in the end."""
    try:
        compose("up", "--detach", *services, timeout=1800)
        yield compose
    finally:
        compose("down", "--volumes", "--timeout", 60, check=False)


def healthy(compose: Compose, service: str) -> None:
    """Waits until the engine says so, by the image's own health check."""

    def state() -> bool:
        known = compose.engine.inspect(compose.container(service))["State"]
        assert known["Running"], compose("logs", service).stdout[-4000:]
        return known["Health"]["Status"] == "healthy"

    wait_until(state, f"{service} is healthy", timeout_s=180)


def seconds(action: Any) -> float:
    """How long it takes to run."""
    begin = time.monotonic()
    action()
    return time.monotonic() - begin


def command_in(compose: Compose, service: str, words: Sequence[object], **options: Any) -> str:
    """What a command in a service's running container prints."""
    return compose("exec", "-T", service, *words, **options).stdout
