"""The answers that the served ensemble must give: the same search offline, with onnxruntime for the models."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator

import numpy as np
import onnxruntime

from nann.beam_search import beam_search
from nann.bundle import Bundle
from nann.search_input import UserBatch
from nann.search_params import SearchParams


class OfflineEnsemble:
    """The served pipeline without Triton."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._user_encoder, self._scorer = (
            onnxruntime.InferenceSession(str(bundle.path / name), providers=["CPUExecutionProvider"])
            for name in ("user_encoder.onnx", "scorer.onnx")
        )

    def user_states(self, ids: list[int], profile: list[int] | None = None) -> np.ndarray:
        """`float32[1, S]`."""
        features = self._bundle.features
        inputs = {
            "behaviors": features.behaviors(np.array([ids], np.int64))[0],
            "profile_codes": features.profile(None if profile is None else np.array([profile], np.int64), 1),
        }
        read = [declared.name for declared in self._user_encoder.get_inputs()]
        return self._user_encoder.run(None, {name: inputs[name] for name in read})[0]

    def score(self, user_states: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        rows = self._bundle.item_rows
        if rows is None:
            return self._scorer.run(None, {"user_state": user_states, "candidates": candidates})[0]
        return self._scorer.run(None, {"user_state": user_states, "candidate_rows": rows.base[candidates]})[0]

    def retrieve(
        self,
        ids: list[int],
        params: SearchParams | None = None,
        profile: list[int] | None = None,
        hidden: Collection[int] = (),
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """`int64[top_k]` item ids, `float32[top_k]` scores, and how many items were scored; without `hidden` ids."""
        return self._search(ids, params or self._bundle.search_params, profile=profile, hidden=hidden)

    def exhaustive(self, ids: list[int], shown: Collection[int], top_k: int) -> np.ndarray:
        """`int64[top_k]`: the best of the ids that may be shown, by scoring each of them, padded with -1."""
        items = np.flatnonzero(np.isin(self._bundle.item_ids, list(shown))).astype(np.int32)
        found = np.full(top_k, -1)
        if len(items):
            order = np.argsort(-self.score(self.user_states(ids), items[None])[0], kind="stable")[:top_k]
            found[: len(order)] = self._bundle.item_ids[items[order]]
        return found

    def after_each_call(self, ids: list[int], params: SearchParams) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
        """The answers of searches stopped after one scorer call, two, and so on; the last one is the full answer."""
        whole = self.retrieve(ids, params)
        for calls in itertools.count(1):
            answer = self._search(ids, params, most_calls=calls)
            yield answer
            if answer[2] == whole[2]:
                return

    def _search(
        self,
        ids: list[int],
        params: SearchParams,
        most_calls: int | None = None,
        profile: list[int] | None = None,
        hidden: Collection[int] = (),
    ) -> tuple[np.ndarray, np.ndarray, int]:
        bundle, calls = self._bundle, itertools.count()
        behaviors, _ = bundle.features.behaviors(np.array([ids], np.int64))
        result = beam_search(
            bundle.index,
            self,
            UserBatch(self.user_states(ids, profile), behaviors, self._blocked(hidden) if hidden else None),
            params,
            stop=None if most_calls is None else lambda: np.array([next(calls) >= most_calls]),
        )
        return bundle.external_ids(result.items[0]), result.scores[0], int(result.items_scored[0])

    def _blocked(self, hidden: Collection[int]) -> np.ndarray:
        """The ids as a bitmap, `uint64[1, W]`; bits written one by one."""
        words = np.zeros((1, -(-self._bundle.item_count // 64)), np.uint64)
        for item in np.flatnonzero(np.isin(self._bundle.item_ids, list(hidden))).tolist():
            words[0, item // 64] |= np.uint64(1 << item % 64)
        return words
