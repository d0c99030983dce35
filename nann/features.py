"""Turns a request into the user encoder's inputs; training, evaluation and serving share this code."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nann.errors import RequestError
from nann.signature import BEHAVIOR_ITEM_IDS, PADDING_IDS, PADDING_ITEM, USER_PROFILE


def is_padding(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Where external ids mean "no item here"; any shape."""
    zero, minus_one = PADDING_IDS
    padding: npt.NDArray[np.bool_] = (ids == zero) | (ids == minus_one)  # np.isin would take ten times as long
    return padding


@dataclass(frozen=True)
class FeatureTransform:
    """Maps external ids to item indices and cuts the sequence to what the model reads.

    Attributes:
        item_ids: `int64[N]`, strictly ascending; position = item index.
        sequence_length: how many behaviours the model reads; the newest known ones are kept.
        profile_sizes: number of codes of each user profile field, code 0 = unknown included; empty without fields.
    """

    item_ids: npt.NDArray[np.int64]
    sequence_length: int
    profile_sizes: tuple[int, ...] = ()

    def item_indices(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """Item index of each external id, -1 where the id is unknown or padding; any shape."""
        place = np.minimum(np.searchsorted(self.item_ids, ids), self.item_ids.shape[0] - 1)
        known = (self.item_ids[place] == ids) & ~is_padding(ids)
        return np.where(known, place, PADDING_ITEM).astype(np.int32)

    def behaviors(self, ids: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """The newest known behaviours of each user.

        Args:
            ids: `int64[B, L]` external ids, oldest first, 0 or -1 = padding; L may be 0.

        Returns:
            `int32[B, sequence_length]` item indices, oldest first, padded on the left with -1, and
            `int32[B, 1]`, how many ids of each user are unknown.

        Raises:
            RequestError: naming the tensor, if its rank is wrong.
        """
        if ids.ndim != 2:
            raise RequestError(f"{BEHAVIOR_ITEM_IDS.name} has shape {list(ids.shape)}; expected [batch, length]")
        indices = self.item_indices(ids)
        known = indices != PADDING_ITEM
        unknown = (~known & ~is_padding(ids)).sum(axis=1, dtype=np.int32)[:, None]
        # A stable sort on "known" moves the known ones to the right and keeps their order.
        order = np.argsort(known, axis=1, kind="stable")
        newest = order[:, -self.sequence_length :]
        behaviors = np.full((len(ids), self.sequence_length), PADDING_ITEM, np.int32)
        behaviors[:, self.sequence_length - newest.shape[1] :] = np.take_along_axis(indices, newest, axis=1)
        return behaviors, unknown

    def profile(self, codes: npt.NDArray[np.int64] | None, batch: int) -> npt.NDArray[np.int32]:
        """User profile codes, `int32[B, max(P, 1)]`; codes that the data set does not have become 0 (unknown).

        Raises:
            RequestError: naming the tensor, if it does not have one column per field.
        """
        width = len(self.profile_sizes)
        if codes is None or width == 0:
            return np.zeros((batch, max(width, 1)), np.int32)
        if codes.shape != (batch, width):
            raise RequestError(f"{USER_PROFILE.name} has shape {list(codes.shape)}; expected [{batch}, {width}]")
        valid = (codes >= 0) & (codes < np.asarray(self.profile_sizes))
        return np.where(valid, codes, 0).astype(np.int32)
