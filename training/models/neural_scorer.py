"""The paper's scorer s_u(e_v) (section 3.1): user network, target attention, item network, score network.

What depends only on the user (`UserContext`) or only on the item (`ItemFeatures`) is computed separately, as in
serving. The function is the same as in the plain form, since

    W [user, attention, e_v] = W_u user + softmax(q k^T) (X W_a^T) + W_e e_v

where W is the score network's first layer and X the behaviour embeddings: the weighted sum commutes with W_a.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..config import LightConfig, ModelConfig
from .attribute_bag import AttributeBag
from .layers import ProfileTransformer, hidden_block, item_network, projection
from .light_head import LightHead
from .scorer import Scorer
from .unknown_ids import UnknownIds

MASKED = -1e9
"""Added to the attention logits of padding. Finite, so that an empty history gives zeros and not NaN."""


class UserContext(NamedTuple):
    """The user's side of the score network.

    Attributes:
        base: `float[B, H]`, the user's share of the first score layer, bias included; the user vector of `two_sided`.
        keys: `float[B, L, A]` attention keys; None without attention.
        values: `float[B, L, H]` behaviours through the first score layer, zero where padded; None without attention.
        mask: `float[B, L]`, 0 or `MASKED`; None without attention.
    """

    base: Tensor
    keys: Tensor | None = None
    values: Tensor | None = None
    mask: Tensor | None = None


class ItemFeatures(NamedTuple):
    """The item's side of the score network.

    Attributes:
        share: `float[..., H]`, the item's share of the first score layer; e_v itself for `two_sided`.
        query: `float[..., A]` attention query, already divided by sqrt(A); None without attention.
    """

    share: Tensor
    query: Tensor | None = None


class NeuralScorer(Scorer[UserContext, ItemFeatures]):
    """The three architectures of Table 3: `attention`, `no_attention`, `two_sided`.

    Args:
        config: widths and architecture.
        item_categories: `int64[N]`, category of each item.
        category_count: number of categories.
        profile_sizes: number of codes of each user profile field; only read if `config.profile` is set.
        attributes: what else describes the items, `embedding_dim` wide.
        light: the light head's shape; None or disabled: without one, as with `two_sided`.
        seen: `bool[N]`, the items that training sees; only read with id dropout.
    """

    item_categories: Tensor
    user_tower: nn.Sequential
    score_network: nn.Sequential

    def __init__(
        self,
        config: ModelConfig,
        item_categories: Tensor,
        category_count: int,
        profile_sizes: Sequence[int] = (),
        light: LightConfig | None = None,
        attributes: AttributeBag | None = None,
        seen: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        dim = config.embedding_dim
        self.item_embedding = nn.Embedding(item_categories.shape[0], dim)
        self.category_embedding = nn.Embedding(category_count, dim)
        for table in (self.item_embedding, self.category_embedding):
            nn.init.normal_(table.weight, std=0.05)
        self.register_buffer("item_categories", item_categories.long())
        self.attributes = attributes
        self.unknown_ids = None
        if config.id_dropout and seen is not None:
            self.unknown_ids = UnknownIds(seen, config.id_dropout, dim)
        self.embedded: nn.Embedding | None = None
        width = self.embedded_dim = (2 if attributes is None else 3) * dim
        self.item_network = item_network(width, config.item_layers)
        self.profile_transformer: ProfileTransformer | None = None
        user_dim = width
        if config.profile is not None and profile_sizes:
            profile = config.profile
            self.profile_transformer = ProfileTransformer(
                profile_sizes, profile.d_model, profile.heads, profile.feed_forward
            )
            user_dim += profile.d_model
        self.user_dim = user_dim
        self.light: LightHead | None = None
        if light is not None and light.enabled and config.architecture != "two_sided":
            with torch.random.fork_rng(devices=[]):  # the light head must not change the scorer's random weights
                self.light = LightHead(user_dim, config.vector_dim, light.width, light.hidden)
        if config.architecture == "two_sided":
            tower = config.vector_dim
            self.user_tower = nn.Sequential(hidden_block(user_dim, tower), nn.Linear(tower, tower))
            return
        # Behaviours enter twice, by the user network and by the attention (or, without it, by a second sum-pool).
        self.score_network = _score_network(user_dim + width + config.vector_dim, config.score_layers)
        if config.architecture == "attention":
            self.key_network = projection(width, config.key_hidden, config.attention_dim)
            self.query_network = projection(config.vector_dim, config.query_hidden, config.attention_dim)

    @property
    def item_count(self) -> int:
        """See `Scorer`."""
        return self.item_embedding.num_embeddings

    @property
    def has_light(self) -> bool:
        """See `Scorer`: the light head, if there is one."""
        return self.light is not None

    def item_vectors(self, items: Tensor) -> Tensor:
        """See `Scorer`."""
        return self.item_network(self.embed(items.long()))

    def user_context(self, behaviors: Tensor, profile_codes: Tensor) -> UserContext:
        """See `Scorer`."""
        known = behaviors >= 0
        embedded = self.embed(behaviors.clamp(min=0).long()) * known[..., None]  # [B, L, embedded_dim]
        pooled = embedded.sum(dim=1)
        user = self._user_network(pooled, profile_codes)
        if self.config.architecture == "two_sided":
            return UserContext(self.user_tower(user))
        user_weight, behavior_weight, _ = self.first_layer_weights()
        base = nn.functional.linear(user, user_weight, self._first_layer.bias)
        if self.config.architecture == "no_attention":
            return UserContext(base + nn.functional.linear(pooled, behavior_weight))
        mask = torch.where(known, 0.0, MASKED).to(embedded.dtype)
        return UserContext(base, self.key_network(embedded), nn.functional.linear(embedded, behavior_weight), mask)

    def light_users(self, behaviors: Tensor, profile_codes: Tensor) -> Tensor:
        """See `Scorer`: w_u of the light head. No gradient reaches the scorer's weights."""
        assert self.light is not None
        with torch.no_grad():
            known = behaviors >= 0
            embedded = self.embed(behaviors.clamp(min=0).long())  # [B, L, embedded_dim]
            user = self._user_network((embedded * known[..., None]).sum(dim=1), profile_codes)
            vectors = self.item_network(embedded)  # [B, L, vector_dim]
        return self.light.user_vectors(user, vectors, known)

    def light_items(self, vectors: Tensor) -> Tensor:
        """See `Scorer`: x_v of the light head."""
        assert self.light is not None
        return self.light.item_vectors(vectors)

    def item_features(self, vectors: Tensor, items: Tensor | None = None) -> ItemFeatures:
        """See `Scorer`: float[..., vector_dim] e_v -> float[..., H] and float[..., A]."""
        if self.config.architecture == "two_sided":
            return ItemFeatures(vectors)
        share = nn.functional.linear(vectors, self.first_layer_weights()[2])
        if self.config.architecture == "no_attention":
            return ItemFeatures(share)
        return ItemFeatures(share, self.query_network(vectors) / math.sqrt(self.config.attention_dim))

    def score(self, user: UserContext, item: ItemFeatures) -> Tensor:
        """See `Scorer`."""
        if self.config.architecture == "two_sided":
            return (item.share @ user.base[:, :, None]).squeeze(-1)
        hidden = item.share + user.base[:, None, :]  # [B, C, H]
        if user.keys is not None and user.values is not None and user.mask is not None and item.query is not None:
            logits = item.query @ user.keys.transpose(1, 2) + user.mask[:, None, :]  # [B, C, L]
            hidden = hidden + logits.softmax(dim=-1) @ user.values
        return self.score_network[1:](hidden).squeeze(-1)

    def _user_network(self, pooled: Tensor, profile_codes: Tensor) -> Tensor:
        if self.profile_transformer is None:
            return pooled
        return torch.cat([pooled, self.profile_transformer(profile_codes)], dim=-1)

    def embed(self, items: Tensor) -> Tensor:
        """Item, category and attributes side by side: int64[...] item indices -> float[..., embedded_dim]."""
        if self.embedded is not None:
            return self.embedded(items)
        categories = self.item_categories.index_select(0, items.flatten()).reshape(items.shape)
        own = self.item_embedding(items)
        if self.unknown_ids is not None:
            own = self.unknown_ids.replace(own, items)
        parts = [own, self.category_embedding(categories)]
        if self.attributes is not None:
            parts.append(self.attributes(items.flatten()).unflatten(0, items.shape))
        return torch.cat(parts, dim=-1)

    def described_vectors(self, codes: Tensor) -> Tensor:
        """See `Scorer`."""
        assert self.unknown_ids is not None
        first_category = 0 if self.attributes is None else self.attributes.embedding.num_embeddings
        is_category = codes >= first_category
        categories = self.category_embedding((codes - first_category).clamp(min=0)) * is_category[..., None]
        parts = [self.unknown_ids.vector.expand(codes.shape[0], -1), categories.sum(dim=1)]
        if self.attributes is not None:
            parts.append(self.attributes.pool(codes.masked_fill(is_category, -1)))
        return self.item_network(torch.cat(parts, dim=-1))

    def tabulate_attributes(self) -> None:
        """Keeps the embedding of every item in one table, for the export: pooled attributes make no ONNX graph."""
        if self.attributes is not None or self.unknown_ids is not None:
            self.embedded = nn.Embedding.from_pretrained(self.embed(torch.arange(self.item_count)))

    def first_layer_weights(self) -> tuple[Tensor, ...]:
        """Views of the score network's first layer, by input: user `[H, U]`, attended `[H, E]`, e_v `[H, d]`."""
        widths = [self.user_dim, self.embedded_dim, self.config.vector_dim]
        return self._first_layer.weight.split(widths, dim=1)

    @property
    def _first_layer(self) -> nn.Linear:
        layer = self.score_network[0]
        assert isinstance(layer, nn.Linear)
        return layer


def _score_network(width_in: int, widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in widths:
        layers += hidden_block(width_in, width)
        width_in = width
    return nn.Sequential(*layers, nn.Linear(width_in, 1))
