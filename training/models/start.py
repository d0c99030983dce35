"""Initial weights that already know each item's popularity, and that an item is similar to itself.

The network is the paper's, only the initialisation is ours. From random weights a short run on a small log learns
little but popularity. It rarely learns that a candidate from the history is likely: the attention must find out that
its query and key describe the same item, and the score network that it should compare the attended behaviour with the
candidate. Here both start that way.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .neural_scorer import NeuralScorer

EMBEDDING_STD = 0.3
"""Large enough for the attention to distinguish items by random embeddings."""
_SHARPNESS = 3.0
"""Scales queries and keys: the attention prefers behaviours like the candidate, and is far from saturated."""
_COMPARISON = 0.3
"""Scale of the comparison and of the random weights in the score network's first layer."""
_ITEM_WIDTH = 0.4
"""Standard deviation of an item's own columns of e_v, relative to its category's."""
_SAME_ITEM_ATTENTION, _SAME_ITEM_COMPARISON = 2.0, 4.0
"""Weights of an item's own columns relative to its category's: the same item matters more than the same category. With
equal weights, a short training left most items of a user's history out of the user's top 200."""
_NOISE = 0.02


@torch.no_grad()
def start_from_similarity(model: NeuralScorer, item_counts: Tensor) -> None:
    """Sets a new model's weights; `item_counts`, `int64[N]`, are each item's occurrences in the training log."""
    for table in (model.item_embedding, model.category_embedding):
        nn.init.normal_(table.weight, std=EMBEDDING_STD)
    # With the logQ correction a score must become log p(v | u), which is mostly the item's popularity: the first column
    # of the embedding holds it.
    log_count = item_counts.float().clamp(min=0.5).log()  # an item never seen counts as half
    standardised = (log_count - log_count.mean()) / log_count.std().clamp(min=1e-6)
    model.item_embedding.weight[:, 0] = EMBEDDING_STD * standardised
    for linear in _linears(model.item_network):
        _near_identity(linear)
    _let_categories_cluster(model)
    if model.config.architecture == "two_sided":
        for linear in _linears(model.user_tower):
            _near_identity(linear)
    if model.config.architecture == "attention":
        _align_attention(model)
        _compare_attended_with_candidate(model)


def _let_categories_cluster(model: NeuralScorer) -> None:
    """Random item embeddings enter e_v weakly, category and popularity fully.

    Otherwise batch norm gives all columns the same spread: e_v has no clusters, and its graph is hard to search.
    """
    norms = [module for module in model.item_network.modules() if isinstance(module, nn.BatchNorm1d)]
    if norms:
        norms[-1].weight[_own_columns(model)] = _ITEM_WIDTH


def _align_attention(model: NeuralScorer) -> None:
    """Makes query and key network one function, so that a candidate attends to similar behaviours."""
    query, key = _linears(model.query_network), _linears(model.key_network)
    own = _own_columns(model)
    query[0].weight[:, own] *= _SAME_ITEM_ATTENTION
    # Batch norm gives e_v a standard deviation of about 1; behaviours have that of the embeddings.
    for of_query, of_key, scale in zip(query, key, (1 / EMBEDDING_STD, 1.0), strict=True):
        if of_query.weight.shape == of_key.weight.shape:
            of_key.weight.copy_(of_query.weight * scale)
            of_key.bias.copy_(of_query.bias)
    query[0].weight[:, own] /= _ITEM_WIDTH
    for linear in (query[-1], key[-1]):
        linear.weight.mul_(_SHARPNESS)


def _compare_attended_with_candidate(model: NeuralScorer) -> None:
    """Makes hidden units of the score network differences, of both signs, of attended behaviour and candidate."""
    _, attended, candidate = model.first_layer_weights()
    difference = _plus_minus_identity(len(attended), min(attended.shape[1], candidate.shape[1]))
    for weights, sign in ((attended, 1 / EMBEDDING_STD), (candidate, -1.0)):
        weights.mul_(_COMPARISON)
        weights[:, : difference.shape[1]] += _COMPARISON * sign * difference
        weights[:, _own_columns(model)] *= _SAME_ITEM_COMPARISON
    candidate[:, _own_columns(model)] /= _ITEM_WIDTH


def _own_columns(model: NeuralScorer) -> slice:
    """Columns of e_v, and of an embedded behaviour, that start as the item's own: neither popularity nor category."""
    return slice(1, model.config.embedding_dim)


def _plus_minus_identity(rows: int, columns: int) -> Tensor:
    """[I; -I; 0], cut to the shape: float[rows, columns]."""
    identity = torch.eye(columns)
    return torch.cat([identity, -identity, torch.zeros(max(0, rows - 2 * columns), columns)])[:rows]


def _near_identity(linear: nn.Linear) -> None:
    nn.init.eye_(linear.weight)
    linear.weight.add_(_NOISE * torch.randn_like(linear.weight))


def _linears(network: nn.Module) -> list[nn.Linear]:
    return [module for module in network.modules() if isinstance(module, nn.Linear)]
