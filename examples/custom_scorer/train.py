"""A synthetic log and a short training loop for the modules beside it; imports torch, nothing of this project."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from examples.custom_scorer.model import InterestEncoder, InterestScorer
from examples.custom_scorer.sasrec import InnerProductScorer, SasrecEncoder

TARGETS = 5
"""A user's last behaviours: the ground truth, to be predicted from the earlier ones."""
_TASTES = 4
_ITEMS_PER_GENRE = 50
INTERESTS = 4
ENCODERS = ("interests", "sasrec")


@dataclass(frozen=True)
class SyntheticLog:
    """`behaviors` of all users, int64[U, T] item indices, oldest first, among `item_count` items."""

    behaviors: Tensor
    item_count: int


@dataclass(frozen=True)
class Trained:
    """The trained modules; they share `items`."""

    items: nn.Embedding
    encoder: nn.Module
    scorer: nn.Module


def make_modules(encoder: str, items: nn.Embedding, sequence_length: int) -> tuple[nn.Module, nn.Module]:
    """The user encoder named in `ENCODERS` and the scorer that reads its states, untrained."""
    if encoder == "sasrec":
        return SasrecEncoder(items, sequence_length), InnerProductScorer(items)
    return InterestEncoder(items, INTERESTS), InterestScorer(items, INTERESTS)


def make_log(items: int, users: int, behaviors: int, generator: torch.Generator) -> SyntheticLog:
    """Each user likes four genres and keeps to one of them for a while; the items of a genre differ in popularity."""

    def uniform(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=generator)

    genres = max(1, items // _ITEMS_PER_GENRE)
    genre_of = torch.randperm(items, generator=generator) % genres  # no genre is empty
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
    encoder: str = "interests",
    steps: int,
    sequence_length: int,
    generator: torch.Generator,
    dim: int = 24,
    batch: int = 128,
    negatives: int = 31,
    report: Callable[[int, float], None] = lambda step, loss: None,
) -> Trained:
    """Learns to tell the next item from random ones (softmax over one positive and uniform negatives).

    Args:
        log: all users; the last `TARGETS` behaviours of each are left out.
        encoder: a name of `ENCODERS`.
        steps: training steps.
        sequence_length: how many behaviours the encoder reads.
        generator: source of all random numbers, so that a run can be repeated.
        dim: width of the item embedding.
        batch: examples per step.
        negatives: random items per example.
        report: called with step and loss every 50 steps.
    """
    torch.manual_seed(generator.initial_seed())
    items = nn.Embedding(log.item_count, dim)
    nn.init.normal_(items.weight, std=0.3)
    user_encoder, scorer = make_modules(encoder, items, sequence_length)
    parameters = {*user_encoder.parameters(), *scorer.parameters()}
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    users, behaviors = log.behaviors.shape
    for step in range(1, steps + 1):
        chosen = torch.randint(users, (batch,), generator=generator)
        ends = torch.randint(behaviors - TARGETS, (batch,), generator=generator)  # 0: a user without history
        positive = log.behaviors[chosen, ends].unsqueeze(1)
        others = torch.randint(log.item_count, (batch, negatives), generator=generator)
        state = user_encoder(histories(log, chosen, ends, sequence_length), torch.zeros(batch, 1, dtype=torch.int32))
        scores = scorer(state, torch.cat([positive, others], dim=1).int())  # [batch, 1 + negatives]
        loss = functional.cross_entropy(scores, torch.zeros(batch, dtype=torch.long))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps:
            report(step, loss.item())
    return Trained(items.requires_grad_(False), user_encoder.eval(), scorer.eval())
