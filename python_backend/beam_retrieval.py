"""The model `beam_retrieval`: user states -> the best items, by graph search under the scorer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from nann.bundle import Bundle, search_file_names
from nann.signature import BEHAVIORS, USER_STATE
from python_backend.bls_scorer import BlsScorer
from python_backend.model_files import check_same_bundle
from python_backend.retrieval import Retriever, Search
from python_backend.search_requests import SearchBounds
from python_backend.tensors import config_flag, config_int, error_response, make_response, read_tensor


class TritonPythonModel:
    """Triton's view of the search: many requests in, one lockstep search, as many responses out."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Opens and verifies the graph in the version folder."""
        folder = Path(args["model_repository"]) / args["model_version"]
        manifest = Bundle.open(folder, ()).manifest
        bundle = Bundle.open(folder, search_file_names(manifest))
        check_same_bundle(Path(args["model_repository"]), int(args["model_version"]))
        config = json.loads(args["model_config"])
        bounds = SearchBounds(*(config_int(config, key) for key in ("max_top_k", "max_ef", "max_rounds")))
        self.retriever = Retriever(bundle, bounds)
        self.max_search_ms = config_int(config, "max_search_ms")
        self.version = int(args["model_version"])
        self.grid = bundle.shape_grid if config_flag(config, "pad_to_grid") else None

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Searches for the valid requests together; a bad one is refused alone."""
        parsed = [self._parse(request) for request in requests]
        answers = iter(self._search([outcome for outcome in parsed if isinstance(outcome, Search)]))
        return [next(answers) if isinstance(outcome, Search) else error_response(outcome) for outcome in parsed]

    def read_states(self, request: Any) -> npt.NDArray:
        """The user states of a request, `float32[B, S]`, as the scorer will get them."""
        return read_tensor(request, USER_STATE)

    def make_scorer(self) -> BlsScorer:
        """The scorer of one search."""
        return BlsScorer(self.version, self.max_search_ms, self.grid)

    def _parse(self, request: Any) -> Search | Exception:
        try:
            user_states, behaviors = self.read_states(request), read_tensor(request, BEHAVIORS)
            return self.retriever.parse(user_states, behaviors, request.parameters())
        except Exception as error:  # a Python model must never raise out of execute()
            return error

    def _search(self, searches: Sequence[Search]) -> list[Any]:
        if not searches:
            return []
        try:
            return [make_response(outputs) for outputs in self.retriever.search(self.make_scorer(), searches)]
        except Exception as error:  # the scorer serves them all, so its failure is everyone's
            return [error_response(error) for _ in searches]
