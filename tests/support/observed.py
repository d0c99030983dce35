"""A server that is watched, what it is asked, and what its metrics say."""

from __future__ import annotations

import contextlib
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from support.live_bundle import ITEMS, item_ids
from support.waiting import wait_until

_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


@contextlib.contextmanager
def running(bundle: Path, folder: Path, parameters: Mapping[str, str] | None = None, instances: int = 1) -> Iterator:
    """A server with these parameters, and so many instances, of beam_retrieval."""
    from nann.python_backend.repository.install import install_bundle
    from nann.python_backend.server.triton import ServerOptions, TritonServer
    from support.ports import free_ports

    install_bundle(bundle, folder / "repository")
    config = folder / "repository" / "beam_retrieval" / "config.pbtxt"
    config.write_text(config.read_text().replace("kind: KIND_CPU count: 1", f"kind: KIND_CPU count: {instances}"))
    set_parameters(config, parameters or {})
    options = ServerOptions(folder / "repository", "127.0.0.1", *free_ports(3), log_file=folder / "triton.log")
    with TritonServer(options) as server:
        yield server


def set_parameters(config: Path, parameters: Mapping[str, str]) -> None:
    """Sets parameters that a config.pbtxt has already."""
    text = config.read_text()
    for key, value in parameters.items():
        text, count = re.subn(rf'(key: "{key}"\s+value: {{ string_value: )"[^"]*"', rf'\1"{value}"', text)
        assert count == 1, key
    config.write_text(text)


def users(count: int, seed: int = 0) -> list[list[int]]:
    """Histories without the items that make trouble on purpose."""
    rng = np.random.default_rng(seed)
    return [item_ids()[rng.integers(10, ITEMS, rng.integers(1, 10))].tolist() for _ in range(count)]


class Metrics:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._samples = [
            (name, dict(re.findall(r'(\w+)="([^"]*)"', labels or "")), float(value))
            for name, labels, value in _SAMPLE.findall(text)
        ]

    @classmethod
    def of(cls, server) -> Metrics:
        """What it reports now. Its metrics port opens a moment after the server is ready."""

        def scrape() -> str | None:
            with (
                contextlib.suppress(urllib.error.URLError),
                urllib.request.urlopen(f"http://{server.metrics_url}/metrics", timeout=10) as body,
            ):
                return body.read().decode()
            return None

        return cls(wait_until(scrape, "the metrics port does not answer"))

    def __str__(self) -> str:
        return self._text

    def __call__(self, metric: str, **labels: str) -> float:
        """The sum of the samples that have these labels; at least one must."""
        found = [value for name, has, value in self._samples if name == metric and labels.items() <= has.items()]
        assert found, f"no {metric} with {labels}"
        return sum(found)


def metrics_when(server, condition: Callable[[Metrics], bool]) -> Metrics:
    """Metrics as soon as they fulfil the condition, which takes a moment after what they tell of."""

    def seen() -> Metrics | None:
        metrics = Metrics.of(server)
        return metrics if condition(metrics) else None

    return wait_until(seen, lambda: Metrics.of(server))
