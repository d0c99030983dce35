"""The search of a batch job on Ray: a pool of actors, each with the bundle mapped into its memory."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import ray
from ray.util import ActorPool

from nann.errors import ConfigError, NannError, ServerError
from nann.search_params import SearchOptions

from .answers import USER_BLOCK, Answers, BundleAnswers, SearchedBundle
from .histories import Histories

BLOCK = 4 * USER_BLOCK
"""Users of one task: enough that its way to the process and back does not count."""
_REACH_S, _READY_S = 5, 600
_RESTARTS = 10
"""Of one actor. What it was asked is asked again; more deaths are no accident."""


class RayAnswers:
    """A bundle, searched by several processes of one core each; a context manager that starts and stops them.

    Args:
        path: the bundle; on a cluster, the same path on every machine.
        options: of every user.
        workers: how many processes.
        address: of a cluster; None: Ray is started on this machine.

    Raises:
        ConfigError: if there is no cluster at the address.
    """

    def __init__(self, path: Path, options: SearchOptions, workers: int, address: str | None = None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        start: dict[str, Any] = {"address": address}
        if address is None:  # open to this machine alone
            start = {"num_cpus": workers, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        try:
            if address is not None:
                _reach(address)
            ray.init(**start, log_to_driver=False, logging_level="ERROR", configure_logging=False)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"no Ray cluster can be used at {address}: {error}; start one with `ray start`"
            ) from error
        cores = sorted(os.sched_getaffinity(0)) if address is None else []
        actor = ray.remote(num_cpus=1, max_restarts=_RESTARTS, max_task_retries=_RESTARTS)(BatchWorker)
        self._actors = [
            actor.remote(path.absolute(), options, cores[number % len(cores)] if cores else None)
            for number in range(workers)
        ]

    def answers(self, blocks: Iterable[Histories]) -> Iterator[Answers]:
        """Those of each block of users, in order. What a process that died was asked is asked again."""
        with _own_errors():
            yield from ActorPool(self._actors).map(lambda actor, block: actor.answer.remote(block), blocks)

    def __enter__(self) -> RayAnswers:
        try:
            with _own_errors():
                ray.get([actor.ready.remote() for actor in self._actors], timeout=_READY_S)
        except BaseException:
            ray.shutdown()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        ray.shutdown()


def _reach(address: str) -> None:
    """Raises OSError if nobody listens at `host:port` or `ray://host:port`, which Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.rpartition("/")[2], int(port)), _REACH_S).close()


@contextmanager
def _own_errors() -> Iterator[None]:
    """Raises what went wrong in a process as it was raised there, if it is an error of this project."""
    try:
        yield
    except ray.exceptions.GetTimeoutError as error:
        raise ServerError(
            f"Ray did not start the processes within {_READY_S} s; has the cluster a free core for each worker?"
        ) from error
    except ray.exceptions.RayActorError as error:
        raise ServerError(f"a process of Ray died too often: {error}; has its machine enough memory?") from error
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, NannError) else error) from None


class BatchWorker:
    """What one process does.

    Args:
        path: the bundle.
        options: of every user.
        core: to stay on, so that processes on one machine do not share cores; None: any.
    """

    def __init__(self, path: Path, options: SearchOptions, core: int | None) -> None:
        if core is not None:
            os.sched_setaffinity(0, {core})
        self._path, self._options = path, options

    @cached_property
    def _answers(self) -> BundleAnswers:  # not in __init__: Ray would say no more than that it failed
        return BundleAnswers(SearchedBundle(self._path, self._options), threads=1)

    def ready(self) -> None:
        """Returns when the bundle is open."""
        _ = self._answers

    def answer(self, block: Histories) -> Answers:
        """See `BundleAnswers.answer`."""
        return self._answers.answer(block)
