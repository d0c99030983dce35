"""Checkpoints: weights, optimizer, step and configuration, loaded without unpickling anything but tensors."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nann.durable_files import new_file
from nann.errors import ConfigError, DataError

from .config import TrainingConfig
from .data.prepared import PreparedData
from .models.attribute_bag import AttributeBag
from .models.kernel_scorer import KernelScorer
from .models.neural_scorer import NeuralScorer
from .models.scorer import AnyScorer
from .models.start import start_from_similarity
from .validation import Validation
from .vocabulary import Vocabulary

FORMAT_VERSION = 1
CHECKPOINT_FILE = "checkpoint.pt"
BEST_FILE = "best.pt"


@dataclass(frozen=True)
class Checkpoint:
    """One saved state of a run, after `step` steps, which also determine the sampler (`nann.training.sampling`).

    `best` is the validation with the best recall so far; None if there was none. `trained_on` is the identity of the
    data set (`PreparedData.identity`), `vocabulary` what the rows of its tables stand for; both are None in a
    checkpoint of an older release.
    """

    config: TrainingConfig
    step: int
    model: dict[str, Any]
    optimizer: dict[str, Any]
    best: Validation | None = None
    trained_on: str | None = None
    vocabulary: Vocabulary | None = None

    def save(self, path: Path) -> None:
        """Writes the file completely or not at all: a killed run leaves the previous checkpoint."""
        config, best = self.config.model_dump_json(), None if self.best is None else asdict(self.best)
        body = {"step": self.step, "model": self.model, "optimizer": self.optimizer, "best": best}
        body["trained_on"] = self.trained_on
        body["vocabulary"] = None if self.vocabulary is None else self.vocabulary.packed()
        with new_file(path) as temporary:
            torch.save({"format_version": FORMAT_VERSION, "config": config, **body}, temporary)

    @classmethod
    def load(cls, path: Path | str) -> Checkpoint:
        """Reads a checkpoint.

        Raises:
            ConfigError: if the file is missing or is not a checkpoint of this project.
        """
        path = Path(path)
        if not path.is_file():
            raise ConfigError(f"checkpoint {path} does not exist; train one with `nann train`")
        try:
            body = torch.load(path, map_location="cpu", weights_only=True)
            version = body["format_version"]
            if version != FORMAT_VERSION:
                raise ConfigError(f"checkpoint {path} has format {version}; this release reads {FORMAT_VERSION}")
            config = TrainingConfig.model_validate(_settings(body["config"]))
            best = Validation(**body["best"]) if body.get("best") else None
            words = Vocabulary.unpacked(body["vocabulary"]) if body.get("vocabulary") else None
            return cls(config, body["step"], body["model"], body["optimizer"], best, body.get("trained_on"), words)
        except ConfigError:
            raise
        except Exception as error:  # torch.load raises many types for damaged bytes
            # Only the type: torch's message has several lines and advises to unpickle the file anyway.
            raise ConfigError(
                f"{path} is not a checkpoint of `nann train` ({type(error).__name__}); give OUT/checkpoint.pt of a run"
            ) from error

    def check_trained_on(self, data: PreparedData) -> None:
        """Raises DataError if the run trained on another data set than `data`, or on other users or rows of the log."""
        if self.trained_on not in (None, data.identity):
            raise DataError(
                f"the checkpoint was trained on the data set {self.trained_on}, and this one is {data.identity}: other "
                "items, users or training rows; give the data set it was trained on, or prepare that one again with "
                "the same options; if it has grown since (`nann prepare log --append`), train on it with `nann train "
                "--from`"
            )

    def restore(self, data: PreparedData) -> AnyScorer:
        """The trained scorer, in evaluation mode.

        Raises:
            ConfigError: if the weights do not fit the configured architecture.
            DataError: if the checkpoint was trained on another data set.
        """
        model = build_model(self.config, data)
        load_weights(model, self.model)
        if isinstance(model, KernelScorer):
            model.use_heads(self.step > self.config.start_steps)
        return model.eval()


def _settings(text: str) -> dict[str, Any]:
    """The configuration in a checkpoint; one of an older release has its id dropout in another place."""
    settings: dict[str, Any] = json.loads(text)
    kernel = settings["model"]["kernel"]
    if "id_dropout" in kernel:
        settings["model"]["id_dropout"] = kernel.pop("id_dropout")
    return settings


def build_model(config: TrainingConfig, data: PreparedData) -> AnyScorer:
    """A fresh scorer for a data set."""
    sizes = [len(field["values"]) + 1 for field in data.profile_fields]
    counts = torch.tensor(data.train_counts)
    if config.model.architecture == "kernel":
        bag = _attribute_bag(data, config.model.vector_dim - 1, with_category=True)
        return KernelScorer(config.model, counts, bag, sizes)
    bag = _attribute_bag(data, config.model.embedding_dim, with_category=False)
    categories = torch.tensor(data.item_categories)
    model = NeuralScorer(config.model, categories, data.category_count, sizes, config.light, bag, counts > 0)
    if config.model.start == "similarity":
        start_from_similarity(model, counts)
    return model


def _attribute_bag(data: PreparedData, dim: int, with_category: bool) -> AttributeBag | None:
    """Attributes, and the category, of every item; None if the data set has none."""
    indptr, codes, count = np.zeros(data.item_count + 1, np.int64), np.empty(0, np.int32), 0
    if data.item_attributes is not None:
        indptr, codes, count = data.item_attributes.indptr, data.item_attributes.codes, data.item_attributes.count
    if with_category and data.category_count > 1:
        codes = np.insert(codes, indptr[:-1], count + data.item_categories)
        indptr, count = indptr + np.arange(len(indptr)), count + data.category_count
    return AttributeBag(torch.tensor(indptr), torch.tensor(codes), count, dim) if count else None


def load_weights(model: AnyScorer, weights: dict[str, Any]) -> None:
    """Loads a state dict; raises DataError for another data set's, ConfigError for another architecture's."""
    items = weights.get("item_embedding.weight")
    if items is not None and len(items) != model.item_count:
        raise DataError(
            f"the checkpoint was trained on {len(items)} items and the data set has {model.item_count}; "
            "use the data set it was trained on"
        )
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise ConfigError(
            f"the checkpoint is of another architecture than `{model.config.architecture}` as configured: {first}"
        ) from error
