"""Sets the filters that an operator names: the one way, for a running server and for a repository without one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nann import item_sets
from nann.catalog import LiveCorpus
from nann.errors import ConfigError
from nann.filters import NamedFilters, ServedFilters
from nann.filters.named import Definition
from nann.item_ids import Ids, kind_of_typed

from .current_corpus import CurrentCorpus


class OperatorFilters:
    """The operator's filters of one model repository, each checked against the bundle that answers when it is set.

    Args:
        repository: the model repository.
        corpus: returns the items that answers are made of; None: it is found in the repository.
    """

    def __init__(self, repository: Path, corpus: Callable[[], LiveCorpus | None] | None = None) -> None:
        self._named = NamedFilters.of_repository(repository)
        self._corpus = corpus or CurrentCorpus(repository).get

    def ids(self, typed: Sequence[str]) -> Ids:
        """The ids of a filter, as people type them: of the kind of the bundle that answers.

        Raises:
            ConfigError: if there are none, or one is of the other kind.
        """
        corpus = self._corpus()
        kind = kind_of_typed(typed) if corpus is None else corpus.bundle.id_kind
        ids = []
        for number, text in enumerate(typed, 1):
            try:
                ids.append(kind.item(text))
            except ValueError as error:  # noqa: PERF203
                raise ConfigError(f"id {number} of the filter: {error}; expected the id of an item") from error
        if not ids:
            raise ConfigError("the list holds no ids; a filter must allow something")
        return kind.stored(ids)

    def set(self, name: str, definition: Definition) -> dict[str, Any]:
        """Writes a filter as `NamedFilters.set` does.

        Returns:
            `name`; `items_matching` and `item_count`, added items among them, None without a bundle; `unknown_ids`,
            None for a text.

        Raises:
            ConfigError: if the name or the definition is not valid.
            FilterError: if it does not fit the bundle; the filter of before stays.
            OSError: if it can't be written.
        """
        corpus, matching, unknown = self._corpus(), None, None
        if corpus is not None:
            matching = _matching(corpus, name, definition)
            unknown = None if isinstance(definition, str) else len(np.unique(definition)) - matching
        self._named.set(name, definition)
        count = None if corpus is None else corpus.item_count
        return {"name": name, "items_matching": matching, "item_count": count, "unknown_ids": unknown}

    def remove(self, name: str) -> dict[str, Any]:
        """Removes a filter; returns its `name`.

        Raises:
            ConfigError: if there is none of this name.
            OSError: if it can't be removed.
        """
        self._named.remove(name)
        return {"name": name}

    def listed(self) -> dict[str, Any]:
        """`filters`: for each its `name`, whose it is (`of`: "operator" or "bundle"), and its text (`filter`)."""
        corpus = self._corpus()
        bundle = None if corpus is None else corpus.bundle
        found = {} if bundle is None else {name: ("bundle", text) for name, text in bundle.filters.items()}
        found.update({name: ("operator", self._described(name)) for name in self._named.names()})
        return {"filters": [{"name": name, "of": of, "filter": text} for name, (of, text) in sorted(found.items())]}

    def misfits(self) -> list[str]:
        """A message for each filter that can't be used with the bundle that answers."""
        corpus = self._corpus()
        return [] if corpus is None else ServedFilters.of_bundle(corpus.bundle, self._named).misfits()

    def _described(self, name: str) -> str:
        try:
            definition = self._named.read(name)
        except ConfigError as error:
            return str(error)
        return definition if isinstance(definition, str) else f"{0 if definition is None else len(definition):,} ids"


def _matching(corpus: LiveCorpus, name: str, definition: Definition) -> int:
    """How many of the items that are there now a filter allows."""
    snapshot = corpus.refresh()
    served = ServedFilters.of_bundle(corpus.bundle)
    served.follow(snapshot.attributes)
    allowed = served.compiled(name, definition)
    found = item_sets.count(allowed if snapshot.removed is None else allowed & ~snapshot.removed)
    if (added := snapshot.added) is None:
        return found
    if isinstance(definition, str):
        return found + item_sets.count(added.matching(definition))
    return found + item_sets.count(added.listed(corpus.bundle.id_kind.keys(definition)))
