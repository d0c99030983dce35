"""Training that begins with the weights of a model of the same data set when it was smaller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nann.errors import ConfigError, DataError
from nann.item_ids import NUMBERS, kind_of

from .checkpoint import Checkpoint
from .config import TrainingConfig
from .data.prepared import PreparedData
from .models.kernel_scorer import KernelScorer
from .models.scorer import AnyScorer
from .vocabulary import Rows, Vocabulary

FREE_SETTINGS = frozenset({"model.start", "model.kernel.dropout"})
"""Settings of the model that no trained weight depends on."""
_OF_DATA = frozenset({"log_popularity", "item_categories", "attributes.indptr", "attributes.codes"})
"""Parts of a model's state that are the data set's."""
_LEAST_CATEGORIES = 0.5
"""A data set with fewer of the checkpoint's categories is another one: numbers as item ids are easily the same."""


@dataclass(frozen=True)
class WarmStart:
    """A checkpoint to begin with, and which of its rows a model of the data set takes over.

    Attributes:
        path: the checkpoint's file.
        checkpoint: what it holds.
        rows: by the name of a table in the model's state, where each row is in the checkpoint's.
        known: how many `items`, `categories`, `attribute values` and `profile values` are known, and of how many;
            only what the model has.
    """

    path: Path
    checkpoint: Checkpoint
    rows: Mapping[str, Rows]
    known: Mapping[str, tuple[int, int]]

    @classmethod
    def of(cls, path: Path, checkpoint: Checkpoint, data: PreparedData, config: TrainingConfig) -> WarmStart:
        """Compares the checkpoint with a data set and a configuration.

        Raises:
            ConfigError: naming each setting of the network that differs; if a checkpoint of an older release has no
                item ids.
            DataError: if the checkpoint is of another data set: it has items, or most of its categories, that this one
                lacks.
        """
        _check_network(path, checkpoint.config, config)
        before, now = checkpoint.vocabulary, Vocabulary.of(data)
        if before is None:
            raise ConfigError(
                f"{path} is of an older release and has no item ids; expected one of this release: train without --from"
            )
        _check_ancestor(path, before, now)
        items, categories = now.item_rows(before), now.category_rows(before)
        attributes, profiles = now.attribute_rows(before), now.profile_rows(before)
        codes = attributes
        if config.model.architecture == "kernel" and len(now.categories) > 1:
            old_codes = len(checkpoint.model.get("attributes.embedding.weight", ())) - len(before.categories)
            inside = (categories >= 0) & (len(before.categories) > 1)
            codes = np.append(attributes, np.where(inside, categories + old_codes, -1))
        rows = {
            "item_embedding.weight": items,
            "item_bias.weight": items,
            "category_embedding.weight": categories,
            "attributes.embedding.weight": codes,
            "profile_network.0.embedding.weight": profiles,
            "profile_transformer.embedding.weight": profiles,
        }
        parts = {"items": items, "categories": categories if len(now.categories) > 1 else None}
        parts |= {"attribute values": attributes, "profile values": profiles if config.model.profile else None}
        known = {what: (int((part >= 0).sum()), len(part)) for what, part in parts.items() if part is not None}
        return cls(path, checkpoint, rows, {what: counts for what, counts in known.items() if counts[1]})

    @property
    def summary(self) -> str:
        """One line for people."""
        each = ", ".join(f"{known:,} of {count:,} {what}" for what, (known, count) in self.known.items())
        return f"{self.path}, step {self.checkpoint.step:,}, knows {each}; the others start anew"

    @torch.no_grad()
    def apply(self, model: AnyScorer) -> None:
        """Gives a new model of the data set the checkpoint's weights: what it scored, it scores as before.

        Raises:
            DataError: if one of the two has attributes, categories or profile fields, and the other none.
        """
        weights, state = self.checkpoint.model, model.state_dict()
        if different := sorted(weights.keys() ^ state.keys()):
            owner, other = ("checkpoint", "data set") if different[0] in weights else ("data set", "checkpoint")
            kind = "user profile fields" if different[0].startswith("profile") else "item attributes or categories"
            raise DataError(
                f"the {owner} has {kind} and the {other} has none ({self.path}, weight {different[0]}); train without "
                "--from"
            )
        for name, values in state.items():
            if name in self.rows:
                rows = torch.from_numpy(self.rows[name])
                values[rows >= 0] = weights[name][rows[rows >= 0]]
            elif name not in _OF_DATA:
                values.copy_(weights[name])
        if isinstance(model, KernelScorer):
            model.keep_scores(weights["log_popularity"], torch.from_numpy(self.rows["item_bias.weight"]))


def _check_network(path: Path, before: TrainingConfig, config: TrainingConfig) -> None:
    sections = ("model.",) if config.model.architecture == "kernel" else ("model.", "light.")
    differences = before.differences(config).items()
    each = [
        f"{key} was {old!r} and is {new!r}"
        for key, (old, new) in differences
        if key.startswith(sections)
        and key not in FREE_SETTINGS
        and not (key == "model.id_dropout" and old and new)  # without it there is no weight of an unknown id
    ]
    if each:
        raise ConfigError(
            f"{path} has another network: {'; '.join(each)}; leave out --config to take that of the checkpoint, or "
            "train without --from"
        )


def _check_ancestor(path: Path, before: Vocabulary, now: Vocabulary) -> None:
    kinds = kind_of(before.item_ids), kind_of(now.item_ids)
    advice = "expected the data set that it was trained on, with what was appended since; train without --from"
    if kinds[0] is not kinds[1]:
        raise DataError(f"the item ids of {path} are {kinds[0].words}, the data set's {kinds[1].words}; {advice}")
    missing = before.item_ids[before.item_rows(now) < 0]
    if len(missing):
        example = kinds[0].plain(missing[:1])[0]
        example = example if kinds[0] is NUMBERS else repr(example)
        raise DataError(
            f"{path} is of another data set: {len(missing):,} of its {len(before.item_ids):,} items are not in this "
            f"one, such as {example}; {advice}"
        )
    known = int((before.category_rows(now) >= 0).sum())
    if known < _LEAST_CATEGORIES * len(before.categories):
        raise DataError(
            f"{path} is of another data set: {len(before.categories) - known:,} of its {len(before.categories):,} "
            f"categories are not in this one; {advice}"
        )
