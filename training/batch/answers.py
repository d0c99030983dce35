"""The search of a batch job in this process: the answers that a server of the bundle gives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nann.beam_search import beam_search
from nann.bundle import USER_ENCODER_FILE, Bundle
from nann.errors import DataError
from nann.item_ids import Ids
from nann.request_conditions import RequestConditions
from nann.search_input import UserBatch
from nann.search_params import SearchOptions
from nann.search_requests import SearchBounds, parse_search

from ..export.onnx_export import require_exported
from ..scorers import OnnxScorer, OnnxUserEncoder
from .histories import Histories

USER_BLOCK = 64
"""Users that are searched for together."""
_NO_BOUND = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Answers:
    """What B users get.

    Attributes:
        item_ids: external ids, best first: `int64[B, K]` padded with -1, or `object[B, K]` padded with "".
        scores: `float32[B, K]`.
        unknown_items: how many ids of the users' histories the bundle does not know.
    """

    item_ids: Ids
    scores: npt.NDArray[np.float32]
    unknown_items: int

    @classmethod
    def joined(cls, parts: Iterable[Answers]) -> Answers:
        """Those of several blocks of users, which have the same K."""
        ids, scores, unknown = zip(*((part.item_ids, part.scores, part.unknown_items) for part in parts), strict=True)
        return cls(np.concatenate(ids), np.concatenate(scores), sum(unknown))


class SearchedBundle:
    """A bundle, and what a job asks of its search.

    Args:
        path: the bundle, complete.
        options: of every user.

    Raises:
        BundleError: if the bundle is not complete.
        RequestError: if it can't be searched with the options.
    """

    def __init__(self, path: Path, options: SearchOptions) -> None:
        self.bundle = bundle = Bundle.open(path)
        require_exported(bundle)
        bounds = SearchBounds(_NO_BOUND, _NO_BOUND, _NO_BOUND).of_corpus(bundle.item_count)
        asked = options.to_parameters()
        self.options, self.params = parse_search(asked, bundle.search_params, bundle.search_by_entry, bounds)
        self.conditions = RequestConditions(bundle)
        self.conditions.blocked(options, np.zeros((1, 0), np.int32))  # a filter that can't be read is told now


class BundleAnswers:
    """The answers of a bundle that is searched in this process.

    Args:
        searched: the bundle and what is asked of it.
        threads: that share a scorer call; 0: as many as cores.
    """

    def __init__(self, searched: SearchedBundle, threads: int = 0) -> None:
        self._searched = searched
        self._encoder = OnnxUserEncoder(searched.bundle.path / USER_ENCODER_FILE, threads)
        self._scorer = OnnxScorer.of_bundle(searched.bundle, threads)

    def answers(self, blocks: Iterable[Histories]) -> Iterator[Answers]:
        """Those of each block of users, in order."""
        return map(self.answer, blocks)

    def answer(self, histories: Histories) -> Answers:
        """Those of some users, `USER_BLOCK` at a time.

        Raises:
            DataError: if their profiles are not those of the model.
        """
        self._check_profiles(histories)
        starts = range(0, len(histories), USER_BLOCK)
        return Answers.joined(self._search(histories[start : start + USER_BLOCK]) for start in starts)

    def _search(self, histories: Histories) -> Answers:
        bundle, options = self._searched.bundle, self._searched.options
        features, ids = bundle.features, histories.padded(bundle.id_kind)
        behaviors, unknown = features.behaviors(ids)
        codes = histories.profiles if features.profile_sizes else None
        states = self._encoder.encode(behaviors, features.profile(codes, len(behaviors)))
        # As on the server: nothing of the whole history, though the model reads only its end.
        history = features.item_indices(ids) if options.exclude_history else behaviors
        users = UserBatch(states, behaviors, self._searched.conditions.blocked(options, history))
        found = beam_search(bundle.index, self._scorer, users, self._searched.params)
        return Answers(bundle.external_ids(found.items), found.scores, int(unknown.sum()))

    def _check_profiles(self, histories: Histories) -> None:
        fields = self._searched.bundle.manifest["profile_fields"]
        if histories.profiles is not None and fields and list(histories.profile_fields) != list(fields):
            raise DataError(
                f"the profiles of the data set are not those that {self._searched.bundle.path} was made with; use its "
                "own data set, or leave the profiles out with --no-profiles"
            )
