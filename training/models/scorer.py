"""What every scorer can do: the score of a pair from a user's side and an item's side, each computed on its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

from torch import Tensor, nn

from ..config import ModelConfig
from .unknown_ids import UnknownIds

UserT = TypeVar("UserT", bound="tuple[Tensor | None, ...]")
ItemT = TypeVar("ItemT", bound="tuple[Tensor | None, ...]")
PartsT = TypeVar("PartsT", bound="tuple[Tensor | None, ...]")


class Scorer(nn.Module, Generic[UserT, ItemT]):
    """s_u(e_v), with e_v of every item computed apart, since the graph is built on it.

    Attributes:
        config: the network's shape.
        unknown_ids: the items that are known by their category and attributes alone; None without id dropout.
    """

    config: ModelConfig
    unknown_ids: UnknownIds | None

    @property
    @abstractmethod
    def item_count(self) -> int:
        """The number of items, N."""

    def begin_step(self) -> None:
        """Draws what a training step leaves out; the objectives call it."""
        if self.unknown_ids is not None:
            self.unknown_ids.draw()

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
    def described_vectors(self, codes: Tensor) -> Tensor:
        """e_v of items known by their codes alone (`CodedItems`): int[M, W], -1 = padding -> float[M, d].

        Only for a model with id dropout.
        """

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
