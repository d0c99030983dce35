"""The items of the bundle that answers, with the changes in the journal of its model repository."""

from __future__ import annotations

from pathlib import Path

from nann.catalog import LiveCorpus
from nann.catalog.journal import journal_path

from .engines.item_encoder import item_encoder
from .version_history import CurrentBundle


class CurrentCorpus:
    """Follows the journal, and from one bundle to the next.

    Attributes:
        corpus: as it was at the last look; None before the first installation.
    """

    def __init__(self, repository: Path) -> None:
        self.corpus: LiveCorpus | None = None
        self._bundle = CurrentBundle(repository)
        self._journal = journal_path(repository)

    def get(self) -> LiveCorpus | None:
        """Looks at the bundle that answers and at the journal; returns `corpus`.

        Raises:
            JournalError: if the journal is damaged.
        """
        bundle = self._bundle.get()
        if bundle is not None and (self.corpus is None or self.corpus.bundle is not bundle):
            self.corpus = LiveCorpus(bundle, self._journal, item_encoder(bundle))
        if self.corpus is not None:
            self.corpus.refresh()
        return self.corpus
