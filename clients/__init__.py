"""Clients of the served ensemble over gRPC and HTTP."""

from nann.filters import where
from nann.search_params import SearchOptions

from ._client import DEFAULT_TIMEOUT_S, RetrievalClient
from ._codec import InferRequest, RetrievalResult
from ._tls import Tls
from ._transport import PROTOCOLS, Transport

__all__ = [
    "DEFAULT_TIMEOUT_S",
    "PROTOCOLS",
    "InferRequest",
    "RetrievalClient",
    "RetrievalResult",
    "SearchOptions",
    "Tls",
    "Transport",
    "where",
]
