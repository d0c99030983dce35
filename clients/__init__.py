"""Clients of the served ensemble over gRPC and HTTP."""

from nann.filters import where
from nann.search_params import SearchOptions

from ._async_client import AsyncRetrievalClient
from ._client import RetrievalClient
from ._codec import InferRequest, RetrievalResult
from ._conversation import DEFAULT_TIMEOUT_S, ServedBundle
from ._tls import Tls
from ._transport import PROTOCOLS, AsyncTransport, Transport

__all__ = [
    "DEFAULT_TIMEOUT_S",
    "PROTOCOLS",
    "AsyncRetrievalClient",
    "AsyncTransport",
    "InferRequest",
    "RetrievalClient",
    "RetrievalResult",
    "SearchOptions",
    "ServedBundle",
    "Tls",
    "Transport",
    "where",
]
