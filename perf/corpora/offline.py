"""Test users of a bundle, searched for in this process: for comparisons without a server."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from nann.beam_search import beam_search
from nann.bundle import SCORER_FILE, Bundle
from nann.kernels import NATIVE, Kernels
from nann.scorer import Scorer
from nann.search_input import UserBatch
from nann.search_params import SearchParams
from nann.search_result import SearchResult
from nann.stage_clock import StageClock

from ...python_backend.engines.choose import bundle_engine
from ...python_backend.engines.onnx_model import EmbeddedScorer
from ...training.data.prepared import PreparedData, Queries
from ...training.search.measured_users import bundle_users
from .table1 import Corpus


@dataclass(frozen=True)
class OfflineUsers:
    """Test users: `queries` has their behaviours and targets, `batch` is what a search takes of them.

    `scorer` runs in the engine that serves the bundle on this machine, `exact_scorer` in onnxruntime.
    """

    bundle: Bundle
    scorer: Scorer
    exact_scorer: Scorer
    queries: Queries
    batch: UserBatch

    @classmethod
    def load(cls, corpus: Corpus, users: int) -> OfflineUsers:
        """Encodes the first `users` test users; the scorer runs as in the server, on one thread."""
        bundle = Bundle.open(corpus.bundle, ())
        queries, batch = bundle_users(bundle, PreparedData.load(corpus.data), "test", users, threads=1)
        exact = EmbeddedScorer.open(bundle.path / SCORER_FILE, rows=bundle.item_rows)
        return cls(bundle, EmbeddedScorer(bundle_engine(bundle).engine, bundle.item_rows), exact, queries, batch)

    def search(
        self, params: SearchParams, rows: slice, kernels: Kernels = NATIVE, scorer: Scorer | None = None
    ) -> SearchResult:
        """`beam_search` for these users in lockstep, as the server runs it."""
        return beam_search(self.bundle.index, scorer or self.scorer, self.batch[rows], params, kernels=kernels)

    def stages_ms(self, params: SearchParams, batch: int, users: int) -> dict[str, float]:
        """Time per user in each stage of `nann.stage_clock` and in "python", the rest.

        Searches for the first `users`, `batch` at a time.
        """
        for _ in range(2):  # the first pass warms up
            clock = StageClock()
            kernels, scorer = clock.kernels(NATIVE), clock.scorer(self.scorer)
            start = time.perf_counter_ns()
            for row in range(0, users, batch):
                self.search(params, slice(row, row + batch), kernels, scorer)
            whole_ns = time.perf_counter_ns() - start
        stages = {**clock.elapsed_ns, "python": whole_ns - sum(clock.elapsed_ns.values())}
        return {name: elapsed_ns / users / 1e6 for name, elapsed_ns in stages.items()}


def one_by_one(run: Callable[[slice], object], users: int) -> None:
    """Runs something for the first users, each alone."""
    for row in range(users):
        run(slice(row, row + 1))
