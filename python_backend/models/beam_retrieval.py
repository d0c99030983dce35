"""The model `beam_retrieval`: finds the best items for user states, by graph search under the scorer.

As the one step of the ensemble it also makes the user states, from requests as clients send them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from nann.bundle import Bundle, search_file_names
from nann.catalog import LiveCorpus
from nann.catalog.journal import journal_path
from nann.errors import ConfigError
from nann.filters import NamedFilters
from nann.item_rows import ItemRows
from nann.scorer import Float32Array
from nann.search_requests import SearchBounds, TimeLimit, request_key
from nann.signature import (
    BEHAVIORS,
    FEATURE_TRANSFORM,
    HEARTBEAT_ID,
    HEARTBEAT_MARK,
    ON_DEADLINE,
    ORIGIN,
    RESTARTS,
    SCORER,
    STORED_ITEMS,
    UNKNOWN_ITEMS,
    USER_ENCODER,
    USER_STATE,
)

from ..engines.item_encoder import item_encoder
from ..engines.recorded import AUTO, ENGINES
from ..origin import Origin
from ..search.bls_scorer import BlsScorer
from ..search.outcomes import HEARTBEAT, Outcome
from ..search.retriever import Retriever, Search
from ..settings import config_choice, config_flag, config_int, config_threads
from ..tensors import error_response, make_response, read_optional_tensor, read_parameters, read_tensor
from ..version_folder import check_same_bundle
from ..watch.overdue import Overdue
from ..watch.publisher import MetricsPublisher
from ..watch.search_watch import SearchWatch

if TYPE_CHECKING:
    from ..one_step import OneStep
    from ..request_features import UserFeatures
    from ..search.in_process_scorer import InProcessScorer

ON_SCORER_FAILURE = ("error", "fallback")
"""What requests get while the scorer fails: the error, or a cheap ranking (`nann.cheap_ranking`)."""
_HANG_MARGIN_S = 15.0
"""How much longer than its deadline a batch may take. `nann serve` loses patience earlier, so that a search that waits
for its scorer ends with the scorer."""
SCORER_PLACES = ("bls", "in_process")
"""Where rounds are scored: by the model `scorer`, or by its ONNX file in this process."""


class TritonPythonModel:
    """Triton's view of the search: one lockstep search for many requests."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Opens and verifies the graph in the version folder."""
        folder = Path(args["model_repository"]) / args["model_version"]
        manifest = Bundle.open(folder, ()).manifest
        bundle = Bundle.open(folder, search_file_names(manifest))
        config = json.loads(args["model_config"])
        one_step = config_flag(config, "one_step")
        check_same_bundle(
            Path(args["model_repository"]), int(args["model_version"]), _OTHERS if one_step else (SCORER.name,)
        )
        bounds = SearchBounds(*(config_int(config, key) for key in ("max_top_k", "max_ef", "max_rounds")))
        limit = TimeLimit(config_int(config, "deadline_ms"), config_choice(config, "on_deadline", ON_DEADLINE))
        degrade = config_choice(config, "on_scorer_failure", ON_SCORER_FAILURE) == "fallback"
        named = NamedFilters.of_repository(Path(args["model_repository"]).parent)
        live = LiveCorpus(bundle, journal_path(Path(args["model_repository"]).parent), item_encoder(bundle))
        self.retriever = Retriever(bundle, bounds, limit, degrade=degrade, operator=named, live=live)
        self.version = int(args["model_version"])
        self.grid = bundle.shape_grid if config_flag(config, "pad_to_grid") else None
        self.in_process = None
        if config_choice(config, "scorer", SCORER_PLACES, default="bls") == "in_process":
            threads = config_threads(config, "scorer_threads")
            engine = config_choice(config, "engine", ENGINES, default=AUTO)
            self.in_process = _load_in_process(Path(args["model_repository"]).parent, self.version, threads, engine)
        self._overdue = Overdue(limit.deadline_ms / 1000 + _HANG_MARGIN_S)
        self._publisher = MetricsPublisher(args)
        self._one_step = _open_one_step(args, self._publisher) if one_step else None
        self.watch = SearchWatch(config, bundle, self.retriever, self._publisher, self._scorer_of)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Searches for the valid requests together; an invalid one fails alone."""
        with self._overdue.batch():
            return self._responses(requests)

    def _responses(self, requests: Sequence[Any]) -> list[Any]:
        return [response_to(outcome) for outcome in self.outcomes(requests)]

    def outcomes(self, requests: Sequence[Any]) -> list[Outcome]:
        """The outcome of each request."""
        try:
            self.retriever.refresh()
        except Exception as error:  # a Python model must never raise out of execute()
            outcomes = [Outcome.of_error(error) for _ in requests]
            self.watch.count(outcomes)
            return outcomes
        parsed = self._parsed(requests)
        searches = [one for one in parsed if isinstance(one, Search)]
        answers = iter(self._answer(requests, parsed, searches) if searches else ())
        outcomes = [next(answers) if isinstance(one, Search) else one for one in parsed]
        self.watch.count(outcomes)
        return outcomes

    def finalize(self) -> None:
        """Reports the remaining metrics and spans."""
        if self._one_step is not None:
            self._one_step.close()
        self._overdue.close()
        self.watch.close()
        self._publisher.close()

    def states_of(self, user_states: Float32Array) -> Float32Array:
        """The user states, `float32[B, S]`, of some rows that `read_states` returned."""
        return user_states

    def read_states(self, request: Any) -> npt.NDArray[Any]:
        """The user states of a request, `float32[B, S]`, as the scorer will get them."""
        return read_tensor(request, USER_STATE)

    def make_scorer(self) -> BlsScorer | InProcessScorer:
        """The scorer of one search."""
        return self._scorer_of(self.retriever.rows)

    def _scorer_of(self, rows: ItemRows | None) -> BlsScorer | InProcessScorer:
        if self.in_process is None:
            return BlsScorer(self.version, self.grid, rows)
        return self.in_process(rows)

    def _answer(
        self, requests: Sequence[Any], parsed: Sequence[Search | Outcome], searches: Sequence[Search]
    ) -> list[Outcome]:
        scorer, clock = self.make_scorer(), self.watch.start(requests, parsed)
        scorer.trace = clock.trace
        outcomes = self.retriever.answer(scorer, searches, clock)
        self.watch.end(searches, outcomes, clock, scorer.work, self.states_of)
        return outcomes

    def _parsed(self, requests: Sequence[Any]) -> list[Search | Outcome]:
        if self._one_step is None:
            return [_attempt(self._of_step, request) for request in requests]
        beats = [_is_heartbeat(request) for request in requests]
        read = iter(self._one_step.read([one for one, beat in zip(requests, beats, strict=True) if not beat]))
        return [
            _attempt(self._heartbeat, request) if beat else _attempt(self._of_client, next(read))
            for request, beat in zip(requests, beats, strict=True)
        ]

    def _of_step(self, request: Any) -> Search | Outcome:
        """Reads the tensors of the steps before this one."""
        origin = read_optional_tensor(request, ORIGIN)
        if origin is None and request.request_id() == HEARTBEAT_ID:  # clients' requests come from the ensemble
            return self._heartbeat(request)
        parameters, states, behaviors = (
            read_parameters(request),
            self.read_states(request),
            read_tensor(request, BEHAVIORS),
        )
        if origin is None:  # a direct call
            asked = Origin(time.monotonic_ns(), request_key(parameters))
        else:
            asked = Origin.unpack(origin, len(states), self.retriever.item_count, request_key(parameters))
        return self.retriever.parse(states, behaviors, parameters, asked)

    def _of_client(self, read: tuple[UserFeatures, Float32Array] | Exception) -> Search:
        """Takes what the one step read of a client's request."""
        if isinstance(read, Exception):
            raise read
        features, states = read
        beside = {spec: features.tensors[spec] for spec in (UNKNOWN_ITEMS, STORED_ITEMS)}
        return self.retriever.parse(states, features.tensors[BEHAVIORS], features.parameters, features.origin, beside)

    def _heartbeat(self, request: Any) -> Outcome:
        self.watch.restarted(json.loads(json.loads(read_parameters(request))[RESTARTS]))
        return HEARTBEAT


_OTHERS = (FEATURE_TRANSFORM.name, USER_ENCODER.name, SCORER.name)
"""Models whose files the one step reads."""


def _open_one_step(args: Mapping[str, str], publisher: MetricsPublisher) -> OneStep:
    from ..one_step import OneStep  # with onnxruntime, which other targets do not have

    return OneStep(args, publisher)


def _is_heartbeat(request: Any) -> bool:
    return request.request_id() == HEARTBEAT_ID and read_optional_tensor(request, HEARTBEAT_MARK) is not None


def _attempt(parse: Callable[[Any], Search | Outcome], asked: Any) -> Search | Outcome:
    try:
        return parse(asked)
    except Exception as error:  # a Python model must never raise out of execute()
        return Outcome.of_error(error)


def _load_in_process(
    repository: Path, version: int, threads: int, engine: str
) -> Callable[[ItemRows | None], InProcessScorer]:
    try:
        from ..search.in_process_scorer import InProcessScorer, load_in_process
    except ImportError as error:
        raise ConfigError(
            f"config.pbtxt of beam_retrieval: parameter scorer is 'in_process', which needs onnxruntime ({error}); "
            "install it, or use 'bls'"
        ) from error
    return partial(InProcessScorer, load_in_process(repository, version, threads, engine))


def response_to(outcome: Outcome) -> Any:
    """Triton's response: the outputs, or the error."""
    if outcome.outputs:
        return make_response(outcome.outputs)
    assert outcome.error is not None
    return error_response(outcome.error)
