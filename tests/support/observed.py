"""Requests for a server with metrics, and a reader of its metrics."""

from __future__ import annotations

import contextlib
import re
import urllib.error
import urllib.request
from collections.abc import Callable

import numpy as np

from support.live_bundle import ITEMS, item_ids
from support.waiting import wait_until

_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


def users(count: int, seed: int = 0) -> list[list[int]]:
    """Histories without the items that cause errors on purpose."""
    rng = np.random.default_rng(seed)
    return [item_ids()[rng.integers(10, ITEMS, rng.integers(1, 10))].tolist() for _ in range(count)]


class Metrics:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._samples = [
            (name, dict(re.findall(r'(\w+)="([^"]*)"', labels or "")), float(value))
            for name, labels, value in _SAMPLE.findall(text)
        ]

    @classmethod
    def of(cls, server) -> Metrics:
        """Scrapes a server; its metrics port opens a moment after it is ready."""

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
    """Waits until the metrics fulfil the condition; they are updated a moment after the event they count."""

    def seen() -> Metrics | None:
        metrics = Metrics.of(server)
        return metrics if condition(metrics) else None

    return wait_until(seen, lambda: Metrics.of(server))
