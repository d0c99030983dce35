"""Trained models with their bundles and searches, cached on disk.

    build/experiments/<configuration>-<data set>/
        checkpoint.pt, tensorboard/     training, which resumes where it stopped
        bundle/                         item vectors and graph
        measured/<test users>/          user states, exact top K, one JSON file per measured search

The folder's name has hashes of the configuration and the data set. It does not change with the training code: remove
the folder after a change there.
"""

from __future__ import annotations

import copy
import hashlib
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from nann.best_first_search import best_first_search
from nann.bundle import Bundle
from nann.errors import BundleError
from nann.graph import HnswGraph
from nann.manifest import search_to_json
from nann.scorer import Float32Array
from nann.search_input import UserBatch
from nann.search_params import SearchParams
from nann.search_result import SearchResult

from ..checkpoint import CHECKPOINT_FILE, Checkpoint
from ..config import SearchConfig, TrainingConfig
from ..data.prepared import PreparedData, Queries
from ..excluded import Excluded
from ..export.serving_modules import serving_modules
from ..models.scorer import AnyScorer
from ..reports.store import Json, cached, cached_array
from ..scorers import TorchScorer, encode_users_torch
from ..search.measured_users import USER_BLOCK, MeasuredUsers, exact_top
from ..search.pipeline import index_checkpoint, weights_hash
from ..train import train
from ..warm_start import WarmStart
from .settings import SPLIT, StudySettings

CHECKPOINT_EVERY_STEPS = 250

Say = Callable[[str], None]


def fit_params(params: SearchParams, graph: HnswGraph) -> SearchParams:
    """The parameters without the upper layers that the graph lacks."""
    layers = params.layer_count(graph.entry_layer)
    return replace(params, ef=params.ef[-layers:], rounds=params.rounds[-layers:])


def data_fingerprint(data: PreparedData) -> str:
    """Short hash of the arrays that training and evaluation read."""
    digest = hashlib.sha256()
    arrays: list[npt.NDArray[Any]] = [
        data.item_ids,
        data.item_categories,
        data.behavior_items,
        data.behavior_group_first,
        data.user_first,
        data.user_end,
        data.user_train_end,
        *data.user_targets.values(),
        data.user_profiles,
        np.array(data.excludes_history),
    ]
    if data.item_attributes is not None:
        arrays += [data.item_attributes.indptr, data.item_attributes.codes]
    for array in arrays:
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:12]


def describe(config: TrainingConfig) -> str:
    """The configuration in a few words, for progress lines."""
    auxiliary = config.loss.auxiliary
    loss = "no auxiliary loss" if auxiliary.reading == "none" else f"{auxiliary.reading} eps {auxiliary.epsilon:g}"
    return f"{config.model.architecture}, {loss}, seed {config.seed}"


def trained(
    data: PreparedData,
    config: TrainingConfig,
    folder: Path,
    on_train: Callable[[int], None],
    checkpoint_every_steps: int = 1000,
    start: Callable[[], WarmStart] | None = None,
) -> Checkpoint:
    """The checkpoint of a finished training in `folder`; missing steps are trained, after `on_train(first step)`.

    A new training begins with the weights of `start`, if it is given.
    """
    path = folder / CHECKPOINT_FILE
    found = Checkpoint.load(path) if path.is_file() else None
    if found is not None and found.step >= config.steps:
        return found
    on_train(found.step if found else 0)
    weights = start() if start is not None and found is None else None
    resume = found is not None
    train(data, config, folder, resume=resume, warm_start=weights, checkpoint_every_steps=checkpoint_every_steps)
    return Checkpoint.load(path)


def indexed(
    checkpoint: Checkpoint, data: PreparedData, path: Path, on_build: Callable[[], None], threads: int = -1
) -> Bundle:
    """The bundle of a checkpoint; built, after `on_build()`, unless `path` holds one of the same weights."""
    with suppress(BundleError):
        bundle = Bundle.open(path)
        if bundle.notes.get("provenance", {}).get("weights") == weights_hash(checkpoint):
            return bundle
    on_build()
    return index_checkpoint(checkpoint, data, path, threads=threads)


@dataclass(frozen=True)
class ServedModules:
    """The user encoder of a trained model, on the CPU, and its scorer, on the GPU if there is one."""

    encoder: nn.Module
    scorer: TorchScorer

    @classmethod
    def of(cls, model: AnyScorer) -> ServedModules:
        """The modules of a trained model."""
        encoder, scorer = serving_modules(model)
        # A copy, since the scorer shares layers with the user encoder, which stays on the CPU.
        return cls(encoder, TorchScorer(copy.deepcopy(scorer).to("cuda" if torch.cuda.is_available() else "cpu")))

    def encode(self, queries: Queries) -> UserBatch:
        """The users of `queries` as a search takes them."""
        return UserBatch(encode_users_torch(self.encoder, queries.behaviors, queries.profiles), queries.behaviors)


class Runs:
    """The trained models of one data set, in `folder`. `get` trains a model when it is first needed.

    `settings` give the users to measure with and the default search of the bundles.
    """

    def __init__(self, data: PreparedData, folder: Path, settings: StudySettings, say: Say = lambda line: None) -> None:
        self.data = data
        self.folder = folder
        self.settings = settings
        self.fingerprint = data_fingerprint(data)
        self.say = say
        self._planned: list[str] = []

    def plan(self, configs: Iterable[TrainingConfig]) -> None:
        """Sets the models that will be needed, so that progress lines can count them."""
        self._planned = list(dict.fromkeys(self.key(config) for config in configs))

    def key(self, config: TrainingConfig) -> str:
        """The folder name of a configuration's model."""
        return f"{config.fingerprint}-{self.fingerprint}"

    @cached_property
    def queries(self) -> Queries:
        """The test users to measure with; all models read behaviour sequences of the same length."""
        return self.data.queries(SPLIT, self.settings.base.model.sequence_length, self.settings.users)

    def get(self, config: TrainingConfig) -> TrainedRun:
        """The trained model with its bundle; missing steps of training and indexing are done first."""
        folder = self.folder / self.key(config)
        steps = config.steps

        def on_train(first: int) -> None:
            self.say(f"{self._count(config)}{describe(config)}: training, step {first} to {steps}")

        checkpoint = trained(self.data, config, folder, on_train, CHECKPOINT_EVERY_STEPS)
        search = self.settings.search
        default = SearchConfig(top_k=search.top_k, ef=search.ef, rounds=search.rounds)
        with_default = replace(checkpoint, config=checkpoint.config.model_copy(update={"search": default}))
        # Measurements with other weights are removed. With one thread the same vectors give the same graph.
        forget = partial(shutil.rmtree, folder / "measured", ignore_errors=True)
        bundle = indexed(with_default, self.data, folder / "bundle", forget, threads=1)
        return TrainedRun(folder, self.data, self.queries, checkpoint, bundle, self.settings.max_top_k)

    def _count(self, config: TrainingConfig) -> str:
        key = self.key(config)
        return f"model {self._planned.index(key) + 1} of {len(self._planned)}: " if key in self._planned else ""


@dataclass(eq=False)
class TrainedRun:
    """A trained model, its bundle without ONNX files, and the measures of its searches for the users of `queries`.

    The largest K that is measured is `max_top_k`, or the number of items if that is smaller.
    """

    folder: Path
    data: PreparedData
    queries: Queries
    checkpoint: Checkpoint
    bundle: Bundle
    max_top_k: int

    @property
    def _measured(self) -> Path:
        users, length = self.queries.behaviors.shape
        return self.folder / "measured" / f"{SPLIT}-{users}-users-{length}-behaviours"

    @property
    def config(self) -> TrainingConfig:
        """The model's configuration."""
        return self.checkpoint.config

    @cached_property
    def model(self) -> AnyScorer:
        """The network, in evaluation mode, on the CPU."""
        return self.checkpoint.restore(self.data)

    @cached_property
    def _modules(self) -> ServedModules:
        return ServedModules.of(self.model)

    @property
    def scorer(self) -> TorchScorer:
        """The scorer as it is served."""
        return self._modules.scorer

    @cached_property
    def states(self) -> Float32Array:
        """User states of the queries, `float32[Q, S]`."""
        return cached_array(self._measured / "user_states.npy", lambda: self._modules.encode(self.queries).states)

    def measured(self, queries: Queries, top_k: int) -> MeasuredUsers:
        """Other users with their exact top K; nothing is kept on disk."""
        batch = self._modules.encode(queries)
        return MeasuredUsers.of(self.scorer, batch, queries, self.data.item_count, top_k)

    @cached_property
    def users(self) -> MeasuredUsers:
        """The users to measure with, and their exact top K for the largest K."""
        batch, most = UserBatch(self.states, self.queries.behaviors), min(self.max_top_k, self.data.item_count)
        path = self._measured / f"exact_top_{most}.npy"
        left_out = Excluded.of(self.queries)
        exact = cached_array(path, lambda: exact_top(self.scorer, batch, self.data.item_count, most, left_out))
        return MeasuredUsers(batch, self.queries, exact)

    def beam(self, params: SearchParams) -> Json:
        """The measures of beam-retrieval, see `MeasuredUsers.measures`."""
        params = fit_params(params, self.bundle.graph)

        def measure() -> Json:
            return self.users.cut(params.top_k).measure(self.bundle.index, self.scorer, params)

        return cached(self._measured, {"beam": search_to_json(params)}, measure)

    def best_first(self, top_k: int, ef: int) -> Json:
        """The measures of the while-loop baseline."""

        def measure() -> Json:
            graph, batch = self.bundle.graph, self.users.batch
            blocks = (batch[start : start + USER_BLOCK] for start in range(0, len(batch), USER_BLOCK))
            found = [best_first_search(graph, self.scorer, users, top_k, ef) for users in blocks]
            return self.users.cut(top_k).measures(SearchResult.concatenate(found), graph.item_count)

        return cached(self._measured, {"best_first": [top_k, ef]}, measure)
