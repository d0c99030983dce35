"""A scorer that begins as an inner product and adds target attention without softmax. Not in the paper.

    s_u(v)  =  <[u, 1], e_v>  +  sum_h gate_h(u, v) log(1 + sum_b r_h(age of b) exp(<K_h k_b, Q_h q_v>))
                              +      gate_r(u, v) log(1 + sum_b r_r(age of b) [b is v])

    e_v = [q_v, popularity_v]      u = pooled + network(pooled)      pooled = sum_b r_0(age of b) k_b / sqrt(sum_b r_0)

over heads h and behaviours b. k_b and q_v are linear maps of one embedding: the item's id plus its attributes. The
first term is a two-sided model, cheap to train, and with `kernel.heads` 0 it is all there is. The heads tell whether
*some* behaviours are like the candidate, which no inner product with a pooled user can. They have no softmax: it would
divide away how many there are. The last term counts repeats, if the log has any.

Weights r_h are learned for each age (0 = the latest behaviour). K_h and Q_h start as identity and the gates of heads at
0: heads begin with the similarity that the two-sided form has learned, and change nothing until they have learned more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from .attribute_bag import AttributeBag
from .kernel_terms import Gates, by_age, forgetting
from .layers import ProfileTransformer
from .scorer import Scorer
from .unknown_ids import UnknownIds

MAX_SIMILARITY = 12.0
"""Similarities are cut here before the exponential: e^12 times a long history is far from overflow."""
_EMBEDDING_STD = 0.05
_REPEAT_WEIGHT = 4.0
"""An item of the history starts log(1 + e^4) above others, and grows by about 1 for each e-fold of its count: from 0 it
would take most of a training to learn that the first purchase tells more than all that follow."""


class KernelUser(NamedTuple):
    """The user's side; d the width of e_v, H heads, L behaviours of which the heads see the last A.

    Attributes:
        vector: `float[B, d - 1]`, u.
        keys: `float[B, H, A, d - 1]`, temperature included.
        weights: `float[B, H, A]`, r_h of each behaviour's age; 0 for padding.
        gates: `float[B, E]`, the user's part of the gates: H with the heads on, and one more with repeats.
        behaviors: `int[B, L]`, the item indices, -1 = padding; L is 0 without repeats.
        repeat_weights: `float[B, L]`, r_r of each behaviour's age; 0 for padding.
    """

    vector: Tensor
    keys: Tensor
    weights: Tensor
    gates: Tensor
    behaviors: Tensor
    repeat_weights: Tensor


class KernelItem(NamedTuple):
    """The item's side.

    Attributes:
        vector: `float[..., d]`, e_v.
        queries: `float[..., H, d - 1]`.
        gates: `float[..., E]`, the item's part of the gates.
        item: `int[...]`, the item index.
    """

    vector: Tensor
    queries: Tensor
    gates: Tensor
    item: Tensor


class RowsOfContexts(NamedTuple):
    """R rows of T behaviours; each row holds G contexts, which see the behaviours before their end.

    Attributes:
        behaviors: `int64[R, T]`, positions in the batch's list of distinct items; any for padding.
        candidates: `int64[R, T]`, the behaviour's place among the candidates; their number if it is none.
        ends: `int64[R, G]`, how many behaviours of the row are before each context's target; 0 for padding.
        profile_codes: `int[R, P]`.
    """

    behaviors: Tensor
    candidates: Tensor
    ends: Tensor
    profile_codes: Tensor


class KernelScorer(Scorer[KernelUser, KernelItem]):
    """See the module.

    Args:
        config: the architecture's shape, `config.kernel` included.
        item_counts: `int64[N]`, occurrences in the training log, where popularity begins.
        attributes: what describes the items; None: only their ids.
        profile_sizes: number of codes of each user profile field; only read if `config.profile` is set.
    """

    log_popularity: Tensor

    def __init__(
        self,
        config: ModelConfig,
        item_counts: Tensor,
        attributes: AttributeBag | None = None,
        profile_sizes: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.config, self.kernel = config, config.kernel
        width, heads = config.vector_dim - 1, self.kernel.heads
        attended = min(self.kernel.attended, config.sequence_length)
        self.item_embedding = nn.Embedding(len(item_counts), width)
        nn.init.normal_(self.item_embedding.weight, std=_EMBEDDING_STD)
        with torch.no_grad():
            self.item_embedding.weight[item_counts == 0] = 0  # an item never seen is what its attributes say
        self.attributes = attributes
        self.register_buffer("log_popularity", (item_counts.clamp(min=0.5) / item_counts.sum()).log())
        self.popularity = nn.Parameter(torch.ones(()))
        self.item_bias = nn.Embedding(len(item_counts), 1, _weight=torch.zeros(len(item_counts), 1))
        self.unknown_ids: UnknownIds | None = None
        if config.id_dropout:
            self.unknown_ids = UnknownIds(item_counts > 0, config.id_dropout, width)
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.key, self.query = _identity(width), _identity(width)
        self.recency = nn.Parameter(forgetting(config.sequence_length))
        self.head_recency = nn.Parameter(forgetting(attended).repeat(heads, 1))
        self.repeat_recency = nn.Parameter(torch.full((config.sequence_length * self.kernel.repeats,), _REPEAT_WEIGHT))
        self.user_network = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), _zeros(2 * width, width))
        self.profile_network: nn.Sequential | None = None
        if config.profile is not None and profile_sizes:
            profile = config.profile
            transformer = ProfileTransformer(profile_sizes, profile.d_model, profile.heads, profile.feed_forward)
            self.profile_network = nn.Sequential(transformer, _zeros(profile.d_model, width))
        self.dropout = nn.Dropout(self.kernel.dropout)
        self.heads_on = heads > 0
        self.head_keys, self.head_queries = (nn.Parameter(torch.eye(width).repeat(heads, 1, 1)) for _ in range(2))
        self.temperatures = nn.Parameter(torch.linspace(0.5, 1.5, heads) if heads > 1 else torch.ones(heads))
        self.head_gates = Gates(heads, width, len(item_counts), 0.0)
        self.repeat_gates = Gates(int(self.kernel.repeats), width, len(item_counts), 1.0)
        # What is empty trains nothing, and DistributedDataParallel would wait for its gradient.
        for parameter in self.parameters():
            parameter.requires_grad_(parameter.numel() > 0)

    @property
    def item_count(self) -> int:
        """See `Scorer`."""
        return self.item_embedding.num_embeddings

    @property
    def has_light(self) -> bool:
        """See `Scorer`: the light score is the inner product that the score begins with."""
        return self.heads_on or self.kernel.repeats

    def use_heads(self, on: bool) -> None:
        """Whether the heads take part in the score, and train; always off without heads."""
        self.heads_on = on and self.kernel.heads > 0
        for parameter in self.head_parameters():
            parameter.requires_grad_(self.heads_on)

    def head_parameters(self) -> list[nn.Parameter]:
        """What only the heads use."""
        own = [self.head_keys, self.head_queries, self.temperatures, self.head_recency]
        return [*own, *self.head_gates.parameters()]

    @torch.no_grad()
    def keep_scores(self, log_popularity: Tensor, rows: Tensor) -> None:
        """Makes up for another popularity and number of items than weights were trained with.

        Args:
            log_popularity: `float[n]`, of the n items then.
            rows: `int64[N]`, which of them each item was; -1 for new ones, which keep their popularity.
        """
        known = rows >= 0
        shift = log_popularity[rows[known]] - self.log_popularity[known]
        self.item_bias.weight[known] += self.popularity * shift[:, None]
        for gates in (self.head_gates, self.repeat_gates):
            gates.keep_scores(len(log_popularity))

    def _gates(self) -> list[Gates]:
        """Of the terms that take part in the score, heads first."""
        return [self.head_gates, self.repeat_gates] if self.heads_on else [self.repeat_gates]

    def embed(self, items: Tensor) -> Tensor:
        """Id and attributes: int64[M] item indices -> float[M, d - 1]."""
        embedded = self.item_embedding(items)
        if self.unknown_ids is not None:
            embedded = self.unknown_ids.replace(embedded, items)
        return embedded if self.attributes is None else embedded + self.attributes(items)

    def to_vectors(self, embedded: Tensor, items: Tensor) -> Tensor:
        """e_v of embedded items: float[M, d - 1], int64[M] -> float[M, d]."""
        popularity = self.popularity * self.log_popularity[items, None] + self.item_bias(items)
        if self.unknown_ids is not None:  # a step takes an item's id and leaves its popularity
            popularity = torch.where(self.unknown_ids.unseen[items, None], self._average_popularity, popularity)
        return self._vectors(embedded, popularity)

    def _vectors(self, embedded: Tensor, popularity: Tensor) -> Tensor:
        return torch.cat([self.log_scale.exp() * self.query(embedded), popularity], dim=-1)

    def described_vectors(self, codes: Tensor) -> Tensor:
        """See `Scorer`."""
        assert self.unknown_ids is not None
        assert self.attributes is not None
        embedded = self.unknown_ids.vector + self.attributes.pool(codes)
        return self._vectors(embedded, self._average_popularity.expand(codes.shape[0], 1))

    @property
    def _average_popularity(self) -> Tensor:
        return -math.log(self.item_count) * self.popularity

    def item_vectors(self, items: Tensor) -> Tensor:
        """See `Scorer`."""
        flat = items.flatten().long()
        return self.to_vectors(self.embed(flat), flat).unflatten(0, items.shape)

    def behavior_vectors(self, items: Tensor) -> Tensor:
        """k_b: int64[M] item indices -> float[M, d - 1]."""
        return self.key(self.embed(items))

    def user_context(self, behaviors: Tensor, profile_codes: Tensor) -> KernelUser:
        """See `Scorer`."""
        vectors = self.behavior_vectors(behaviors.clamp(min=0).flatten().long()).unflatten(0, behaviors.shape)
        return self.context_of(vectors, behaviors, profile_codes)

    def context_of(self, vectors: Tensor, behaviors: Tensor, profile_codes: Tensor) -> KernelUser:
        """The user's side from k_b of the behaviours, float[B, L, d - 1], int[B, L], int[B, P]."""
        known = behaviors >= 0
        attended = self.head_recency.shape[1]
        vector = self.user_vector((self.recency.flip(0).exp() * known)[:, None], vectors, profile_codes).squeeze(1)
        keys = torch.einsum("bld,hde,h->bhle", vectors[:, -attended:], self.head_keys, self.temperatures)
        weights = self.head_recency.flip(1).exp() * known[:, None, -attended:]
        repeats = len(self.repeat_recency)
        repeat_weights = self.repeat_recency.flip(0).exp() * known[:, :repeats]
        gates = torch.cat([each.of_user(vector) for each in self._gates()], dim=-1)
        return KernelUser(vector, keys, weights, gates, behaviors[:, :repeats], repeat_weights)

    def user_vector(self, weights: Tensor, vectors: Tensor, profile_codes: Tensor) -> Tensor:
        """The u of G contexts of each row: float[B, G, T], float[B, T, d - 1], int[B, P] -> float[B, G, d - 1]."""
        pooled = weights @ vectors / (weights.sum(dim=-1, keepdim=True) + 1e-6).sqrt()  # finite without behaviours
        if self.profile_network is not None:
            pooled = pooled + self.profile_network(profile_codes)[:, None]
        return pooled + self.user_network(pooled)

    def item_features(self, vectors: Tensor, items: Tensor) -> KernelItem:
        """See `Scorer`."""
        directions = vectors[..., :-1]
        queries = torch.einsum("...d,hde->...he", directions, self.head_queries)
        return KernelItem(vectors, queries, torch.cat([each.of_item(vectors) for each in self._gates()], dim=-1), items)

    def score(self, user: KernelUser, item: KernelItem) -> Tensor:
        """See `Scorer`."""
        inner = (item.vector[..., :-1] @ user.vector[:, :, None]).squeeze(-1) + item.vector[..., -1]
        found = []  # [B, H, C] and [B, 1, C]
        if self.heads_on:
            similarities = item.queries.transpose(1, 2) @ user.keys.transpose(2, 3)  # [B, H, C, A]
            found.append((similarities.clamp(max=MAX_SIMILARITY).exp() @ user.weights[..., None]).squeeze(-1))
        if self.kernel.repeats:
            found.append(_in_history(user, item.item)[:, None])
        if not found:
            return inner
        evidence = torch.cat(found, dim=1).log1p().transpose(1, 2)  # [B, C, E]
        gates = user.gates[:, None] + item.gates
        return inner + (evidence * gates).sum(dim=-1)

    def score_rows(self, rows: RowsOfContexts, embedded: Tensor, vectors: Tensor) -> Tensor:
        """Scores of shared candidates for contexts of the same behaviours, as in training: float[R, G, C].

        One product of all behaviours with all candidates serves every context of a row.

        Args:
            rows: R rows with T behaviours and G contexts.
            embedded: `float[R, T, d - 1]`, the embedded behaviours.
            vectors: `float[C, d]`, e_v of the candidates.
        """
        keys = self.key(embedded)
        # Each behaviour's age as each context sees it; negative for what comes after it: [R, G, T].
        ages = rows.ends[..., None] - 1 - torch.arange(keys.shape[1], device=keys.device)
        users = self.user_vector(by_age(self.recency, ages), keys, rows.profile_codes)  # [R, G, d - 1]
        directions = vectors[:, :-1]
        scores = users @ directions.T + vectors[:, -1]
        of_users = torch.cat([each.of_user(users) for each in self._gates()], dim=-1)  # [R, G, E]
        of_items = torch.cat([each.of_item(vectors) for each in self._gates()], dim=-1)  # [C, E]

        def gated(found: Tensor, term: int) -> Tensor:
            return (of_users[..., term, None] + of_items[:, term]) * found.log1p()

        for head in range(self.kernel.heads if self.heads_on else 0):
            queries = directions @ (self.head_queries[head] * self.temperatures[head])
            similar = (keys @ self.head_keys[head] @ queries.T).clamp(max=MAX_SIMILARITY).exp()  # [R, T, C]
            scores = scores + gated(by_age(self.head_recency[head], ages) @ similar, head)
        if self.kernel.repeats:
            weights = by_age(self.repeat_recency, ages)
            places = rows.candidates[:, None].expand_as(weights)
            found = weights.new_zeros(*users.shape[:2], len(vectors) + 1).scatter_add(2, places, weights)
            scores = scores + gated(found[..., :-1], -1)
        return scores

    def light_users(self, behaviors: Tensor, profile_codes: Tensor) -> Tensor:
        """See `Scorer`."""
        return self.light_of(self.user_context(behaviors, profile_codes))

    def light_of(self, user: KernelUser) -> Tensor:
        """[u, 1]: float[B, d]."""
        return torch.cat([user.vector, torch.ones_like(user.vector[:, :1])], dim=1)

    def light_items(self, vectors: Tensor) -> Tensor:
        """See `Scorer`: e_v itself."""
        return vectors


def _in_history(user: KernelUser, items: Tensor) -> Tensor:
    """The sum of r_r over the behaviours that are each item: int[B or 1, C] -> float[B, C]."""
    if len(items) > 1:
        same = (items[..., None] == user.behaviors[:, None]).to(user.repeat_weights.dtype)  # [B, C, L]
        return (same @ user.repeat_weights[..., None]).squeeze(-1)
    # All users share the items, often the whole corpus: a look-up of each behaviour instead of C L comparisons.
    distinct, places = items[0].unique(return_inverse=True)
    behaviors = user.behaviors.to(distinct.dtype).contiguous()
    nearest = torch.searchsorted(distinct, behaviors).clamp(max=len(distinct) - 1)
    weights = user.repeat_weights * (distinct[nearest] == behaviors)
    return weights.new_zeros(len(weights), len(distinct)).scatter_add(1, nearest, weights)[:, places]


def _identity(width: int) -> nn.Linear:
    linear = nn.Linear(width, width)
    nn.init.eye_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def _zeros(width_in: int, width_out: int) -> nn.Linear:
    linear = nn.Linear(width_in, width_out)
    nn.init.zeros_(linear.weight)
    return linear
