"""Clients of the served ensemble over gRPC and HTTP."""

from clients._client import DEFAULT_TIMEOUT_S, RetrievalClient
from clients._codec import InferRequest, RetrievalResult
from clients._tls import Tls
from clients._transport import PROTOCOLS, Transport

__all__ = ["DEFAULT_TIMEOUT_S", "PROTOCOLS", "InferRequest", "RetrievalClient", "RetrievalResult", "Tls", "Transport"]
