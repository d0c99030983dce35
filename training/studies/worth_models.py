"""The models of the study `worth`: trained, measured with every item scored and by the tuned walk, cached on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from nann.bundle import Bundle
from nann.metrics import targets_found
from nann.scorer import Int32Array

from ..baselines.baseline import rank_by_scores
from ..baselines.compare import BASELINES, LABELS, Comparison
from ..checkpoint import CHECKPOINT_FILE, Checkpoint
from ..excluded import Excluded
from ..export.serving_modules import item_vectors
from ..models.kernel_scorer import KernelScorer
from ..reports.store import Json, cached
from ..reports.text import percent
from ..scorers import OnnxScorer
from ..search.measured_users import MeasuredUsers, bundle_users
from ..search.model_lists import ModelLists
from ..search.pipeline import export_checkpoint
from ..search.tune import tune_bundle
from ..search.tuning_trials import Aim
from ..train import train
from .runs import Runs, data_fingerprint, indexed
from .settings import SPLIT
from .worth_forms import Form

FOLDER = "worth"
"""Cache folder, with a folder per model."""
TOP_KS = (20, 200)
METRICS = ("recall_20", "recall_200", "ndcg_20")
MEASURES = (*METRICS, "seconds")
WALK = ("recall_retrieval", "coverage", "recall_delta", "share_scored")
_KEPT = (*MEASURES, "by_frequency")


@dataclass(frozen=True)
class WorthModels:
    """Trains and measures forms of the scorer for the users of `comparison`."""

    runs: Runs
    comparison: Comparison

    @property
    def users(self) -> int:
        """How many users are measured."""
        return len(self.comparison.queries.users)

    def baselines(self) -> dict[str, Json]:
        """The measures of each method without a deep model; `seconds` are those to fit it and to rank."""
        return {name: self._cached(partial(self._baseline, name), baseline=name) for name in BASELINES}

    def lists(self, form: Form) -> Json:
        """A form's measures with every item scored; `seconds` are those of its training."""

        def measure() -> Json:
            checkpoint, training = self._trained(form)
            self.runs.say(f"{_words(form)}: scoring every item for {self.users:,} users")
            return {**self._measured(partial(self._exact, checkpoint, form)), **training}

        return self._cached(measure, lists=self._name(form))

    def served(self, form: Form, coverage: float, max_share: float) -> Json:
        """`lists` by the exported models, and under `walk` the measures of a search that is tuned for a coverage."""

        def measure() -> Json:
            checkpoint, training = self._trained(form)
            bundle = self._bundle(checkpoint, form)
            self.runs.say(f"{_words(form)}: tuning for {percent(coverage, 1)} coverage")
            params = tune_bundle(bundle, form.data, Aim(coverage=coverage), max_share=max_share).params
            self.runs.say(f"{_words(form)}: scoring every item for {self.users:,} users")
            queries, batch = bundle_users(bundle, form.data, SPLIT, self.users)
            scorer = OnnxScorer.of_bundle(bundle)
            users = MeasuredUsers.of(scorer, batch, queries, bundle.item_count, max(TOP_KS))
            walk = users.measure(bundle.index, scorer, params)
            lists = self._measured(lambda top_k: users.exact)
            return {**lists, **training, "walk": {name: walk[name] for name in WALK}}

        return self._cached(measure, served=self._name(form), coverage=coverage, max_share=max_share)

    def _baseline(self, name: str) -> Json:
        self.runs.say(f"{LABELS[name]}: for {self.users:,} users")
        data, queries = self.runs.data, self.comparison.queries
        return self._measured(lambda top_k: BASELINES[name].fit(data).rank(queries.behaviors, top_k))

    def _trained(self, form: Form) -> tuple[Checkpoint, Json]:
        """The checkpoint, and the `seconds` of the training; an interrupted training begins anew, for their sake."""
        folder = self.runs.folder / FOLDER / self._name(form)

        def run() -> Json:
            config = form.config
            self.runs.say(f"{_words(form)}: training, {config.steps:,} steps")
            report = train(form.data, config, folder, overwrite=True)
            return {"seconds": round(report.seconds, 1)}

        path = folder / CHECKPOINT_FILE
        training = cached(folder, {"training": form.config.fingerprint}, run, again=not path.is_file())
        return Checkpoint.load(path), training

    def _bundle(self, checkpoint: Checkpoint, form: Form) -> Bundle:
        path = self.runs.folder / FOLDER / self._name(form) / "bundle"
        bundle = indexed(checkpoint, form.data, path, lambda: self.runs.say(f"{_words(form)}: indexing"), threads=1)
        export_checkpoint(checkpoint, form.data, bundle)
        return Bundle.open(path)

    def _exact(self, checkpoint: Checkpoint, form: Form, top_k: int) -> Int32Array:
        """The best items of each user: `int32[U, top_k]`, best first."""
        model = checkpoint.restore(form.data)
        if isinstance(model, KernelScorer) and not model.has_light:
            return _by_inner_products(model, self.comparison, top_k)
        return ModelLists.of_checkpoint(checkpoint, form.data, SPLIT, self.users).exact(top_k)

    def _name(self, form: Form) -> str:
        return f"{form.config.fingerprint}-{data_fingerprint(form.data)}"

    def _cached(self, measure: Callable[[], Json], **inputs: Json) -> Json:
        length = self.comparison.queries.behaviors.shape[1]
        users = {"data": self.runs.fingerprint, "users": self.users, "behaviors": length}
        return cached(self.runs.folder / FOLDER / "measured", {**users, **inputs}, measure)

    def _measured(self, ranked: Callable[[int], Int32Array]) -> Json:
        """The measures of a method, and `found_K`, whether each target is in its list: 0 or 1."""
        lists: list[Int32Array] = []

        def kept(top_k: int) -> Int32Array:
            lists.append(ranked(top_k))
            return lists[-1]

        measures, queries = self.comparison.measure(kept), self.comparison.queries
        items = Excluded.of(queries).without(lists[0], max(TOP_KS))
        truth = queries.target_indptr, queries.target_items
        found = {f"found_{k}": targets_found(items[:, :k], *truth).astype(int).tolist() for k in TOP_KS}
        return {**{name: measures[name] for name in _KEPT}, **found}


@torch.inference_mode()
def _by_inner_products(model: KernelScorer, comparison: Comparison, top_k: int) -> Int32Array:
    """`exact` of a model whose score is an inner product, without a call of the scorer for each pair."""
    queries, items = comparison.queries, item_vectors(model).numpy()
    users = model.light_users(torch.from_numpy(queries.behaviors), torch.from_numpy(queries.profiles)).numpy()
    return rank_by_scores(lambda block: users[block] @ items.T, len(users), len(items), top_k)


def _words(form: Form) -> str:
    return f"{form.name.replace('_', ' ')}, seed {form.config.seed}"
