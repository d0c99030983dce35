"""Trained models with their bundles and their searches, cached on disk.

    build/experiments/<configuration>-<data set>/
        checkpoint.pt, tensorboard/     training, taken up again where it stopped
        bundle/                         item vectors and graph
        measured/<test users>/          user states, exact top K, one JSON file a measured search

The name says what the model depends on: the configuration and the data set. After a change of the training code remove
the folder.
"""

from __future__ import annotations

import copy
import hashlib
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from nann.best_first_search import best_first_search
from nann.bundle import Bundle, search_to_json
from nann.graph import HnswGraph
from nann.manifest import MANIFEST_FILE
from nann.scorer import Float32Array
from nann.search_input import UserBatch
from nann.search_params import SearchParams
from nann.search_result import SearchResult

from ..checkpoint import Checkpoint
from ..config import SearchConfig, TrainingConfig
from ..data.prepared import PreparedData, Queries
from ..export.serving_modules import UserEncoder, serving_modules
from ..models.neural_scorer import NeuralScorer
from ..reports.store import Json, cached, cached_array
from ..scorers import TorchScorer, encode_users_torch
from ..search.measured_users import USER_BLOCK, MeasuredUsers, exact_top
from ..search.pipeline import index_checkpoint, weights_hash
from ..train import CHECKPOINT_FILE, train
from .settings import SPLIT, StudySettings

CHECKPOINT_EVERY_STEPS = 250

Say = Callable[[str], None]


def fit_params(params: SearchParams, graph: HnswGraph) -> SearchParams:
    """The same parameters for a graph that may lack the upper layers."""
    layers = params.layer_count(graph.entry_layer)
    return replace(params, ef=params.ef[-layers:], rounds=params.rounds[-layers:])


def data_fingerprint(data: PreparedData) -> str:
    """Short hash of the arrays that training and evaluation read."""
    digest = hashlib.sha256()
    for array in (
        data.item_ids,
        data.item_categories,
        data.behavior_items,
        data.behavior_group_first,
        data.user_first,
        data.user_end,
        data.user_split,
        data.user_target,
        data.user_profiles,
    ):
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:12]


def describe(config: TrainingConfig) -> str:
    """The configuration in a few words, as progress lines show it."""
    auxiliary = config.loss.auxiliary
    loss = "no auxiliary loss" if auxiliary.reading == "none" else f"{auxiliary.reading} eps {auxiliary.epsilon:g}"
    return f"{config.model.architecture}, {loss}, seed {config.seed}"


def trained(
    data: PreparedData, config: TrainingConfig, folder: Path, every_steps: int, on_train: Callable[[int], None]
) -> Checkpoint:
    """The trained model in a folder; trains as far as that has not been done.

    Args:
        data: the data set.
        config: what is trained.
        folder: where the checkpoint is kept.
        every_steps: what an interrupted training loses at most.
        on_train: called with the first step before a training.
    """
    path = folder / CHECKPOINT_FILE
    found = Checkpoint.load(path) if path.is_file() else None
    if found is not None and found.step >= config.optimization.steps:
        return found
    on_train(found.step if found else 0)
    train(data, config, folder, resume=found is not None, checkpoint_every_steps=every_steps)
    return Checkpoint.load(path)


@dataclass(frozen=True)
class ServedModules:
    """The user encoder of a trained model, on the CPU, and its scorer, on the GPU where there is one."""

    encoder: UserEncoder
    scorer: TorchScorer

    @classmethod
    def of(cls, model: NeuralScorer) -> ServedModules:
        """The modules of a restored model."""
        encoder, scorer = serving_modules(model)
        # A copy: the user encoder shares layers with it and stays on the CPU.
        return cls(encoder, TorchScorer(copy.deepcopy(scorer).to("cuda" if torch.cuda.is_available() else "cpu")))

    def encode(self, queries: Queries) -> UserBatch:
        """The users of some queries, to search for."""
        return UserBatch(encode_users_torch(self.encoder, queries.behaviors, queries.profiles), queries.behaviors)


class Runs:
    """The trained models of one data set; training one happens when it is first asked for.

    Args:
        data: the prepared data set.
        folder: where models and measurements are kept.
        settings: for the users to measure with, and what the bundles recommend.
        say: takes progress lines.
    """

    def __init__(self, data: PreparedData, folder: Path, settings: StudySettings, say: Say = lambda line: None) -> None:
        self.data = data
        self.folder = folder
        self.settings = settings
        self.fingerprint = data_fingerprint(data)
        self.say = say
        self._planned: list[str] = []

    def plan(self, configs: Iterable[TrainingConfig]) -> None:
        """Tells which models will be asked for, so that progress lines can count them."""
        self._planned = list(dict.fromkeys(self.key(config) for config in configs))

    def key(self, config: TrainingConfig) -> str:
        """The folder name of a configuration's model."""
        return f"{config.fingerprint}-{self.fingerprint}"

    @cached_property
    def queries(self) -> Queries:
        """The test users to measure with; all models read histories of the same length."""
        return self.data.queries(SPLIT, self.settings.base.model.sequence_length, self.settings.users)

    def get(self, config: TrainingConfig) -> TrainedRun:
        """The trained model with its bundle; trains and indexes as far as that has not been done."""
        folder = self.folder / self.key(config)
        steps = config.optimization.steps

        def on_train(first: int) -> None:
            self.say(f"{self._count(config)}{describe(config)}: training, step {first} to {steps}")

        checkpoint = trained(self.data, config, folder, CHECKPOINT_EVERY_STEPS, on_train)
        self._indexed(checkpoint, folder)
        return TrainedRun(folder, self.data, self.queries, checkpoint, self.settings.max_top_k)

    def _count(self, config: TrainingConfig) -> str:
        key = self.key(config)
        return f"model {self._planned.index(key) + 1} of {len(self._planned)}: " if key in self._planned else ""

    def _indexed(self, checkpoint: Checkpoint, folder: Path) -> None:
        bundle = folder / "bundle"
        if (bundle / MANIFEST_FILE).is_file():
            provenance = Bundle.open(bundle, files=[]).notes.get("provenance", {})
            if provenance.get("weights") == weights_hash(checkpoint):
                return
        shutil.rmtree(folder / "measured", ignore_errors=True)  # of other weights
        search = self.settings.search
        recommended = SearchConfig(top_k=search.top_k, ef=search.ef, rounds=search.rounds)
        config = checkpoint.config.model_copy(update={"search": recommended})
        # One thread: the same vectors then give the same graph.
        index_checkpoint(replace(checkpoint, config=config), self.data, bundle, threads=1)


class TrainedRun:
    """A trained model, its bundle, and what searches with it found.

    Args:
        folder: of the model.
        data: the data set it was trained on.
        queries: the users to measure with.
        checkpoint: the trained weights.
        max_top_k: the largest K that will be asked for; cut to the number of items.
    """

    def __init__(
        self, folder: Path, data: PreparedData, queries: Queries, checkpoint: Checkpoint, max_top_k: int
    ) -> None:
        self.folder = folder
        self.data = data
        self.queries = queries
        self.checkpoint = checkpoint
        self._max_top_k = min(max_top_k, data.item_count)
        self._measured = folder / "measured" / _users_name(queries)

    @property
    def config(self) -> TrainingConfig:
        """The model's configuration."""
        return self.checkpoint.config

    @cached_property
    def model(self) -> NeuralScorer:
        """The network, in evaluation mode, on the CPU."""
        return self.checkpoint.restore(self.data)

    @cached_property
    def bundle(self) -> Bundle:
        """Item vectors and graph; without ONNX files."""
        return Bundle.open(self.folder / "bundle")

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
        """Other users to measure with; nothing of them is kept."""
        batch = self._modules.encode(queries)
        return MeasuredUsers(batch, queries, exact_top(self.scorer, batch, self.data.item_count, top_k))

    @cached_property
    def users(self) -> MeasuredUsers:
        """The users to measure with, and the largest exact top K that will be asked for."""
        batch, most = UserBatch(self.states, self.queries.behaviors), self._max_top_k
        path = self._measured / f"exact_top_{most}.npy"
        exact = cached_array(path, lambda: exact_top(self.scorer, batch, self.data.item_count, most))
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


def _users_name(queries: Queries) -> str:
    """The folder of these users and their histories' length."""
    users, length = queries.behaviors.shape
    return f"{SPLIT}-{users}-users-{length}-behaviours"
