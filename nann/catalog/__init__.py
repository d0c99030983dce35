"""A corpus that changes while it is served: items that were added, changed or deleted after the bundle was made.

`JournalWriter` keeps the changes of one model repository, `JournalReader` follows them, and a `LiveCorpus` is a bundle
with them applied (docs/catalog.md).
"""

from .changes import Changes, Upsert, compacted
from .journal import JournalReader, JournalWriter
from .live_corpus import LiveCorpus, Snapshot
from .live_index import LiveIndex

__all__ = ["Changes", "JournalReader", "JournalWriter", "LiveCorpus", "LiveIndex", "Snapshot", "Upsert", "compacted"]
