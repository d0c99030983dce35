"""Runs Triton's perf_analyzer against the ensemble, and reads every request and answer from its JSON export."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nann.errors import ServerError
from nann.item_ids import KINDS
from nann.signature import BEHAVIOR_ITEM_IDS, ENSEMBLE, ITEM_IDS, ITEMS_SCORED, SCORER

from .perf_analyzer_install import PerfAnalyzer
from .requests import perf_analyzer_input

WINDOWS = 3
"""perf_analyzer measures this many windows per point and reports them together."""
_STABLE_PERCENT = 999  # otherwise perf_analyzer gives up where windows differ; the report shows how much they do
_ASYNC_THREADS = 16
_LONGER = (1, 4, 16)
_TOO_SHORT = ("No valid requests recorded", "Failed to obtain stable measurement")
_TIMEOUT_S = 600
_PADDING = {kind.padding for kind in KINDS.values()}


@dataclass(frozen=True)
class Answer:
    """One request of the measured windows and its answer.

    Attributes:
        behavior_item_ids: the request's history, external ids. perf_analyzer runs text ids together as one text.
        latency_ms: from sending to the answer.
        item_ids: external ids, best first, without padding; of text ids one text, as above.
        items_scored: scorer evaluations.
    """

    behavior_item_ids: tuple[Any, ...]
    latency_ms: float
    item_ids: tuple[Any, ...]
    items_scored: int


@dataclass(frozen=True)
class LoadPoint:
    """What a server answered under one load.

    Attributes:
        mode: "concurrency" (closed loop) or "request_rate" (open loop, Poisson).
        value: the concurrency, or the requests sent per second.
        seconds: total length of the measured windows.
        answers: all requests that were answered within them.
    """

    mode: str
    value: float
    seconds: float
    answers: tuple[Answer, ...]

    @property
    def qps(self) -> float:
        """Requests answered per second."""
        return len(self.answers) / self.seconds

    def percentile_ms(self, percent: float) -> float:
        """A percentile of the latency."""
        return float(np.percentile([answer.latency_ms for answer in self.answers], percent))

    def summary(self) -> dict[str, Any]:
        """For reports: load, throughput, latencies, and the mean number of scorer evaluations per request."""
        return {
            "mode": self.mode,
            "value": self.value,
            "requests": len(self.answers),
            "qps": self.qps,
            "p50_ms": self.percentile_ms(50),
            "p90_ms": self.percentile_ms(90),
            "p99_ms": self.percentile_ms(99),
            "items_scored": float(np.mean([answer.items_scored for answer in self.answers])),
        }


@dataclass(frozen=True)
class Load:
    """One load: either a concurrency or a request rate.

    Attributes:
        concurrency: closed loop: requests outstanding at any time.
        request_rate: open loop: requests per second, at random times (Poisson), whether or not earlier ones were
            answered.
    """

    concurrency: int | None = None
    request_rate: float | None = None

    def options(self) -> list[str]:
        """Options of perf_analyzer's command line."""
        if self.concurrency is not None:
            return [f"--concurrency-range={self.concurrency}"]
        # Without --async at most one request per thread would be outstanding, which is a closed loop.
        rate = [f"--request-rate-range={self.request_rate}", "--request-distribution=poisson"]
        return [*rate, "--async", f"--max-threads={_ASYNC_THREADS}"]


def run_perf_analyzer(
    tool: PerfAnalyzer,
    grpc_url: str,
    histories: Sequence[Sequence[Any]],
    load: Load,
    window_s: float,
    parameters: Mapping[str, int | str | bool] | None = None,
    *,
    calls_scorer: bool = True,
) -> LoadPoint:
    """Measures the ensemble under one load.

    Args:
        tool: from `find_perf_analyzer`.
        grpc_url: `host:port` of the server.
        histories: external ids of real users, asked in turn.
        load: the concurrency or the request rate.
        window_s: length of each of the `WINDOWS` windows; longer ones are tried if hardly a request fits.
        parameters: of every request.
        calls_scorer: whether searches call the model `scorer`; perf_analyzer fails if this is wrongly set.

    Raises:
        ServerError: with perf_analyzer's message, if it fails or no request was answered.
    """
    options = [
        *("-m", ENSEMBLE.name, "-u", grpc_url, "-i", "grpc"),
        *([f"--bls-composing-models={SCORER.name}"] if calls_scorer else []),
        f"--max-trials={WINDOWS}",
        f"--stability-percentage={_STABLE_PERCENT}",
        *load.options(),
    ]
    for name, value in (parameters or {}).items():
        kind = {bool: "bool", int: "int"}.get(type(value), "string")
        options.append(f"--request-parameter={name}:{str(value).lower() if kind == 'bool' else value}:{kind}")
    with tempfile.TemporaryDirectory(prefix="nann-perf-analyzer-") as folder:
        requests, export = Path(folder) / "requests.json", Path(folder) / "export.json"
        requests.write_text(json.dumps(perf_analyzer_input(histories)), encoding="utf-8")
        for longer in _LONGER:
            window = f"--measurement-interval={round(window_s * longer * 1000)}"
            files = (f"--input-data={requests}", f"--profile-export-file={export}")
            command = [str(tool.binary), *options, window, *files]
            done = subprocess.run(
                command, env=tool.environment(), capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
            if not any(reason in done.stdout + done.stderr for reason in _TOO_SHORT):
                break
        if done.returncode != 0 or not export.is_file():
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise ServerError(f"perf_analyzer failed with status {done.returncode}: {' '.join(said[-3:])}")
        return read_export(json.loads(export.read_text(encoding="utf-8")))


def read_export(body: Mapping[str, Any]) -> LoadPoint:
    """The first experiment of perf_analyzer's `--profile-export-file`.

    Raises:
        ServerError: if none of its requests was answered.
    """
    experiment = body["experiments"][0]
    bounds = experiment["window_boundaries"]
    answers = tuple(_answer(request) for request in experiment["requests"] if request["response_timestamps"])
    if not answers:
        raise ServerError("perf_analyzer got no answer within its windows; choose longer ones")
    mode = experiment["experiment"]
    return LoadPoint(mode["mode"], mode["value"], (bounds[-1] - bounds[0]) / 1e9, answers)


def _answer(request: Mapping[str, Any]) -> Answer:
    output = request["response_outputs"][0]
    return Answer(
        tuple(_values(request["request_inputs"][BEHAVIOR_ITEM_IDS.name])),
        (request["response_timestamps"][-1] - request["timestamp"]) / 1e6,
        tuple(item for item in _values(output[ITEM_IDS.name]) if item not in _PADDING),
        _values(output[ITEMS_SCORED.name])[0],
    )


def _values(value: Any) -> list[Any]:
    """A tensor of one element is exported as that element."""
    return value if isinstance(value, list) else [value]
