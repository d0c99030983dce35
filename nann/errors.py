"""The exceptions of this project.

NannError
 +-- InvalidInputError        the caller's mistake: a value, a file or a tensor that can't be right
 |    +-- DataError           an interaction log or a prepared data set
 |    +-- ConfigError         a configuration file or command line option
 |    +-- BundleError         a bundle folder: missing, changed or inconsistent files
 |    +-- RequestError        a request to the server (Triton: INVALID_ARGUMENT)
 |         +-- FilterError    its filter: not in the language, or not about these items' attributes
 +-- ScorerError              the scorer failed or broke its contract
 |    +-- ScorerUnavailable   not loaded, or its process died: no call can succeed now
 +-- SearchStopped            a search ended before its last round, and no partial result was asked for
 |    +-- DeadlineExceeded    its deadline passed (Triton: CANCELLED)
 +-- JournalError             the journal of the items' changes is damaged, or can't be written safely
 +-- HistoryError             the store of users' histories can't be asked or written now
 +-- DeployError              a version could not be written, loaded or verified; the old one is still served
 +-- ServerError              Triton: could not start, stopped, or can't be reached
      +-- ServerUnavailable   not reachable or not ready
      +-- ServerOverloaded    refused, because too many requests wait
      +-- RequestTimeout      no answer within the client's timeout or the request's deadline

Every message says what came, what was expected and what to do. Commands print it without a traceback
and exit with code 2.
"""

from __future__ import annotations


class NannError(Exception):
    """Base of every error raised on purpose in this project."""


class InvalidInputError(NannError):
    """The caller's mistake: a value, a file or a tensor that can't be right."""


class DataError(InvalidInputError):
    """An interaction log or a prepared data set is not usable."""


class ConfigError(InvalidInputError):
    """A configuration file or an option is not usable."""


class BundleError(InvalidInputError):
    """A bundle folder is missing, changed or inconsistent."""


class RequestError(InvalidInputError):
    """A request can't be answered as it was asked; becomes Triton's INVALID_ARGUMENT."""


class FilterError(RequestError):
    """A filter can't be read, or compares an attribute that the items lack or that is of another type."""


class ScorerError(NannError):
    """The scorer failed, or its answer breaks its contract."""


class ScorerUnavailable(ScorerError):  # noqa: N818 - named after the status it reports
    """The scorer is not loaded, or its process has died: no call to it can succeed now."""


class SearchStopped(NannError):  # noqa: N818
    """A search ended before its last round, and no partial result was asked for."""


class DeadlineExceeded(SearchStopped):
    """The request's deadline, or the server's, came before the last round."""


class JournalError(NannError):
    """The journal of the items' changes is damaged, has another writer, or is not known to be on disk."""


class HistoryError(NannError):
    """The store of users' histories can't be asked or written now."""


class DeployError(NannError):
    """A version could not be written, loaded or verified; the one before is still served."""


class ServerError(NannError):
    """Triton could not start, stopped, or can't be reached."""


class ServerUnavailable(ServerError):  # noqa: N818
    """Nothing answers at the address, or the server is not ready."""


class ServerOverloaded(ServerError):  # noqa: N818
    """The server refused the request because too many wait already, or it waited too long; try again later."""


class RequestTimeout(ServerError):  # noqa: N818
    """No answer came within the client's timeout or the request's deadline."""
