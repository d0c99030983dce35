"""Translates tritonclient's exceptions into this project's errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException

from tritonclient.utils import InferenceServerException

from nann.errors import (
    ConfigError,
    NannError,
    RequestError,
    RequestTimeout,
    ServerError,
    ServerOverloaded,
    ServerUnavailable,
)
from nann.item_ids import KINDS
from nann.signature import BEHAVIOR_ITEM_IDS, DEADLINE_MESSAGE

_BY_STATUS: dict[str, type[NannError]] = {
    "StatusCode.INVALID_ARGUMENT": RequestError,
    "400": RequestError,
    "StatusCode.DEADLINE_EXCEEDED": RequestTimeout,
    "504": RequestTimeout,
    "StatusCode.CANCELLED": RequestTimeout,
    "StatusCode.UNAVAILABLE": ServerUnavailable,
    "503": ServerUnavailable,
    "StatusCode.NOT_FOUND": ServerUnavailable,
    "404": ServerUnavailable,
}
# Triton's messages when a queue is full, or a request waited there too long; UNAVAILABLE has other causes too.
# Its message about ids of the other kind.
_OTHER_KIND = re.compile(r"input '(\w+_item_ids)' data-type is '(\w+)', but model '\w+' expects '(\w+)'")
_WORDS = {kind.spec(BEHAVIOR_ITEM_IDS).triton_dtype: kind.words for kind in KINDS.values()}
_OVERLOADED = ("Exceeds maximum queue size", "Request timeout expired")


def translate(error: InferenceServerException, url: str, timeout_s: float) -> NannError:
    """The error to raise for one of tritonclient's, whose status is a gRPC or an HTTP code; for a request to `url`."""
    message = str(error.message())
    if DEADLINE_MESSAGE in message:
        return RequestTimeout(message)
    kind = _BY_STATUS.get(str(error.status()), ServerError)
    if message == "CANCELLED":  # of Triton's gRPC server, to requests that it refuses while it stops
        kind = ServerUnavailable
    if other := _OTHER_KIND.search(message):
        name, came, expected = other[1], *(_WORDS.get(dtype, dtype) for dtype in other.group(2, 3))
        return RequestError(f"{name} came as {came}; the item ids of the server at {url} are {expected}")
    if kind is ServerUnavailable and any(words in message for words in _OVERLOADED):
        return ServerOverloaded(f"{url} is overloaded: {message}; try again later")
    if kind is RequestTimeout:
        return timed_out(url, timeout_s)
    if kind is ServerUnavailable:
        return unavailable(url, message)
    return kind(message)


@contextmanager
def translated(url: str, timeout_s: float) -> Iterator[None]:
    """Raises an error of this project for whatever tritonclient meets on a request to `url`, over either protocol.

    What it meets in an answer that it can't read, such as one of wrong size, is a ServerError.
    """
    try:
        yield
    except NannError:
        raise
    except InferenceServerException as error:
        raise translate(error, url, timeout_s) from error
    except TimeoutError as error:
        raise timed_out(url, timeout_s) from error
    except (OSError, HTTPException) as error:
        raise unavailable(url, error) from error
    except Exception as error:
        if re.search(r"closed|event loop|different loop", str(error)):
            raise ConfigError(
                f"the client can't be used: {error}; expected one that is open, and for asyncio in the event loop that "
                "it was made in"
            ) from error
        raise ServerError(f"no answer could be read: {error!r}; is it a server of nann at that address?") from error


def timed_out(url: str, timeout_s: float) -> RequestTimeout:
    """The error for an answer that did not come in time."""
    return RequestTimeout(
        f"{url} did not answer within {timeout_s:g} s; raise the timeout, or ask for less (ef, rounds)"
    )


def unavailable(url: str, reason: object) -> ServerUnavailable:
    """The error for a server that can't be reached or is not ready."""
    return ServerUnavailable(f"no retrieval server answers at {url}: {reason}; start one with `nann serve`")
