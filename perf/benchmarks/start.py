"""Time from process start to ready, with the bundle in the page cache, and what it consists of."""

from __future__ import annotations

import signal
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from nann.bundle import SCORER_FILE, USER_ENCODER_FILE, Bundle, search_file_names
from nann.errors import ServerError
from nann.manifest import verify_file
from nann.signature import SCORER, USER_ENCODER

from ...python_backend.engines.choose import bundle_engine
from ...python_backend.engines.onnx_model import OnnxModel
from ...python_backend.server.ports import free_ports
from ...python_backend.version_folder import ONNX_FILE, onnx_files
from ...training.reports.text import table
from ..benchmark import Benchmark, BenchSettings, Json, Say
from ..servers.serving import TARGET, install, serving

NAME = "start"
STARTS = 3
_POLL_S = 0.02
_READY_WITHIN_S = 300.0
WORDS = {
    "import_onnxruntime": "Python and its packages, scorer (a process of its own)",
    "verify_scorer": "scorer: hashes of its files",
    "load_scorer": "scorer: onnxruntime session",
    "verify_user_encoder": "user_encoder: hashes of its files",
    "load_user_encoder": "user_encoder: onnxruntime session",
    "choose_engine": "scorer: loaded, and engines compared",
    "verify_graph": "beam_retrieval: hashes of its files",
    "check_graph": "beam_retrieval: every index of the graph checked",
    "light_codes": "beam_retrieval: light vectors in eight bits",
}
"""The work of a start: the hashes in `nann serve`, the rest in the models' processes, all beside each other."""


def run(settings: BenchSettings, say: Say) -> Json:
    """Serves the corpus of Table 1 several times; the first start only fills the page cache."""
    bundle = Bundle.open(settings.table1.bundle)
    repository = install(bundle.path, settings.cache / NAME / "repository")
    servers, commands = [], []
    for number in range(STARTS + 1):
        say(f"{NAME}: start {number + 1} of {STARTS + 1}")
        servers.append(_start_s(repository))
        commands.append(serve_command_s(bundle.path, settings.cache / NAME / "command"))
    return {
        "items": bundle.item_count,
        "bundle_mb": sum(entry["bytes"] for entry in bundle.manifest["files"].values()) / 1e6,
        "start_s": statistics.median(servers[1:]),
        "starts_s": servers[1:],
        "command_s": statistics.median(commands[1:]),
        "parts_s": parts_s(bundle, repository),
    }


def _start_s(repository: Path) -> float:
    start_ns = time.perf_counter_ns()
    with serving(repository):
        return (time.perf_counter_ns() - start_ns) / 1e9


def serve_command_s(bundle: Path, repository: Path) -> float:
    """Seconds from starting `nann serve` until its server is ready.

    Raises:
        ServerError: if it ends before, or does not become ready.
    """
    ports = dict(zip(("http", "grpc", "metrics"), free_ports(3), strict=True))
    options = [f"--{name}-port={port}" for name, port in ports.items()]
    command = [str(Path(sys.executable).with_name("nann")), "serve", f"--bundle={bundle}", f"--repository={repository}"]
    start_ns = time.perf_counter_ns()
    process = subprocess.Popen(
        [*command, f"--target={TARGET}", f"--log-file={repository}.log", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not _is_ready(ports["http"]):
            if process.poll() is not None or time.perf_counter_ns() - start_ns > _READY_WITHIN_S * 1e9:
                raise ServerError(f"`nann serve` did not become ready; its log is {repository}.log")
            time.sleep(_POLL_S)
        return (time.perf_counter_ns() - start_ns) / 1e9
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def parts_s(bundle: Bundle, repository: Path) -> dict[str, float]:
    """Seconds of each part of that work, repeated in this process one after the other; keys of `WORDS`."""
    files = bundle.manifest["files"]

    def verify(names: list[str]) -> None:
        for name in names:
            verify_file(bundle.path / name, files[name])

    parts: dict[str, float] = {"import_onnxruntime": _seconds(_import_packages)}
    for model, name in ((SCORER.name, SCORER_FILE), (USER_ENCODER.name, USER_ENCODER_FILE)):
        names, path = list(onnx_files(bundle.manifest, name)), repository / model / "1" / ONNX_FILE
        parts[f"verify_{model}"] = _seconds(partial(verify, names))
        parts[f"load_{model}"] = _seconds(partial(OnnxModel, path, bundle.exported_models[model]))
    parts["verify_graph"] = _seconds(partial(verify, search_file_names(bundle.manifest)))
    parts["choose_engine"] = _seconds(partial(bundle_engine, bundle))
    parts["check_graph"] = _seconds(lambda: Bundle.open(bundle.path, files=[]).graph)
    parts["light_codes"] = 0.0 if bundle.light_vectors is None else _seconds(lambda: bundle.index.light_codes)
    return {name: parts[name] for name in WORDS}


def _import_packages() -> None:
    subprocess.run([sys.executable, "-c", "import nann.python_backend.engines.onnx_model"], check=True)


def _seconds(work: Callable[[], Any]) -> float:
    start_ns = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - start_ns) / 1e9


def _markdown(result: Json) -> str:
    rows = [[WORDS[name], f"{seconds:.2f}"] for name, seconds in result["parts_s"].items()]
    return (
        f"A bundle of {result['items']:,} items ({result['bundle_mb']:,.0f} MB, in the page cache) is served "
        f"{result['start_s']:.1f} s after Triton's process starts, with every model warmed up. `nann serve` takes "
        f"{result['command_s']:.1f} s. Files are hashed while the models' processes start in parallel; one after the "
        f"other all this takes:\n\n{table(['part', 's'], rows)}"
    )


BENCHMARK = Benchmark(NAME, "Start", run, _markdown, headline=lambda result: {"start_s": result["start_s"]})
