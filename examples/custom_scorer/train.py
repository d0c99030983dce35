"""A synthetic log and a short training loop for the modules of `model.py`; torch alone, nothing of this project."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from examples.custom_scorer.model import InterestEncoder, InterestScorer

TARGETS = 5
"""A user's last behaviours, which are to be predicted from those before."""
_TASTES = 4
_ITEMS_PER_GENRE = 50


@dataclass(frozen=True)
class SyntheticLog:
    """What users did.

    Attributes:
        behaviors: int64[U, T] item indices, oldest first.
        item_count: N.
    """

    behaviors: Tensor
    item_count: int


@dataclass(frozen=True)
class Trained:
    """The trained modules; they share `items`."""

    items: nn.Embedding
    encoder: InterestEncoder
    scorer: InterestScorer


def make_log(items: int, users: int, behaviors: int, generator: torch.Generator) -> SyntheticLog:
    """Users with four tastes each, one of them leading for a while, over genres whose items differ in popularity."""

    def uniform(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=generator)

    genres = max(1, items // _ITEMS_PER_GENRE)
    genre_of = torch.randperm(items, generator=generator) % genres  # every genre gets items
    shelf = [torch.nonzero(genre_of == genre).flatten() for genre in range(genres)]
    width = min(len(members) for members in shelf)
    shelves = torch.stack([members[:width] for members in shelf])  # [genres, width]
    popularity = 1.0 / torch.arange(1, width + 1)  # within a genre
    tastes = uniform(genres, users, _TASTES)
    everyone, leading, steps = torch.arange(users), uniform(_TASTES, users), []
    for _ in range(behaviors):
        leading = torch.where(torch.rand(users, generator=generator) < 0.2, uniform(_TASTES, users), leading)
        place = torch.multinomial(popularity, users, replacement=True, generator=generator)
        steps.append(shelves[tastes[everyone, leading], place])
    return SyntheticLog(torch.stack(steps, dim=1), items)


def histories(log: SyntheticLog, users: Tensor, ends: Tensor, length: int) -> Tensor:
    """The `length` behaviours of each user before position `ends`: int32[B, length], left-padded with -1."""
    places = ends.unsqueeze(1) - length + torch.arange(length)  # [B, length]
    rows = log.behaviors[users].gather(1, places.clamp(min=0))
    return rows.masked_fill(places < 0, -1).int()


def train(
    log: SyntheticLog,
    *,
    steps: int,
    sequence_length: int,
    generator: torch.Generator,
    dim: int = 24,
    interests: int = 4,
    batch: int = 128,
    negatives: int = 31,
    report: Callable[[int, float], None] = lambda step, loss: None,
) -> Trained:
    """Learns to tell the next item from random ones (softmax over one positive and uniform negatives).

    Args:
        log: all users; each one's last `TARGETS` behaviours are kept out.
        steps: training steps.
        sequence_length: how many behaviours the encoder reads.
        generator: makes runs repeatable.
        dim: width of the item embedding.
        interests: K.
        batch: examples a step.
        negatives: random items an example.
        report: called with step and loss now and then.
    """
    torch.manual_seed(generator.initial_seed())
    items = nn.Embedding(log.item_count, dim)
    nn.init.normal_(items.weight, std=0.3)
    encoder, scorer = InterestEncoder(items, interests), InterestScorer(items, interests)
    parameters = {*encoder.parameters(), *scorer.parameters()}
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    users, behaviors = log.behaviors.shape
    for step in range(1, steps + 1):
        chosen = torch.randint(users, (batch,), generator=generator)
        ends = torch.randint(1, behaviors - TARGETS, (batch,), generator=generator)
        positive = log.behaviors[chosen, ends].unsqueeze(1)
        others = torch.randint(log.item_count, (batch, negatives), generator=generator)
        state = encoder(histories(log, chosen, ends, sequence_length), torch.zeros(batch, 1, dtype=torch.int32))
        scores = scorer(state, torch.cat([positive, others], dim=1).int())  # [batch, 1 + negatives]
        loss = functional.cross_entropy(scores, torch.zeros(batch, dtype=torch.long))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps:
            report(step, loss.item())
    return Trained(items.requires_grad_(False), encoder.eval(), scorer.eval())
