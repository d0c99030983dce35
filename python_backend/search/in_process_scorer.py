"""The scorer of the online search without a call to another model: its engine runs in the process of beam_retrieval.

It saves two passes between processes per round, and the cold caches after each pass.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nann.item_rows import ItemRows
from nann.scorer import Float32Array, Int32Array
from nann.signature import SCORER

from ..engines.choose import open_scorer
from ..engines.recorded import AUTO, recorded_engine
from ..engines.scorer_engine import ScorerEngine
from ..tensors import log_info
from .scorer_work import ScorerWork


def load_in_process(repository: Path, model_version: int, threads: int, engine: str = AUTO) -> ScorerEngine:
    """Verifies and loads the scorer of a version; `threads` share a round's candidates.

    Raises:
        BundleError: if a file is missing or changed, or the model does not fit the signature.
        ConfigError: if the engine can't run here.
    """
    folder = repository / SCORER.name / str(model_version)
    _, chosen = open_scorer(folder, recorded_engine(repository) or engine, threads)
    log_info(str(chosen))
    return chosen.engine


class InProcessScorer:
    """A `nann.scorer.Scorer` for one search, which counts its work.

    Args:
        model: from `load_in_process`; all searches share it.
        rows: of the items, if the scorer has no item table.

    Attributes:
        work: the work done so far.
        trace: Triton's trace; not used, since no model of Triton is called.
    """

    def __init__(self, model: ScorerEngine, rows: ItemRows | None = None) -> None:
        self._model = model
        self._rows = rows
        self.work = ScorerWork()
        self.trace: Any = None

    def score(self, user_states: Float32Array, candidates: Int32Array) -> Float32Array:
        """See `nann.scorer.Scorer`."""
        self.work.add_round(candidates)
        self.work.add_call(candidates)
        return self._model.score(user_states, candidates, self._rows)
