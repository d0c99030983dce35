"""Triton's model repository API over HTTP: lists, loads and unloads models, and calls one version of a model."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.errors import ConfigError, ServerError, ServerUnavailable
from nann.signature import ModelSpec, TensorSpec

from .admin_key import ADMIN_HEADER, ADMIN_KEY_VARIABLE
from .log import without_call_stack

READY, UNAVAILABLE = "READY", "UNAVAILABLE"
CHANGING = frozenset(("LOADING", "UNLOADING"))
_LOAD_TIMEOUT_S = 600.0
_TIMEOUT_S = 30.0
# The server is on this machine, or near: a proxy that the environment names is not asked.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class ModelState:
    """One version of a model, as the server sees it: `state` is READY, LOADING, UNLOADING or UNAVAILABLE."""

    name: str
    version: int
    state: str
    reason: str


class ModelControl:
    """Controls the models of one server.

    Args:
        url: `host:port` of KServe V2 over HTTP.
        admin_key: the server's key; None: the endpoints for control will refuse.
    """

    def __init__(self, url: str, admin_key: str | None) -> None:
        self.url = url
        self._headers = {} if admin_key is None else {ADMIN_HEADER: admin_key}

    def states(self) -> list[ModelState]:
        """State of every version that is or was loaded."""
        index = json.loads(self._post("repository/index", {}))
        return [
            ModelState(
                entry["name"],
                int(entry["version"]),
                entry.get("state", ""),
                without_call_stack(entry.get("reason", "")),
            )
            for entry in index
            if "version" in entry
        ]

    def ready_versions(self, model: str) -> set[int]:
        """The versions of a model that answer."""
        return {state.version for state in self.states() if state.name == model and state.state == READY}

    def loaded_versions(self, model: str) -> set[int]:
        """The versions of a model that are in memory: ready, loading, or finishing their last requests."""
        return {state.version for state in self.states() if state.name == model and state.state != UNAVAILABLE}

    def config(self, model: str) -> Mapping[str, Any]:
        """The configuration that a model was loaded with."""
        body: Mapping[str, Any] = json.loads(self._request(f"models/{model}/config", None, _TIMEOUT_S)[0])
        return body

    def executions(self, model: str, version: int) -> int:
        """How many batches a version of a model has executed since it was loaded."""
        (stats,) = json.loads(self._request(f"models/{model}/versions/{version}/stats", None, _TIMEOUT_S)[0])[
            "model_stats"
        ]
        return int(stats["execution_count"])

    def live(self, timeout_s: float) -> None:
        """Waits until the server answers at all.

        Raises:
            ServerUnavailable: if it does not within `timeout_s`.
        """
        try:
            self._request("health/live", None, timeout_s)
        except ServerUnavailable:
            raise
        except ServerError:
            pass  # an error is an answer

    def load(self, model: str) -> None:
        """Loads the new and changed versions of a model, and unloads those that have no folder any more.

        Unchanged versions stay loaded. With an ensemble, the models of its steps are loaded too.

        Raises:
            ServerError: with the model's reason, if it does not load; the versions that answered before still do.
        """
        self._post(f"repository/models/{model}/load", {}, _LOAD_TIMEOUT_S)

    def unload(self, model: str, timeout_s: float = _TIMEOUT_S) -> None:
        """Unloads a model: new requests are refused as UNAVAILABLE, and requests under way are answered."""
        self._post(f"repository/models/{model}/unload", {}, timeout_s)

    def infer(
        self,
        spec: ModelSpec,
        inputs: Mapping[TensorSpec, npt.NDArray[Any]],
        version: int | None = None,
        timeout_s: float = _TIMEOUT_S,
        request_id: str = "",
        parameters: Mapping[str, str] | None = None,
    ) -> tuple[dict[str, npt.NDArray[Any]], int]:
        """Sends a request to one version of a model.

        Args:
            spec: the model.
            inputs: `[B, ...]` by tensor; tensors that are not inputs of the model are left out.
            version: the version; None: any that the server has.
            timeout_s: how long to wait for the answer.
            request_id: of the request; empty: none.
            parameters: of the request.

        Returns:
            Outputs by name, `[B, ...]`, and the version that answered.
        """
        tensors = [
            {"name": tensor.name, "datatype": tensor.triton_dtype, "shape": array.shape, "data": array.ravel().tolist()}
            for tensor, array in inputs.items()
            if tensor in spec.inputs
        ]
        path = f"models/{spec.name}/infer" if version is None else f"models/{spec.name}/versions/{version}/infer"
        # Binary outputs are exact, and shorter than text.
        body = {
            "id": request_id,
            "inputs": tensors,
            "parameters": {"binary_data_output": True, **(parameters or {})},
        }
        content, headers = self._request(path, body, timeout_s)
        length = int(headers.get(_HEADER_LENGTH, len(content)))
        answer = json.loads(content[:length])
        dtypes = {tensor.name: tensor.dtype for tensor in spec.outputs}
        outputs, at = {}, length
        for tensor in answer["outputs"]:
            name, size = tensor["name"], tensor["parameters"]["binary_data_size"]
            part = content[at : at + size]
            array = _texts(part) if tensor["datatype"] == "BYTES" else np.frombuffer(part, dtypes[name])
            outputs[name] = array.reshape(tensor["shape"])
            at += size
        return outputs, int(answer["model_version"])

    def _post(self, path: str, body: Mapping[str, Any], timeout_s: float = _TIMEOUT_S) -> bytes:
        return self._request(path, body, timeout_s)[0]

    def _request(
        self, path: str, body: Mapping[str, Any] | None, timeout_s: float
    ) -> tuple[bytes, http.client.HTTPMessage]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.url}/v2/{path}", data, self._headers)
        try:
            with _OPENER.open(request, timeout=timeout_s) as response:
                return response.read(), response.headers
        except urllib.error.HTTPError as error:
            raise self._translated(error) from error
        except (OSError, http.client.HTTPException) as error:
            raise ServerUnavailable(f"no server answers at {self.url}: {error}") from error

    def _translated(self, error: urllib.error.HTTPError) -> Exception:
        message = error.read().decode(errors="replace")
        try:
            message = json.loads(message)["error"]
        except (ValueError, KeyError, TypeError):
            message = message or error.reason
        if error.code == http.HTTPStatus.FORBIDDEN:
            return ConfigError(
                f"the server at {self.url} refused the admin key; pass the file that `nann serve --admin-key-file` "
                f"uses, or set {ADMIN_KEY_VARIABLE}"
            )
        return ServerError(without_call_stack(message))


def _texts(content: bytes) -> npt.NDArray[Any]:
    """The elements of a BYTES tensor, each behind its length, as `object` array of str."""
    texts, at = [], 0
    while at < len(content):
        begin = at + 4
        at = begin + int.from_bytes(content[at:begin], "little")
        texts.append(content[begin:at].decode())
    return np.array(texts, object)
