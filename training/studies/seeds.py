"""Entering the graph by seeds, among the other studies: models and users for `measures.seeded_entry`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nann.bundle import Bundle
from nann.errors import ConfigError
from nann.scorer import Scorer
from nann.search_input import SearchIndex

from ..reports.store import Json, cached
from ..search.measured_users import MeasuredUsers
from . import growth
from .measures import corpus_growth, seeded_entry
from .runs import Runs, TrainedRun
from .settings import ONE_MILLION, StudySettings
from .study import Study

FOLDER = "seeded"
"""Of the cache: a file a comparison."""


def inputs(settings: StudySettings) -> Json:
    """What the comparison depends on besides its model."""
    return {
        **_comparison(settings),
        "tuning_users": settings.seeded_users,
        "growth": [growth.growth_settings(settings).of_size(items) for items in settings.seeded_items],
    }


def _comparison(settings: StudySettings) -> dict[str, Json]:
    return {
        "top_k": settings.search.top_k,
        "coverages": settings.seeded_coverages,
        "budgets": settings.budgets,
        "max_share": settings.seeded_max_share,
    }


def run(runs: Runs, settings: StudySettings) -> Json:
    """`data`: the comparison on the data set; `synthetic`: one on each synthetic corpus."""
    # Each comparison is kept by itself: one on a large corpus takes an hour, and is not to wait for another.
    judge = runs.get(settings.config())
    of_data = {**_comparison(settings), "model": judge.folder.name, "users": [settings.seeded_users, settings.users]}
    return {
        "data": cached(runs.folder / FOLDER, of_data, lambda: _data(runs, settings, judge)),
        "synthetic": [_synthetic(runs, settings, items) for items in settings.seeded_items],
    }


def _data(runs: Runs, settings: StudySettings, judge: TrainedRun) -> Json:
    top_k = settings.search.top_k
    queries = runs.data.queries("validation", judge.config.model.sequence_length, settings.seeded_users)
    tuning, test = judge.measured(queries, top_k), judge.users.cut(top_k)
    return _compare(runs, settings, judge.bundle, judge.scorer, tuning, test)


def _synthetic(runs: Runs, settings: StudySettings, items: int) -> Json:
    """On the corpus, the model and the users of the growth study."""
    sizes = growth.growth_settings(settings)

    def compare() -> Json:
        made = corpus_growth.make_size(items, runs.folder / growth.FOLDER, sizes, runs.say)
        tuning, test = made.users("validation"), made.users("test")
        tuning = tuning.take(np.arange(min(settings.seeded_users, len(tuning))))
        return _compare(runs, settings, made.bundle, made.modules.scorer, tuning, test)

    of_size = {**_comparison(settings), "size": sizes.of_size(items), "tuning_users": settings.seeded_users}
    return cached(runs.folder / FOLDER, of_size, compare)


def _compare(
    runs: Runs,
    settings: StudySettings,
    bundle: Bundle,
    scorer: Scorer,
    tuning: MeasuredUsers,
    test: MeasuredUsers,
) -> Json:
    return seeded_entry.compare(
        _with_light(bundle.index),
        scorer,
        tuning,
        test,
        coverages=settings.seeded_coverages,
        budgets=_budgets(settings, bundle.item_count),
        max_share=settings.seeded_max_share,
        say=runs.say,
    )


def _with_light(index: SearchIndex) -> SearchIndex:
    if index.light_vectors is None:
        raise ConfigError(
            "the model has no light head; set light.enabled in its configuration to compare entry by seeds"
        )
    return index


def _budgets(settings: StudySettings, items: int) -> list[int]:
    return sorted({min(budget, items) for budget in settings.budgets if budget >= settings.search.top_k})


def headline(result: Json, data: str) -> dict[str, Json]:
    """`seeded`, and `seeded_1m` where a corpus of a million items was measured: evaluations at equal coverage."""
    large = [each for each in result["synthetic"] if each["items"] >= ONE_MILLION]
    return {"seeded": result["data"]["at"], **({"seeded_1m": large[0]["at"]} if large else {})}


def markdown(result: Json) -> str:
    """What is ours in it, then the tables."""
    sentence = (
        "Ours, not the paper's: a light score (an inner product that the model has taught) finds seeds with a walk of "
        "its own, and the scorer's walk starts from them on the ground layer."
    )
    synthetic = (
        f"On a synthetic corpus of {each['items']:,} items:\n\n{seeded_entry.markdown(each)}"
        for each in result["synthetic"]
    )
    return "\n\n".join([sentence, seeded_entry.markdown(result["data"]), *synthetic])


def plot(result: Json, path: Path) -> None:
    """Coverage and recall against scorer evaluations, on the data set."""
    seeded_entry.plot(result["data"], path)


STUDY = Study(
    "seeded", "Beyond the paper: entering by seeds", run, markdown, {"seeded.png": plot}, headline, inputs=inputs
)
