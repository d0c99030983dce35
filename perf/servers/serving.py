"""Servers for the benchmarks: a bundle, the number of instances and threads, and the cores that they may use."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from nann.bundle import Bundle
from nann.signature import BEAM_RETRIEVAL, SCORER

from ...python_backend.engines.choose import open_scorer
from ...python_backend.engines.onnx_model import EmbeddedScorer
from ...python_backend.engines.recorded import AUTO, recorded_engine
from ...python_backend.repository.configs import write_made_configs
from ...python_backend.repository.install import install_bundle
from ...python_backend.server.ports import free_ports
from ...python_backend.server.triton import ServerOptions, TritonServer
from ...python_backend.server.triton_install import TritonInstall
from ...python_backend.version_folder import ONE, SEPARATE

TARGET = "embedded"
_CONFIGS = {
    BEAM_RETRIEVAL.name: "config.pbtxt",
    SCORER.name: f"configs/{TARGET}.pbtxt",
}
"""The models that have several instances, with the file that configures each. The others take little time."""
_THREADS = {BEAM_RETRIEVAL.name: "scorer_threads", SCORER.name: "threads"}
"""The parameter of each that sets how many threads score a call."""


@dataclass(frozen=True)
class Deployment:
    """How a bundle is served; None keeps what the model repository says.

    Attributes:
        instances: of beam_retrieval and of scorer.
        threads: that share the candidates of a scorer call.
        cores: the only ones that the server may use.
        scorer: where rounds are scored, one of `SCORER_PLACES` in `nann.python_backend.models.beam_retrieval`.
        steps: into which models a request is divided, one of `STEPS` in `nann.python_backend.version_folder`.
    """

    instances: int | None = None
    threads: int | None = None
    cores: tuple[int, ...] | None = None
    scorer: str | None = None
    steps: str = SEPARATE

    @property
    def calls_scorer(self) -> bool:
        """Whether searches call the model `scorer`."""
        return self.scorer != "in_process" and self.steps != ONE


def usable_cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    return sorted(os.sched_getaffinity(0))


@contextmanager
def pinned(cores: Sequence[int] | None) -> Iterator[None]:
    """Restricts this thread, and the processes that it starts, to these cores; None changes nothing."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def install(bundle: Path, repository: Path, deployment: Deployment | None = None) -> Path:
    """Makes a new model repository with the bundle, configured by `deployment`; returns its path."""
    shutil.rmtree(repository, ignore_errors=True)
    install_bundle(bundle, repository)
    deployment = deployment or Deployment()
    for model, name in _CONFIGS.items():
        path = repository / model / name
        config = read_config(path)
        if deployment.instances is not None:
            config.instance_group[0].count = deployment.instances
        if deployment.threads is not None:
            config.parameters[_THREADS[model]].string_value = str(deployment.threads)
        if deployment.scorer is not None and model == BEAM_RETRIEVAL.name:
            config.parameters[SCORER.name].string_value = deployment.scorer
        path.write_text(text_format.MessageToString(config), encoding="utf-8")
    if deployment.steps != SEPARATE:
        write_made_configs(repository, 1)
    return repository


def read_config(path: Path) -> model_config_pb2.ModelConfig:
    """Parses a `config.pbtxt`."""
    return text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())


def installed_scorer(repository: Path, threads: int = 1) -> EmbeddedScorer:
    """The scorer of a repository, in this process and as a server with `threads` threads runs it."""
    rows = Bundle.open(repository / BEAM_RETRIEVAL.name / "1", ()).item_rows
    _, chosen = open_scorer(repository / SCORER.name / "1", recorded_engine(repository) or AUTO, threads)
    return EmbeddedScorer(chosen.engine, rows)


@contextmanager
def serving(
    repository: Path,
    cores: Sequence[int] | None = None,
    target: str = TARGET,
    triton: TritonInstall | None = None,
    steps: str = SEPARATE,
) -> Iterator[TritonServer]:
    """Serves a repository that `install` made, on free ports; the log is written beside the repository.

    Args:
        repository: its path.
        cores: the only ones that the server may use; None: all.
        target: the Triton target that runs the ONNX files.
        triton: the Triton to run; None: the one that is installed.
        steps: as of `Deployment`.
    """
    log = repository.with_suffix(".log")
    http_port, grpc_port, metrics_port = free_ports(3)
    options = ServerOptions(repository, "127.0.0.1", http_port, grpc_port, metrics_port, target, log, steps=steps)
    server = TritonServer(options, triton)
    with pinned(cores):
        server.start()
    with server:
        yield server
