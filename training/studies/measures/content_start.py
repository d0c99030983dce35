"""Begins a training with items that look like what they are, as after a pretraining on pictures or texts.

In a short run most of a million ids would keep their random vectors. Here an item's embedding begins as a smooth
function of its traits, and a category's as the mean of its items. All of it trains on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ...checkpoint import Checkpoint, build_model
from ...config import TrainingConfig
from ...data.prepared import PreparedData
from ...data.synthetic import SyntheticSpec, catalogue_of
from ...data.synthetic_catalogue import FloatArray, GridCatalogue
from ...models.start import EMBEDDING_STD
from ...vocabulary import Vocabulary
from ...warm_start import WarmStart

_ITEM_LENGTH, _CATEGORY_LENGTH = 3.5, 18.0
"""So many cells apart embeddings still are similar."""
_OWN = 0.1
"""Standard deviation of what an item's embedding has of its own, relative to that of its traits."""


def content_start(spec: SyntheticSpec, data: PreparedData, config: TrainingConfig) -> WarmStart:
    """The weights that a training on a grid's log begins with."""
    catalogue = catalogue_of(spec)
    assert isinstance(catalogue, GridCatalogue)
    traits = catalogue.traits_of(data.item_ids)
    torch.manual_seed(config.seed)
    weights = build_model(config, data).state_dict()
    own = weights["item_embedding.weight"][:, 1:]  # the first column is the popularity
    of_traits = _smooth(traits, own.shape[1], _ITEM_LENGTH)
    of_traits += _OWN * np.random.default_rng(config.seed).normal(size=of_traits.shape)
    own.copy_(torch.from_numpy(EMBEDDING_STD * of_traits))
    categories = weights["category_embedding.weight"]
    of_items = _smooth(traits, categories.shape[1], _CATEGORY_LENGTH)
    sums = np.stack([np.bincount(data.item_categories, column, len(categories)) for column in of_items.T], axis=1)
    means = sums / np.bincount(data.item_categories, minlength=len(categories))[:, None].clip(1)
    categories.copy_(torch.from_numpy(EMBEDDING_STD * means / means.std()))
    checkpoint = Checkpoint(config, 0, weights, {}, None, data.identity, Vocabulary.of(data))
    return WarmStart(Path("content"), checkpoint, {}, {})


def _smooth(traits: FloatArray, width: int, length: float) -> FloatArray:
    """Random Fourier features: inner products are Gaussian in the distance. `float64[N, width]`, of variance 1."""
    rng = np.random.default_rng(width)
    turns, phases = rng.normal(size=(traits.shape[1], width)) / length, rng.uniform(0, 2 * np.pi, width)
    features: FloatArray = np.sqrt(2) * np.cos(traits @ turns + phases)
    return features
