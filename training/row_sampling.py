"""Batches of whole sequences: every group of a user is a target, and all of them share candidates and behaviours."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .config import TrainingConfig
from .data.prepared import PreparedData
from .data.row_ranges import unique_pairs
from .models.kernel_scorer import RowsOfContexts
from .models.scorer import map_parts
from .sampling import EPOCH_STREAM, NEGATIVE_STREAM, Sampler, UnigramSampler

_PADDED = 1.3
"""A step has at most this many behaviours, padding included, per context that the configuration asks for."""


_AUXILIARY_CONTEXTS, _AUXILIARY_CANDIDATES = 64, 16
"""Contexts of a batch, and by default candidates of each, that are perturbed for the auxiliary loss."""


class Contexts(NamedTuple):
    """Some contexts on their own, for the auxiliary loss.

    Attributes:
        behaviors: `int32[A, L]` item indices, -1 = padding.
        profile_codes: `int32[A, P]`.
        candidates: `int64[A, C]`, places in the batch's candidates, a target first.
    """

    behaviors: Tensor
    profile_codes: Tensor
    candidates: Tensor


class RowBatch(NamedTuple):
    """R rows of T behaviours with G contexts each, and C candidates that all contexts share.

    Attributes:
        items: `int64[M]`, the distinct items of the batch.
        rows: behaviours as positions in `items`.
        candidates: `int64[C]`, positions in `items`: all targets of the batch, and negatives.
        log_expected: `float[C]`, log probability that the candidate is in such a batch (logQ correction); 0 without
            `loss.logq`.
        own: `bool[R, C]`, candidates that are in the row's own behaviours or targets.
        target_contexts: `int64[P]`, each target's context, counted through all rows: row * G + place.
        targets: `int64[P]`, each target's place in `candidates`.
        contexts: for the auxiliary loss, if it is wanted.
    """

    items: Tensor
    rows: RowsOfContexts
    candidates: Tensor
    log_expected: Tensor
    own: Tensor
    target_contexts: Tensor
    targets: Tensor
    contexts: Contexts | None

    def to(self, device: torch.device) -> RowBatch:
        """The same batch on another device."""

        def moved(part: Tensor) -> Tensor:
            return part.to(device, non_blocking=True)

        return RowBatch(
            moved(self.items),
            map_parts(self.rows, moved),
            moved(self.candidates),
            moved(self.log_expected),
            moved(self.own),
            moved(self.target_contexts),
            moved(self.targets),
            None if self.contexts is None else map_parts(self.contexts, moved),
        )

    @property
    def example_count(self) -> int:
        """Targets."""
        return len(self.targets)


class RowSampler(Sampler[RowBatch]):
    """Assembles the batch of any step, of rows with similar lengths.

    A row holds up to `sequence_length` consecutive behaviours that are targets, and as many before them. Every epoch
    visits each row once, in an order shuffled by (seed, epoch). The processes of a distributed run take batches in
    turn.

    Args:
        data: the training users' groups are the targets.
        config: for the seed, the sequence length and how negatives are drawn.
        contexts: about how many a batch holds.
        negatives: how many are drawn for a batch.
    """

    def __init__(
        self,
        data: PreparedData,
        config: TrainingConfig,
        contexts: int,
        negatives: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._data, self._config, self._negatives = data, config, negatives
        self._rank, self._world_size = rank, world_size
        self._first, self._end, self._users = data.training_groups()
        starts = data.user_first[self._users]
        length = config.model.sequence_length
        part = (self._first - starts) // length
        new = np.append(True, (np.diff(self._users) != 0) | (np.diff(part) != 0))
        self._row_context = np.flatnonzero(new)  # first context of each row
        self._row_contexts = np.diff(np.append(self._row_context, len(new)))
        last = self._row_context + self._row_contexts - 1
        self._row_first = np.maximum(starts[self._row_context], self._first[self._row_context] - length)
        self._row_width = self._first[last] - self._row_first
        self._cuts = _cuts(np.sort(self._row_width), round(_PADDED * contexts))
        weights = data.train_counts.astype(np.float64) ** config.loss.noise_power
        self._noise = UnigramSampler(weights)
        self._share, self._noise_share = data.train_counts / data.train_counts.sum(), weights / weights.sum()
        self._order: tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int64]] = (-1, *(np.empty(0, np.int64),) * 2)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one process in which all of them visit every row about once."""
        return max(1, (len(self._cuts) - 1) // self._world_size)

    def batch(self, step: int) -> RowBatch:
        """The batch of one step of this process."""
        rows = self._rows(step)
        rng = np.random.default_rng((self._config.seed, NEGATIVE_STREAM, step, self._rank))
        first, width = self._row_first[rows], self._row_width[rows]
        places = first[:, None] + np.arange(width.max())
        known = places < (first + width)[:, None]
        behaviors = np.where(known, self._data.behavior_items[np.where(known, places, 0)], -1)  # [R, T]
        contexts = self._row_context[rows, None] + np.arange(self._row_contexts[rows].max())
        real = np.arange(contexts.shape[1]) < self._row_contexts[rows, None]
        contexts = np.where(real, contexts, 0)
        ends = np.where(real, self._first[contexts] - first[:, None], 0)  # [R, G]
        target_contexts, target_items = self._targets(np.flatnonzero(real), contexts[real])
        drawn = self._noise.draw(rng, (self._negatives,))
        candidates = np.union1d(target_items, drawn)
        expected = self._negatives * self._noise_share[candidates] + len(target_items) * self._share[candidates]
        items, inverse = np.unique(np.concatenate([candidates, np.maximum(behaviors, 0).ravel()]), return_inverse=True)
        targets = np.searchsorted(candidates, target_items)
        own = np.zeros((len(rows), len(candidates) + 1), bool)
        own[target_contexts // contexts.shape[1], targets] = True
        behavior_places = _place(candidates, behaviors)  # [R, T]
        own[np.arange(len(rows))[:, None], behavior_places] = True
        users = self._users[self._row_context[rows]]
        profiles = self._data.user_profiles[users]
        rows_part = (inverse[len(candidates) :].reshape(behaviors.shape), behavior_places, ends, profiles)
        return RowBatch(
            torch.from_numpy(items),
            RowsOfContexts(*map(torch.from_numpy, rows_part)),
            torch.from_numpy(inverse[: len(candidates)]),
            torch.from_numpy(self._config.loss.logq * np.log(-np.expm1(-expected) + 1e-9).astype(np.float32)),
            torch.from_numpy(np.ascontiguousarray(own[:, :-1])),
            torch.from_numpy(target_contexts),
            torch.from_numpy(targets),
            self._contexts(rng, contexts.ravel()[target_contexts], targets, np.searchsorted(candidates, drawn)),
        )

    def _contexts(
        self,
        rng: np.random.Generator,
        contexts: npt.NDArray[np.int64],
        targets: npt.NDArray[np.int64],
        drawn: npt.NDArray[np.int64],
    ) -> Contexts | None:
        """Some targets with their contexts and drawn negatives: contexts int64[P], places int64[P] and int64[N]."""
        auxiliary, data = self._config.loss.auxiliary, self._data
        if auxiliary.reading == "none" or auxiliary.weight == 0:
            return None
        some = rng.choice(len(targets), min(_AUXILIARY_CONTEXTS, len(targets)), replace=False)
        chosen = contexts[some]
        users = self._users[chosen]
        length = self._config.model.sequence_length
        behaviors = data.contexts(data.user_first[users], self._first[chosen], length)
        count = (auxiliary.candidates or _AUXILIARY_CANDIDATES) - 1
        places = np.concatenate([targets[some, None], rng.choice(drawn, (len(some), count))], axis=1)
        return Contexts(*map(torch.from_numpy, (behaviors, data.user_profiles[users], places)))

    def _rows(self, step: int) -> npt.NDArray[np.int64]:
        batches = len(self._cuts) - 1
        epoch, place = divmod(step * self._world_size + self._rank, batches)
        if self._order[0] != epoch:
            rng = np.random.default_rng((self._config.seed, EPOCH_STREAM, epoch))
            rows = rng.permutation(len(self._row_width))
            rows = rows[np.argsort(self._row_width[rows], kind="stable")]
            self._order = (epoch, rows, rng.permutation(batches))
        _, rows, order = self._order
        return rows[self._cuts[order[place]] : self._cuts[order[place] + 1]]

    def _targets(
        self, places: npt.NDArray[np.intp], contexts: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Every item of the contexts' groups, once per group: places of the contexts and items, int64[P] each."""
        count = self._data.item_count
        pairs = unique_pairs(self._data.behavior_items, self._first[contexts], self._end[contexts], count)
        return places[pairs // count], pairs % count


def _cuts(widths: npt.NDArray[np.int64], most: int) -> list[int]:
    """Where batches of rows end whose padded size is at most `most`, given the ascending widths; at least one row."""
    cuts, start = [0], 0
    for row, width in enumerate(widths.tolist()):
        if row > start and (row - start + 1) * width > most:
            cuts.append(row)
            start = row
    return [*cuts, len(widths)]


def _place(candidates: npt.NDArray[np.int64], items: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Where each item is in the ascending candidates; their number for one that is not: int64, shape of `items`."""
    places = np.minimum(np.searchsorted(candidates, items), len(candidates) - 1)
    return np.where(candidates[places] == items, places, len(candidates))
