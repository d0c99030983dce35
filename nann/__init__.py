"""Graph search under a neural scorer: the core, on NumPy and a native kernel alone (arXiv 2202.10226).

`__all__` is the public Python API of the core (docs/python_api.md), together with `nann.errors`.
"""

from nann.beam_search import beam_search
from nann.bundle import Bundle
from nann.exact_search import exact_search
from nann.metrics import coverage, recall, recall_delta, share_scored
from nann.scorer import Scorer
from nann.search_input import SearchIndex, UserBatch
from nann.search_params import SearchParams, SeedParams
from nann.search_result import SearchResult

__all__ = [
    "Bundle",
    "Scorer",
    "SearchIndex",
    "SearchParams",
    "SearchResult",
    "SeedParams",
    "UserBatch",
    "beam_search",
    "coverage",
    "exact_search",
    "recall",
    "recall_delta",
    "share_scored",
]

__version__ = "0.1.0"
