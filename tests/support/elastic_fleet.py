"""Servers that come and go behind Envoy and under the eyes of Prometheus."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nann.python_backend.server.triton import TritonServer
from support.fleet import Envoy
from support.own_server import own_server
from support.waiting import wait_until

LEAVING_S = 2.0
"""From leaving Envoy to the stop of a server: Envoy has taken the new file, and its requests are under way."""


class Replica:
    """One server, started and stopped by a thread of its own, which must live as long as the server."""

    def __init__(self, bundle: Path, folder: Path, options: Mapping[str, Any]) -> None:
        self.server: TritonServer | None = None
        self._bundle, self._folder, self._options = bundle, folder, options
        self._leave, self._after_s = threading.Event(), LEAVING_S
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def leave(self, after_s: float = LEAVING_S) -> None:
        """Stops the server in some seconds, as `nann serve` does at SIGTERM: requests in progress are answered."""
        self._after_s = after_s
        self._leave.set()

    def join(self) -> None:
        self._thread.join()

    def is_over(self) -> bool:
        """Whether it has ended, or never started."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        self._folder.mkdir()
        with own_server(self._bundle, self._folder, **self._options) as server:
            self.server = server
            self._leave.wait()
            time.sleep(self._after_s)


class ElasticFleet:
    """Replicas of one bundle; whoever is ready is in Envoy's files and in those of Prometheus.

    Args:
        bundle: of all of them.
        folder: for their repositories, and `targets.json`, which Prometheus watches.
        labels: that Prometheus gives to their metrics.
        options: of `own_server`.
    """

    def __init__(self, bundle: Path, folder: Path, labels: Mapping[str, str], **options: Any) -> None:
        self.targets = folder / "targets.json"
        self.envoy: Envoy | None = None
        self._bundle, self._folder, self._labels, self._options = bundle, folder, labels, options
        self._members: list[Replica] = []
        self._gone: list[Replica] = []
        self._published: list[TritonServer] = []

    @property
    def replicas(self) -> int:
        """How many there should be, those that start included."""
        return len(self._members)

    @property
    def ready(self) -> int:
        """How many are ready."""
        return len(self._published)

    @property
    def servers(self) -> list[TritonServer]:
        """Those that are ready."""
        return list(self._published)

    def scale_to(self, count: int) -> None:
        """Starts replicas, or takes the newest ones out of service and stops them; publishes who is ready."""
        while len(self._members) < count:
            number = len(self._members) + len(self._gone)
            self._members.append(Replica(self._bundle, self._folder / f"replica{number}", self._options))
        leaving, self._members = self._members[count:], self._members[:count]
        self._publish()
        for replica in leaving:
            replica.leave()
        self._gone += leaving

    def wait_until_ready(self) -> None:
        """Waits until every replica is, and is published."""

        def all_ready() -> bool:
            assert not any(replica.is_over() for replica in self._members), "a server did not start"
            self._publish()
            return self.ready == self.replicas

        wait_until(all_ready, timeout_s=180)

    def _publish(self) -> None:
        servers = [replica.server for replica in self._members if replica.server is not None]
        if servers == self._published:
            return
        self._published = servers
        targets = [{"targets": [server.metrics_url for server in servers], "labels": self._labels}]
        new = self.targets.with_suffix(".new")
        new.write_text(json.dumps(targets))
        os.replace(new, self.targets)
        if self.envoy is not None:
            self.envoy.send_to(servers)

    def close(self) -> None:
        """Stops all of them."""
        for replica in self._members:
            replica.leave(0)
        for replica in [*self._members, *self._gone]:
            replica.join()
