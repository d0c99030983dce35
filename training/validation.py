"""Validation while training: recall and coverage of the current weights for a sample of validation users."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nann.metrics import coverage, recall

from .config import TrainingConfig
from .data.prepared import PreparedData
from .excluded import Excluded
from .models.scorer import AnyScorer, map_parts

_BLOCK_ON_CPU, _BLOCK_ON_GPU = (2, 1024), (16, 16_384)
"""Users and items per call: small enough for a CPU's cache, large enough to keep a GPU busy."""


@dataclass(frozen=True)
class Validation:
    """One validation, averaged over users.

    Attributes:
        step: steps done before it.
        recall: recall@K of the exhaustive top K, K = `search.top_k` of the configuration, without excluded items.
        coverage: share of the exhaustive top K among the items with the best light scores, as many as the last `ef` of
            the configuration: how well the light head imitates the scorer, without a graph. None without a light head.
    """

    step: int
    recall: float
    coverage: float | None


class Validator:
    """Scores every item for a sample of validation users, the same in every run on a data set.

    Raises:
        DataError: if the data set has no validation users.
    """

    def __init__(self, data: PreparedData, config: TrainingConfig, device: torch.device) -> None:
        self._queries = data.queries("validation", config.model.sequence_length, config.validation.users)
        self._excluded = Excluded.of(self._queries)
        self._device = device
        self._user_block, self._item_chunk = _BLOCK_ON_CPU if device.type == "cpu" else _BLOCK_ON_GPU
        self._top_k = min(config.search.top_k, data.item_count)
        self._shortlist = min(config.search.ef[-1], data.item_count)

    def measure(self, model: AnyScorer, step: int) -> Validation:
        """Recall and coverage of a model in training, which is not changed, batch norm statistics included."""
        was_training = model.training
        model.eval()
        try:
            exact, shortlist = self._search(model)
        finally:
            model.train(was_training)
        found = recall(exact, self._queries.target_indptr, self._queries.target_items)
        return Validation(step, found, None if shortlist is None else coverage(shortlist, exact))

    @torch.inference_mode()
    def _search(self, model: AnyScorer) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64] | None]:
        """The items with the best scores, `int64[Q, K]`, and with the best light scores, `int64[Q, ef]`.

        Both are without the items that the data set excludes.
        """
        behaviors, profiles = (
            torch.from_numpy(array).to(self._device) for array in (self._queries.behaviors, self._queries.profiles)
        )
        users = model.user_context(behaviors, profiles)
        light_users = model.light_users(behaviors, profiles) if model.has_light else None
        counts, most = (self._top_k, self._shortlist), self._excluded.most
        exact, light = (_Best(count + most, len(behaviors), self._device) for count in counts)
        for items in torch.arange(model.item_count, device=self._device).split(self._item_chunk):
            vectors = model.item_vectors(items)
            exact.add(_scores(model, users, model.item_features(vectors, items), self._user_block), items)
            if light_users is not None:
                light.add(light_users @ model.light_items(vectors).T, items)
        found, shortlist = (
            self._excluded.without(best.items.cpu().numpy(), count)
            for best, count in zip((exact, light), counts, strict=True)
        )
        return found, None if light_users is None else shortlist


class _Best:
    """The best `count` items of each user among the chunks seen."""

    def __init__(self, count: int, users: int, device: torch.device) -> None:
        self._count = count
        self._scores = torch.empty(users, 0, device=device)
        self.items = torch.empty(users, 0, dtype=torch.int64, device=device)

    def add(self, scores: Tensor, items: Tensor) -> None:
        """Adds a chunk: scores float[Q, C] of the items int64[C]."""
        items = torch.cat([self.items, items.expand_as(scores)], dim=1)
        scores = torch.cat([self._scores, scores], dim=1)
        self._scores, places = scores.topk(min(self._count, scores.shape[1]), dim=1)
        self.items = items.gather(1, places)


def _scores(model: AnyScorer, users: Any, items: Any, block: int) -> Tensor:
    """Scores of all pairs, a block of users at a time: float[Q, C]."""
    shared = map_parts(items, lambda part: part[None])  # [1, C, ...]

    def score(start: int) -> Tensor:
        return model.score(map_parts(users, lambda part: part[start : start + block]), shared)

    return torch.cat([score(start) for start in range(0, len(users[0]), block)])
