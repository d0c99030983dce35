"""Lists for users whose answer may be an item that training never saw, by the place that such items are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nann.metrics import recall
from nann.scorer import Int32Array
from nann.signature import PADDING_ITEM

from ...data.prepared import PreparedData, Queries
from ...models.scorer import AnyScorer, map_parts
from ...reports.store import Json

_USERS = 4
"""Users scored at a time."""
_ITEMS = 16_384
PLACES = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Shares of a list's places for new items, at which placements are compared."""
_BISECTIONS, _LARGEST_BOOST = 24, 50.0


class _List(NamedTuple):
    """The best of some items for each user: `int64[U, K]`, their scores, `float[U, K]`, and those of all, summed up."""

    items: Tensor
    scores: Tensor
    total: Tensor
    """`float[U]`, log(sum of e^score)."""


@dataclass(frozen=True)
class FreshItems:
    """Users of a data set, and its items that training never saw.

    Attributes:
        data: the data set.
        queries: the users.
        top_k: length of a list.
    """

    data: PreparedData
    queries: Queries
    top_k: int

    @cached_property
    def new(self) -> npt.NDArray[np.bool_]:
        """Which items training never saw: `bool[N]`."""
        new: npt.NDArray[np.bool_] = self.data.train_counts == 0
        return new

    def target_count(self, *, new: bool) -> int:
        """How many answers are new items, or are not."""
        return int((self.new[self.queries.target_items] == new).sum())

    def category_means(self, vectors: Tensor) -> Tensor:
        """For each new item the mean e_v of the others in its category, or of all: float[N, d] -> float[new, d]."""
        old, categories = torch.from_numpy(~self.new), torch.tensor(self.data.item_categories).long()
        sums = vectors.new_zeros(self.data.category_count, vectors.shape[1])
        sums.index_add_(0, categories[old], vectors[old])
        counts = torch.bincount(categories[old], minlength=len(sums))[:, None]
        means = torch.where(counts > 0, sums / counts.clamp(min=1), vectors[old].mean(dim=0))
        return means[categories[~old]]

    @torch.inference_mode()
    def measure(self, model: AnyScorer, placements: Mapping[str, Tensor]) -> dict[str, Json]:
        """`without`, the lists of a corpus without new items, and one entry for each placement.

        An entry has `recall_new` and `recall_old` of lists of both kinds of items, `listed`, the share of new items in
        them, and `recall_alone`, that of lists of new items alone. `boosted` has the same for each of `PLACES`: the
        scores of new items get the `boost` with which they take so many places. Recall is a mean over the users with
        such answers. `probability` is the share of all items' e^score that new ones have, a mean over users. `best` is
        how many times as likely a user's best new item is as the last item in a list of the others, the typical user's.

        Args:
            model: in evaluation mode, on the CPU.
            placements: by name the e_v of the new items, `float[new, d]`, in the order of their indices.
        """
        model.eval()
        old = torch.from_numpy(np.flatnonzero(~self.new))
        known = [model.item_features(model.item_vectors(items), items) for items in old.split(_ITEMS)]
        placed = {name: [_features(model, each) for each in at.split(_ITEMS)] for name, at in placements.items()}
        fresh = torch.from_numpy(np.flatnonzero(self.new))
        found: dict[str, list[_List]] = {name: [] for name in ("without", *placements)}
        behaviors, profiles = torch.from_numpy(self.queries.behaviors), torch.from_numpy(self.queries.profiles)
        for some in torch.arange(len(behaviors)).split(_USERS):
            user = model.user_context(behaviors[some], profiles[some])
            found["without"].append(self._best(_scores(model, user, known), old))
            for name, features in placed.items():
                found[name].append(self._best(_scores(model, user, features), fresh))
        lists = {name: _List(*map(torch.cat, zip(*each, strict=True))) for name, each in found.items()}
        without = lists.pop("without")
        of_old = self._recalls(without.items)
        entries: dict[str, Json] = {"without": {name: of_old[name] for name in ("recall", "recall_old")}}
        for name, alone in lists.items():
            boosted = [self._both(without, alone, self._boost(without, alone, places)) for places in PLACES]
            plain = self._both(without, alone, 0.0)
            entries[name] = {
                **plain,
                "recall_alone": self._recalls(alone.items)["recall_new"],
                "probability": float((alone.total - without.total).sigmoid().mean()),
                "best": float((alone.scores[:, 0] - without.scores[:, -1]).mean().exp()),
                "boosted": boosted,
            }
        return entries

    def _boost(self, old: _List, new: _List, places: float) -> float:
        """With which new items take this share of the places."""
        low, high = -_LARGEST_BOOST, _LARGEST_BOOST
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            few = self.new[self._joined(old, new, middle)].mean() < places
            low, high = (middle, high) if few else (low, middle)
        return high

    def _both(self, old: _List, new: _List, boost: float) -> Json:
        lists = self._joined(old, new, boost)
        return {"boost": boost, **self._recalls(lists), "listed": float(self.new[lists].mean())}

    def _joined(self, old: _List, new: _List, boost: float) -> Int32Array:
        """The best items of two lists, `int[U, K]`."""
        scores = torch.cat([old.scores, new.scores + boost], dim=1)
        items = torch.cat([old.items, new.items], dim=1)
        joined: Int32Array = items.gather(1, scores.topk(self.top_k, dim=1).indices).numpy()
        return joined

    def _best(self, scores: Tensor, items: Tensor) -> _List:
        """The best items of B users, of the scores float[B, C] of items int64[C]."""
        best = scores.topk(min(self.top_k, len(items)), dim=1)
        return _List(items[best.indices], best.values, scores.logsumexp(dim=1))

    def _recalls(self, lists: Tensor | Int32Array) -> dict[str, float]:
        """Recall of all answers, of those that are new and of the others, each over the users that have some."""
        is_new = self.new[self.queries.target_items]
        kinds = {"recall": np.ones_like(is_new), "recall_new": is_new, "recall_old": ~is_new}
        return {name: self._recall(np.asarray(lists), kept) for name, kept in kinds.items()}

    def _recall(self, lists: Int32Array, kept: npt.NDArray[np.bool_]) -> float:
        """Recall of some of the answers, bool[T]."""
        users = np.repeat(np.arange(len(lists)), np.diff(self.queries.target_indptr))[kept]
        rows, counts = np.unique(users, return_counts=True)
        return recall(lists[rows], np.append(0, counts.cumsum()), self.queries.target_items[kept])


def _features(model: AnyScorer, vectors: Tensor) -> Any:
    """The item's side of the score for new items, which are in no history."""
    return model.item_features(vectors, torch.full((len(vectors),), PADDING_ITEM))


def _scores(model: AnyScorer, user: Any, chunks: list[Any]) -> Tensor:
    """float[B, items of all chunks]."""
    return torch.cat([model.score(user, map_parts(each, lambda part: part[None])) for each in chunks], dim=1)
