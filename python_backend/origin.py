"""The tensor `origin`: what feature_transform tells beam_retrieval of a request beside its features.

One tensor carries it all. Each tensor costs a request time; and Triton puts only requests with the same inputs into a
batch, so a tensor that some requests lack would divide the batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nann.errors import RequestError, ServerError
from nann.kernels import Int64Array
from nann.signature import ORIGIN

_HEAD = 3
_UNREAD = 2
_NO_ALLOW_LIST = -1


@dataclass(frozen=True, eq=False)
class Origin:
    """A request for B users.

    Attributes:
        arrived_ns: when it reached feature_transform, on the monotonic clock.
        key: its `request_key`.
        excluded: `int64[B, X]` items that the users may not get, as `FeatureTransform.item_codes` gives them.
        allowed: `int64[B, A]`, the only items that the users may get; None: all.
        unread: `bool[B]`, whose stored history could not be read; None: nobody's.
    """

    arrived_ns: int
    key: int
    excluded: Int64Array | None = None
    allowed: Int64Array | None = None
    unread: npt.NDArray[np.bool_] | None = None

    def pack(self, users: int) -> npt.NDArray[np.int64]:
        """The tensor for B users, `int64[B, any]`: arrival, key, `unread`; with lists also A, A allowed and X excluded.

        Without an allow list A is -1.
        """
        heads = np.tile(np.array([self.arrived_ns, self.key, 0]), (users, 1))
        if self.unread is not None:
            heads[:, _UNREAD] = self.unread
        if self.excluded is None and self.allowed is None:
            return heads
        none = np.zeros((users, 0), np.int64)
        allowed, excluded = (none if items is None else items for items in (self.allowed, self.excluded))
        length = _NO_ALLOW_LIST if self.allowed is None else allowed.shape[1]
        return np.concatenate([heads, np.full((users, 1), length), allowed, excluded], axis=1)

    @classmethod
    def unpack(cls, tensor: npt.NDArray[np.int64], users: int, item_count: int, key: int) -> Origin:
        """Reads `pack`'s tensor for a request with this `request_key`; it may come from another model's mistake.

        Raises:
            RequestError: if it is no such tensor for so many users and a corpus of `item_count` items.
            ServerError: if the features were made for another request.
        """
        if tensor.ndim != 2 or len(tensor) != users or tensor.shape[1] < _HEAD:
            raise RequestError(f"{ORIGIN.name} has shape {list(tensor.shape)}; expected [{users}, {_HEAD} or more]")
        if (tensor[:, 1] != key).any():
            raise ServerError(
                f"the features are those of another request (request_key {tensor[0, 1]}, expected {key}); "
                "nothing was searched: send the request again"
            )
        arrived_ns = int(tensor[:, 0].min())
        unread = tensor[:, _UNREAD] != 0 if tensor[:, _UNREAD].any() else None
        if tensor.shape[1] == _HEAD:
            return cls(arrived_ns, key, unread=unread)
        length, items = int(tensor[0, _HEAD]), tensor[:, _HEAD + 1 :]
        if not _NO_ALLOW_LIST <= length <= items.shape[1]:
            raise RequestError(f"{ORIGIN.name} has {items.shape[1]} items of which {length} are allowed")
        if items.size and items.max() >= item_count:
            raise RequestError(
                f"{ORIGIN.name} holds an item index {items.max()}; expected at most {item_count - 1}: is "
                "feature_transform from the same bundle?"
            )
        allowed, excluded = np.split(items, [max(length, 0)], axis=1)
        return cls(arrived_ns, key, excluded, None if length == _NO_ALLOW_LIST else allowed, unread)
