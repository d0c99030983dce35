"""Runs a real Prometheus: from PATH, or from Debian's package, unpacked into a local folder without root."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from support.ports import free_ports
from support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "docker" / "prometheus" / "rules.yml"
_CACHE = ROOT / "build" / "prometheus"


def find_tools() -> dict[str, str]:
    """Paths of `prometheus` and `promtool`; skips the test if neither PATH nor Debian has them."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), str(_CACHE / "usr" / "bin")])
    found = {name: shutil.which(name, path=path) for name in ("prometheus", "promtool")}
    if not all(found.values()):
        _unpack_debian_package()
        found = {name: shutil.which(name, path=path) for name in found}
    if not all(found.values()):
        pytest.skip("no prometheus on PATH, and Debian's package could not be fetched (apt-get download prometheus)")
    return {name: str(where) for name, where in found.items()}


def _unpack_debian_package() -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        return
    _CACHE.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_CACHE.parent) as folder:
        if not _download(folder):
            # A fresh machine has no package lists; only root can get them.
            subprocess.run(["apt-get", "update"], capture_output=True, timeout=120, check=False)
            if not _download(folder):
                return
        (package,) = Path(folder).glob("prometheus_*.deb")
        subprocess.run(["dpkg", "-x", package, Path(folder) / "unpacked"], check=True, timeout=60)
        with contextlib.suppress(OSError):  # another run was faster
            (Path(folder) / "unpacked").rename(_CACHE)


def _download(folder: str) -> bool:
    command = ["apt-get", "download", "prometheus"]
    return subprocess.run(command, cwd=folder, capture_output=True, timeout=120, check=False).returncode == 0


class Prometheus:
    """Queries of a running Prometheus."""

    def __init__(self, url: str) -> None:
        self._url = url

    def query(self, expression: str) -> list[dict]:
        """Samples of an instant query; a bad one raises `HTTPError`."""
        return self._get("query", query=expression)["result"]

    def wait_for(self, expression: str) -> list[dict]:
        """The samples of a query, as soon as there are any."""
        return wait_until(lambda: self.query(expression), f"no data for {expression}")

    def value(self, expression: str) -> float:
        """The value of a query with exactly one sample."""
        (sample,) = self.query(expression)
        return float(sample["value"][1])

    def rules(self) -> list[dict]:
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def metric_names(self) -> set[str]:
        return set(self._get("label/__name__/values"))

    def _get(self, what: str, **parameters: str):
        with urllib.request.urlopen(
            f"{self._url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}", timeout=10
        ) as body:
            return json.load(body)["data"]


@contextlib.contextmanager
def running(targets: str | Path, folder: Path) -> Iterator[Prometheus]:
    """A Prometheus that scrapes with this project's configuration, only more often.

    `targets` is the `host:port` of a server's metrics, or a file of Prometheus' own kind that names several and may
    change.
    """
    tools = find_tools()
    config = yaml.safe_load((ROOT / "docker" / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
    config["rule_files"] = [str(RULES)]
    job = config["scrape_configs"][0]
    del job["static_configs"]
    if isinstance(targets, Path):
        job["file_sd_configs"] = [{"files": [str(targets)]}]
    else:
        job["static_configs"] = [{"targets": [targets]}]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (port,) = free_ports(1)
    command = [
        *(tools["prometheus"], f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"),
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            _wait_until_ready(f"http://127.0.0.1:{port}", process)
            yield Prometheus(f"http://127.0.0.1:{port}")
        finally:
            process.terminate()


def _wait_until_ready(url: str, process: subprocess.Popen) -> None:
    def is_ready() -> bool:
        assert process.poll() is None, "Prometheus stopped"
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(f"{url}/-/ready", timeout=5):
            return True
        return False

    wait_until(is_ready, "Prometheus is not ready")
