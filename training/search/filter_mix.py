"""Users some of whom ask without a filter and the others under one, in equal shares: what `nann tune` tunes for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.bundle import Bundle
from nann.errors import ConfigError
from nann.metrics import coverage
from nann.request_conditions import RequestConditions, items_matching
from nann.search_input import UserBatch
from nann.search_params import SearchOptions
from nann.search_result import SearchResult

from .measured_users import MeasuredUsers


@dataclass(frozen=True, eq=False)
class FilterMix:
    """Which filter each of U users asks with.

    Attributes:
        filters: texts; None: no filter.
        chosen: `intp[U]`, places in `filters`. The users take turns.
        matching: how many items each filter allows.
    """

    filters: tuple[str | None, ...]
    chosen: npt.NDArray[np.intp]
    matching: tuple[int, ...]

    @classmethod
    def under(cls, filters: Sequence[str], bundle: Bundle, batch: UserBatch) -> tuple[FilterMix, UserBatch]:
        """The mix of no filter and each of `filters`, and the batch of U users under it.

        Raises:
            RequestError: if the bundle's items have no attributes, or a filter can't be read.
            ConfigError: if there are fewer users than filters, or a filter allows no item.
        """
        mix: list[str | None] = [None, *filters]
        if len(batch) < len(mix):
            raise ConfigError(
                f"got {len(filters)} filters for {len(batch)} validation users; expected a user for each, and one "
                "without a filter: give fewer, or raise --users"
            )
        conditions, chosen = RequestConditions(bundle), np.arange(len(batch)) % len(mix)
        batches, matching = [], []
        for place, text in enumerate(mix):
            users = batch[np.flatnonzero(chosen == place)]
            blocked = conditions.blocked(SearchOptions(filter=text), np.zeros((len(users), 0), np.int32))
            matching.append(int(items_matching(blocked, len(users), bundle.item_count)[0]))
            if not matching[-1]:
                raise ConfigError(f"no item matches the filter {text}; leave it out, or correct it")
            batches.append(replace(users, blocked=blocked))
        order = np.argsort(np.argsort(chosen, kind="stable"), kind="stable")  # back to the users' own order
        return cls(tuple(mix), chosen, tuple(matching)), UserBatch.concatenate(batches)[order] if filters else batch

    def measures(self, users: MeasuredUsers, found: SearchResult) -> list[dict[str, Any]]:
        """What a search of all users found and cost under each filter."""
        parts = []
        for place, text in enumerate(self.filters):
            rows = np.flatnonzero(self.chosen == place)
            parts.append(
                {
                    "filter": text,
                    "users": len(rows),
                    "items_matching": self.matching[place],
                    "coverage": coverage(found.items[rows], users.exact[rows]),
                    "items_scored": float(found.items_scored[rows].mean()),
                }
            )
        return parts
