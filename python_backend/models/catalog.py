"""The model `catalog`: changes what a running server may return.

Only requests with the admin key reach it: the preloaded library checks that (`server/_request_guard.cpp`), and no model
ever sees the key. It belongs to the repository and not to a version, so that all changes have one writer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nann.errors import InvalidInputError, RequestError, ServerError
from nann.filters.named import Definition
from nann.search_params import either
from nann.signature import (
    ANSWER,
    ATTRIBUTES,
    CATALOG_STATUS,
    CHANGED_ITEM_IDS,
    DELETE_ITEMS,
    FILTER_ITEM_IDS,
    HEARTBEAT_ID,
    ITEM_LIGHT,
    ITEM_ROW,
    ITEM_VECTOR,
    LIST_FILTERS,
    OPERATION,
    REMOVE_FILTER,
    SET_FILTER,
    UPSERT_ITEMS,
    Tensors,
)

from ..catalog_items import CatalogItems
from ..operator_filters import OperatorFilters
from ..settings import CATALOG_STREAM_VARIABLE, config_share
from ..tensors import answer_each, log_warning, read_optional_tensor, read_parameters, read_tensor
from ..watch.catalog_metrics import CatalogMetrics, add_stream_metrics
from ..watch.publisher import MetricsPublisher


class TritonPythonModel:
    """Triton's view of the catalog."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Finds the repository that the server serves, and reads its journal and the stream that it follows, if any."""
        config = json.loads(args["model_config"])
        self._repository = Path(args["model_repository"]).parent
        added_share = config_share(config, "max_added_share", 0.01)
        changed_share = config_share(config, "max_changed_share", 0.1)
        stream = os.environ.get(CATALOG_STREAM_VARIABLE, "")
        self._items = CatalogItems(self._repository, added_share, changed_share, log_warning, stream)
        self._filters = OperatorFilters(self._repository, self._items.follow)
        self._publisher = MetricsPublisher(args)
        self._metrics = CatalogMetrics(self._publisher, lambda: self._items.corpus, lambda: self._items.limits[0])
        if self._items.replica is not None:
            add_stream_metrics(self._publisher, self._items.replica)
        self._operations = {
            SET_FILTER: lambda request, asked: self._filters.set(_name(asked), self._definition(request, asked)),
            REMOVE_FILTER: lambda _, asked: self._filters.remove(_name(asked)),
            LIST_FILTERS: lambda *_: self._filters.listed(),
            UPSERT_ITEMS: self._upsert,
            DELETE_ITEMS: lambda request, _: self._items.delete(_ids(request)),
            CATALOG_STATUS: lambda *_: self._items.status(),
        }

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Does what each request asks for, one after the other; it is done, and durable, when the answer comes."""
        return answer_each(requests, self._answer)

    def finalize(self) -> None:
        """Reports the remaining metrics, and leaves the journal to the next process."""
        self._publisher.close()
        self._items.close()

    def _upsert(self, request: Any, _: Mapping[str, Any]) -> dict[str, Any]:
        parts = (read_optional_tensor(request, spec) for spec in (ATTRIBUTES, ITEM_ROW, ITEM_LIGHT, ITEM_VECTOR))
        return self._items.upsert(_ids(request), *parts)

    def _answer(self, request: Any) -> Tensors:
        if request.request_id() == HEARTBEAT_ID:
            self._items.follow()  # for the metrics: another bundle may answer
            return _answer_of({})
        name = b" ".join(read_tensor(request, OPERATION).ravel()).decode(errors="replace")
        operation = self._operations.get(name)
        if operation is None:
            raise RequestError(f"{OPERATION.name} is {name!r}; expected {either(tuple(self._operations))}")
        try:
            answer = operation(request, json.loads(read_parameters(request)))
        except OSError as error:
            raise ServerError(
                f"{self._repository.resolve()} can't be written: {error.strerror}; nothing was changed: the user who "
                "runs the server needs a repository on a disk that may be written"
            ) from error
        except InvalidInputError as error:  # of any kind: the request is to blame
            raise RequestError(str(error)) from error
        return _answer_of(answer)

    def _definition(self, request: Any, asked: Mapping[str, Any]) -> Definition:
        text, ids = asked.get("filter"), read_optional_tensor(request, FILTER_ITEM_IDS)
        if (text is None) == (ids is None):
            raise RequestError(
                f"filter {asked['name']!r} came with {'neither' if text is None else 'both'} parameter filter and "
                f"{FILTER_ITEM_IDS.name}; send one"
            )
        if ids is not None:
            return self._filters.ids([each.decode(errors="replace") for each in ids.ravel()])
        if not isinstance(text, str):
            raise RequestError(f"parameter filter is {text!r}; expected the text of a filter")
        return text


def _ids(request: Any) -> list[str]:
    ids = read_tensor(request, CHANGED_ITEM_IDS)
    if len(ids) != 1:
        raise RequestError(f"{CHANGED_ITEM_IDS.name} has shape {list(ids.shape)}; expected [1, items]")
    return [each.decode(errors="replace") for each in ids[0]]


def _answer_of(answer: Mapping[str, Any]) -> Tensors:
    return {ANSWER: np.array([[json.dumps(answer)]], object)}


def _name(asked: Mapping[str, Any]) -> str:
    name = asked.get("name")
    if not isinstance(name, str):
        raise RequestError(f"parameter name is {name!r}; expected the name of a filter")
    return name
