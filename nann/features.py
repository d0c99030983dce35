"""Turns a request into the user encoder's inputs; training, evaluation and serving share this code."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from nann.errors import RequestError
from nann.item_ids import IdKind, Ids, kind_of
from nann.signature import BEHAVIOR_ITEM_IDS, PADDING_ITEM, USER_PROFILE


@dataclass(frozen=True)
class FeatureTransform:
    """Maps external ids to item indices and cuts the sequence to what the model reads.

    Attributes:
        item_ids: `int64[N]`, or `S[N]` of text ids, strictly ascending; position = item index.
        sequence_length: how many behaviours the model reads; the newest known ones are kept.
        profile_sizes: number of codes of each user profile field, code 0 = unknown included; empty without fields.
        behavior_ids: `int64[T]` or `S[T]`, strictly ascending, ids of the items that the user encoder knows; position =
            behaviour index. None: those of `item_ids`. They differ once the corpus has changed since the training.
    """

    item_ids: Ids
    sequence_length: int
    profile_sizes: tuple[int, ...] = ()
    behavior_ids: Ids | None = None

    @cached_property
    def id_kind(self) -> IdKind:
        """Whether the items' ids are numbers or text."""
        return kind_of(self.item_ids)

    def item_indices(self, ids: Ids) -> npt.NDArray[np.int32]:
        """Item index of each external id, -1 where the id is unknown or padding; any shape."""
        return self.id_kind.indices(self.item_ids, ids)

    def item_codes(self, ids: Ids) -> npt.NDArray[np.int64]:
        """Of each external id the item index, or ~key (`IdKind.keys`) if it is unknown; -1 = padding; any shape.

        An id that this bundle does not know may be that of an item that was added since.
        """
        items = self.item_indices(ids).astype(np.int64)
        unknown = (items == PADDING_ITEM) & ~self.id_kind.is_padding(ids)
        if unknown.any():
            items[unknown] = ~self.id_kind.keys(ids[unknown])
        return items

    @property
    def known_ids(self) -> Ids:
        """The ids of the items that the user encoder knows, by behaviour index."""
        return self.item_ids if self.behavior_ids is None else self.behavior_ids

    def own_items(self, behaviors: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Item indices of behaviours, int32[...], -1 = padding; -1 too where the item is not among the N any more."""
        return behaviors if self._item_of_behavior is None else self._item_of_behavior[behaviors]

    @cached_property
    def _item_of_behavior(self) -> npt.NDArray[np.int32] | None:
        """`int32[T + 1]`, the last one that of -1; None: they are the same."""
        if self.behavior_ids is None:
            return None
        return np.append(self.item_indices(self.behavior_ids), np.int32(PADDING_ITEM))

    def behaviors(self, ids: Ids) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """The newest known behaviours of each user.

        Args:
            ids: `int64[B, L]` external ids, oldest first, 0 or -1 = padding; or `object[B, L]` of text ids, "" =
                padding. L may be 0.

        Returns:
            `int32[B, sequence_length]` behaviour indices, oldest first, padded on the left with -1, and
            `int32[B, 1]`, how many ids of each user are unknown to the user encoder.

        Raises:
            RequestError: naming the tensor, if its rank is wrong.
        """
        if ids.ndim != 2:
            raise RequestError(f"{BEHAVIOR_ITEM_IDS.name} has shape {list(ids.shape)}; expected [batch, length]")
        indices = self.id_kind.indices(self.known_ids, ids)
        known = indices != PADDING_ITEM
        unknown = (~known & ~self.id_kind.is_padding(ids)).sum(axis=1, dtype=np.int32)[:, None]
        behaviors = np.full((len(ids), self.sequence_length), PADDING_ITEM, np.int32)
        for row, found, is_known in zip(behaviors, indices, known, strict=True):
            newest = found[is_known][-self.sequence_length :]
            row[self.sequence_length - len(newest) :] = newest
        return behaviors, unknown

    def profile(self, codes: npt.NDArray[np.int64] | None, batch: int) -> npt.NDArray[np.int32]:
        """User profile codes, `int32[B, max(P, 1)]`; codes that the data set does not have become 0 (unknown).

        Raises:
            RequestError: naming the tensor, if it does not have one column per field, or there are no fields.
        """
        width = len(self.profile_sizes)
        if codes is None:
            return np.zeros((batch, max(width, 1)), np.int32)
        if width == 0:
            raise RequestError(
                f"{USER_PROFILE.name} came, and the model knows no user profile: it has no profile fields; leave it out"
            )
        if codes.shape != (batch, width):
            raise RequestError(f"{USER_PROFILE.name} has shape {list(codes.shape)}; expected [{batch}, {width}]")
        valid = (codes >= 0) & (codes < np.asarray(self.profile_sizes))
        return np.where(valid, codes, 0).astype(np.int32)


def profile_codes(fields: Sequence[Mapping[str, Any]], users: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.int64]:
    """The tensor `user_profile` for users whose profiles are given as values, `int64[B, P]`.

    Args:
        fields: the bundle's `profile_fields`: name, values, and for a number the edges of its bins.
        users: field name -> value, for each user. A field that is left out, None, or a category that no user of the
            data set has is unknown, code 0.

    Raises:
        RequestError: for a field that there is not, or a value of a number's field that is no number.
    """
    names = [str(field.get("name")) for field in fields]
    for user in users:
        if unknown := sorted(set(user) - set(names)):
            raise RequestError(
                f"the profile has a field {unknown[0]!r}; expected some of {', '.join(names) or 'none: there are none'}"
            )
    codes = [
        [_profile_code(field, user.get(name)) for name, field in zip(names, fields, strict=True)] for user in users
    ]
    return np.array(codes, np.int64).reshape(len(users), len(fields))


def _profile_code(field: Mapping[str, Any], value: Any) -> int:
    if value is None or value == "":
        return 0
    if "edges" not in field:
        whole = isinstance(value, float) and value.is_integer()
        text = str(int(value) if whole else value).strip()
        return field["values"].index(text) + 1 if text in field["values"] else 0
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise RequestError(f"the profile's {field.get('name')!r} is {value!r}; expected a number")
    return bisect.bisect_right(field["edges"], number) + 1 if field["values"] else 0
