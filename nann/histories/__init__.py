"""What users did, by user id: what a server reads where a request names a user instead of shipping the history."""

from .events import NO_EVENTS, Events, merged
from .file_histories import FileHistories, is_histories
from .history import HISTORY_LIMIT, Histories, UserHistory, ids_of_kind
from .stored_rows import StoredRows

__all__ = [
    "HISTORY_LIMIT",
    "NO_EVENTS",
    "Events",
    "FileHistories",
    "Histories",
    "StoredRows",
    "UserHistory",
    "ids_of_kind",
    "is_histories",
    "merged",
]
