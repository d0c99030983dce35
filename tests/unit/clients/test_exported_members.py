from nann import clients


def test_the_public_api_is_pinned():
    assert clients.__all__ == [
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
    assert all(hasattr(clients, name) for name in clients.__all__)
