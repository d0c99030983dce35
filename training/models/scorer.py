"""What every scorer can do: the score of a pair from a user's side and an item's side, each computed on its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

from torch import Tensor, nn

from ..config import ModelConfig

UserT = TypeVar("UserT", bound="tuple[Tensor | None, ...]")
ItemT = TypeVar("ItemT", bound="tuple[Tensor | None, ...]")
PartsT = TypeVar("PartsT", bound="tuple[Tensor | None, ...]")


class Scorer(nn.Module, Generic[UserT, ItemT]):
    """s_u(e_v), with e_v of every item computed apart, since the graph is built on it.

    Attributes:
        config: the network's shape.
    """

    config: ModelConfig

    @property
    @abstractmethod
    def item_count(self) -> int:
        """The number of items, N."""

    @property
    @abstractmethod
    def has_light(self) -> bool:
        """Whether there is a light score, an inner product that imitates the score."""

    @abstractmethod
    def item_vectors(self, items: Tensor) -> Tensor:
        """e_v: int[...] item indices -> float[..., d]."""

    @abstractmethod
    def user_context(self, behaviors: Tensor, profile_codes: Tensor) -> UserT:
        """The user's side of the score: int[B, L] item indices, -1 = padding, and int[B, P] profile codes.

        A model without a profile network ignores the codes.
        """

    @abstractmethod
    def item_features(self, vectors: Tensor, items: Tensor) -> ItemT:
        """The item's side of the score, from e_v, `float[..., d]`, and its index, `int[...]`."""

    @abstractmethod
    def score(self, user: UserT, item: ItemT) -> Tensor:
        """s_u(e_v) for every pair, float[B, C]; `item` is [B, C, ...], or [1, C, ...] if all users share candidates."""

    @abstractmethod
    def light_users(self, behaviors: Tensor, profile_codes: Tensor) -> Tensor:
        """The user's side of the light score: int[B, L], int[B, P] -> float[B, width]."""

    @abstractmethod
    def light_items(self, vectors: Tensor) -> Tensor:
        """The item's side of the light score, from e_v: `float[..., d]` -> `float[..., width]`."""

    def forward(self, behaviors: Tensor, profile_codes: Tensor, candidates: Tensor) -> Tensor:
        """Scores of candidates: int[B, L], int[B, P], int[B or 1, C] -> float[B, C]."""
        vectors = self.item_vectors(candidates)
        return self.score(self.user_context(behaviors, profile_codes), self.item_features(vectors, candidates))


AnyScorer = Scorer[Any, Any]


def map_parts(parts: PartsT, function: Callable[[Tensor], Tensor]) -> PartsT:
    """The same named tuple with the function of each tensor in its place."""
    mapped: PartsT = cast(Any, type(parts))(*[None if part is None else function(part) for part in parts])
    return mapped
