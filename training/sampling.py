"""Examples and negatives of each step: a function of (seed, step, rank), so a run resumes from its step count alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from .config import TrainingConfig
from .data.prepared import PreparedData
from .objective import Batch

EPOCH_STREAM, NEGATIVE_STREAM = 0, 1
"""Part of the random seeds, so that the order of an epoch and the negatives of a step are independent."""


class UnigramSampler:
    """Draws items in proportion to their counts, `int64[N]`, by binary search in the cumulative counts."""

    def __init__(self, counts: npt.NDArray[Any]) -> None:
        self._cumulative = np.cumsum(counts)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
        """Item indices, `int64[shape]`."""
        total = self._cumulative[-1]
        whole = np.issubdtype(total.dtype, np.integer)
        points = rng.integers(total, size=shape) if whole else rng.random(shape) * total
        return np.searchsorted(self._cumulative, points, side="right")


BatchT = TypeVar("BatchT")


class Sampler(ABC, Generic[BatchT]):
    """Gives the batch of any step, as a function of the seed, the step and the process alone."""

    @abstractmethod
    def batch(self, step: int) -> BatchT:
        """The batch of one step of this process."""

    def batches(self, first: int, last: int) -> Generator[BatchT]:
        """The batches of steps `first` to `last` - 1; a thread assembles the next while the caller uses the current.

        An error in the thread is raised here, at the step of the failed batch. Closing the generator ends the thread.
        """
        with ThreadPoolExecutor(1, "next_batch") as thread:
            coming = thread.submit(self.batch, first)
            for step in range(first, last):
                batch = coming.result()
                if step + 1 < last:
                    coming = thread.submit(self.batch, step + 1)
                yield batch


class BatchSampler(Sampler[Batch]):
    """Assembles the batch of any step, vectorised.

    An example is a group to predict from the behaviours before it: a basket, or one behaviour if the log has no
    baskets. Every epoch visits each group once, in an order shuffled by (seed, epoch). The processes of a distributed
    run take disjoint slices of it.
    """

    def __init__(self, data: PreparedData, config: TrainingConfig, rank: int = 0, world_size: int = 1) -> None:
        self._data = data
        self._config = config
        self._rank = rank
        self._world_size = world_size
        self._first, self._end, self._users = data.training_groups()
        self._negatives = UnigramSampler(data.train_counts)
        self._order: tuple[int, npt.NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    @property
    def example_count(self) -> int:
        """Examples per epoch."""
        return len(self._first)

    def batch(self, step: int) -> Batch:
        """The batch of one step of this process."""
        chosen = self._examples(step)
        users, data, loss = self._users[chosen], self._data, self._config.loss
        behaviors = data.contexts(data.user_first[users], self._first[chosen], self._config.model.sequence_length)
        profiles = data.user_profiles[users] if data.user_profiles.shape[1] else np.zeros((len(users), 1), np.int32)
        rng = np.random.default_rng((self._config.seed, NEGATIVE_STREAM, step, self._rank))
        rows, real = self._positive_rows(rng, chosen)
        negatives = self._negatives.draw(rng, (len(chosen), loss.negatives))
        candidates = np.concatenate([data.behavior_items[rows].astype(np.int64), negatives], axis=1)
        items, places = np.unique(candidates, return_inverse=True)
        arrays = (behaviors, profiles, items, places.reshape(candidates.shape), real)
        return Batch(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))

    def _positive_rows(
        self, rng: np.random.Generator, chosen: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Rows of each group's positives and which are real: int64[B, P], bool[B, P]; the first always is."""
        sizes = (self._end - self._first)[chosen]
        width = min(self._config.loss.positives, int(sizes.max()))
        # A larger group gives a window from a random start, wrapped around: rows of a basket have no order.
        places = rng.integers(sizes)[:, None] + np.arange(width)
        return self._first[chosen, None] + places % sizes[:, None], np.arange(width) < sizes[:, None]

    def _examples(self, step: int) -> npt.NDArray[np.int64]:
        size = self._config.optimization.batch_size
        start = (step * self._world_size + self._rank) * size
        places = np.arange(start, start + size)
        epochs, offsets = places // self.example_count, places % self.example_count
        chosen = np.empty(size, np.int64)
        for epoch in np.unique(epochs):
            inside = epochs == epoch
            chosen[inside] = self._shuffled(int(epoch))[offsets[inside]]
        return chosen

    def _shuffled(self, epoch: int) -> npt.NDArray[np.int64]:
        if self._order[0] != epoch:
            rng = np.random.default_rng((self._config.seed, EPOCH_STREAM, epoch))
            self._order = (epoch, rng.permutation(self.example_count))
        return self._order[1]
