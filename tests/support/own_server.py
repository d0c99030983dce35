"""Servers for tests: with other parameters of beam_retrieval, more instances, a slower scorer, or model control."""

from __future__ import annotations

import contextlib
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from nann.python_backend.histories.opening import record_address
from nann.python_backend.repository.configs import write_made_configs
from nann.python_backend.repository.install import install_bundle
from nann.python_backend.server.served_form import STEPS_VARIABLE
from nann.python_backend.server.triton import ServerOptions, TritonServer
from nann.python_backend.version_folder import SEPARATE
from nann.signature import BEAM_RETRIEVAL, SCORER
from support.ports import free_ports

ADMIN_KEY = "a key for tests"
STEPS = os.environ.get(STEPS_VARIABLE, SEPARATE)
"""Into which models the servers of tests divide requests, if a test does not say."""
_SLOW_SCORER = """\
import time
from nann.python_backend.models.embedded_onnx import TritonPythonModel as Embedded

class TritonPythonModel(Embedded):
    def execute(self, requests):
        time.sleep({wait_s})
        return super().execute(requests)
"""


def server_options(folder: Path, **options: Any) -> ServerOptions:
    """Options of a server on ports of its own, with its repository and log in this folder."""
    options = {"steps": STEPS, **options}
    return ServerOptions(folder / "repository", "127.0.0.1", *free_ports(3), log_file=folder / "log", **options)


@contextlib.contextmanager
def own_server(
    bundle: Path,
    folder: Path,
    *,
    scorer_wait_s: float = 0.0,
    queue_timeout_s: float | None = None,
    queue_size: int | None = None,
    instances: int = 1,
    admin_key: str | None = ADMIN_KEY,
    catalog_stream: str | None = None,
    histories: str | None = None,
    steps: str = STEPS,
    **parameters: object,
) -> Iterator[TritonServer]:
    """A running server.

    Args:
        bundle: to install.
        folder: for its repository and log.
        scorer_wait_s: extra time of each scorer call, without using the processor, as for a GPU.
        queue_timeout_s: of beam_retrieval; None: what its config.pbtxt says.
        queue_size: the same.
        instances: of beam_retrieval.
        admin_key: opens model control.
        catalog_stream: of several servers.
        histories: address of a store of histories; None: there is none.
        steps: into which models a request is divided.
        parameters: of beam_retrieval, in place of those in its config.pbtxt.
    """
    repository = folder / "repository"
    install_bundle(bundle, repository)
    if histories is not None:
        record_address(repository, histories)
    with edited(repository / BEAM_RETRIEVAL.name / "config.pbtxt", **parameters) as config:
        config.instance_group[0].count = instances
        if queue_timeout_s is not None:
            config.dynamic_batching.default_queue_policy.default_timeout_microseconds = round(queue_timeout_s * 1e6)
        if queue_size is not None:
            config.dynamic_batching.default_queue_policy.max_queue_size = queue_size
    write_made_configs(repository, 1)
    if scorer_wait_s:
        model = repository / SCORER.name / "1" / "model.py"
        model.unlink()
        model.write_text(_SLOW_SCORER.format(wait_s=scorer_wait_s))
    options = server_options(folder, admin_key=admin_key, catalog_stream=catalog_stream, steps=steps)
    with TritonServer(options) as server:
        yield server


@contextlib.contextmanager
def edited(path: Path, **parameters: object) -> Iterator[model_config_pb2.ModelConfig]:
    """Yields a model's configuration for changes; `parameters` must be in it already."""
    config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    for key, value in parameters.items():
        assert key in config.parameters, key
        config.parameters[key].string_value = str(value)
    yield config
    path.write_text(text_format.MessageToString(config))


def control(server: TritonServer, model: str, action: str) -> None:
    """Loads or unloads (`action`) a model."""
    request = urllib.request.Request(
        f"http://{server.http_url}/v2/repository/models/{model}/{action}",
        b"{}",
        {"nann-admin-key": ADMIN_KEY, "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60):
        pass
