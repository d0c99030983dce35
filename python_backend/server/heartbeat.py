"""Tiny requests, once a second, that show whether a server and the Python processes of its models still answer."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.bundle import Bundle
from nann.errors import NannError, ServerUnavailable
from nann.signature import (
    BEAM_RETRIEVAL,
    BEHAVIOR_ITEM_IDS,
    BEHAVIORS,
    CANDIDATE_ROWS,
    CANDIDATES,
    HEARTBEAT_ID,
    HEARTBEAT_MARK,
    LIST_FILTERS,
    OPERATION,
    PADDING_ITEM,
    PROFILE_CODES,
    RESTARTS,
    USER_STATE,
    TensorSpec,
)

from .control import ModelControl
from .served_form import ServedForm

PERIOD_S = 1.0
_ANSWER_TIMEOUT_S = 60.0


class Heartbeat:
    """Asks once a second, in a thread of its own.

    Args:
        ask: waits for an answer; raises an error of ours if none came.
    """

    def __init__(self, ask: Callable[[], object]) -> None:
        self._ask = ask
        self._ended = threading.Event()
        self.forgive()
        threading.Thread(target=self._run, name="heartbeat", daemon=True).start()

    @property
    def silent_s(self) -> float:
        """For how long no answer has come."""
        return time.monotonic() - self._answered_s

    def forgive(self) -> None:
        """Counts the silence from now on."""
        self._answered_s = time.monotonic()

    def close(self) -> None:
        """Asks no more; does not wait for an answer."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(PERIOD_S):
            with contextlib.suppress(NannError):
                self._ask()
                self.forgive()


class Restarts:
    """Restarted processes by model, until beam_retrieval has counted them in its metrics."""

    def __init__(self) -> None:
        self._waiting: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, model: str) -> None:
        """Counts a restart."""
        with self._lock:
            self._waiting[model] += 1

    def send(self, send: Callable[[Mapping[str, int]], object]) -> None:
        """Passes on what waits; it waits again if `send` raises."""
        with self._lock:
            sent, self._waiting = self._waiting, Counter()
        try:
            send(sent)
        except NannError:
            with self._lock:
                self._waiting += sent
            raise


def model_heartbeat(
    control: ModelControl, form: ServedForm, model: str, version: int, version_folder: Path, restarts: Restarts
) -> Heartbeat:
    """The heartbeat of one version of a model.

    Args:
        control: the server.
        form: into which models it divides a request.
        model: name of the model, not of the ensemble.
        version: the version.
        version_folder: folder of this version of beam_retrieval, which has the bundle's manifest.
        restarts: counted by beam_retrieval.

    Raises:
        BundleError: if the manifest can't be read.
    """
    bundle = Bundle.open(version_folder, ())
    spec = bundle.exported_models.get(model) or next(spec for spec in form.processes if spec.name == model)
    reports = model == BEAM_RETRIEVAL.name
    tensors = tiny_request(bundle)

    def send(counted: Mapping[str, int]) -> None:
        parameters = {RESTARTS: json.dumps(counted)} if reports else {}
        control.infer(spec, tensors, version, _ANSWER_TIMEOUT_S, HEARTBEAT_ID, parameters)

    def ask() -> None:
        executions = control.executions(model, version)
        try:
            restarts.send(send) if reports else send({})
        except ServerUnavailable:
            raise
        except NannError:
            # The process has failed, and lives; or Triton has refused, since the queue is full or moves too slowly.
            if control.executions(model, version) == executions:
                raise

    return Heartbeat(ask)


def tiny_request(bundle: Bundle) -> dict[TensorSpec, npt.NDArray[Any]]:
    """Inputs for every model: one user without a history, `[1, ...]`."""
    kind = bundle.id_kind
    width = bundle.shape_grid.widths[0]  # a scorer with captured shapes has no smaller one
    return {
        kind.spec(BEHAVIOR_ITEM_IDS): np.full((1, 1), kind.padding, kind.dtype),
        BEHAVIORS: np.full((1, bundle.sequence_length), PADDING_ITEM, BEHAVIORS.dtype),
        PROFILE_CODES: np.zeros((1, bundle.profile_width), PROFILE_CODES.dtype),
        USER_STATE: np.zeros((1, bundle.user_state_width), USER_STATE.dtype),
        CANDIDATES: np.zeros((1, width), CANDIDATES.dtype),
        HEARTBEAT_MARK: np.ones((1, 1), HEARTBEAT_MARK.dtype),
        OPERATION: np.array([[LIST_FILTERS]], OPERATION.dtype),
        CANDIDATE_ROWS: np.zeros((1, 1, bundle.item_row_width), CANDIDATE_ROWS.dtype),  # a grid of them is 50 KB
    }
