"""Entry by seeds: the models and users for `measures.seeded_entry`."""

from __future__ import annotations

import numpy as np

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
"""Cache folder, with one file per comparison."""


def _inputs(settings: StudySettings) -> Json:
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
    """`data`: the comparison on the data set; `synthetic`: one comparison per synthetic corpus."""
    # Each comparison has its own file: one on a large corpus takes an hour.
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
    return _compare(runs, settings, judge.bundle.index, judge.scorer, tuning, test)


def _synthetic(runs: Runs, settings: StudySettings, items: int) -> Json:
    """The comparison on a corpus of the growth study, with its model and users."""
    sizes = growth.growth_settings(settings)

    def compare() -> Json:
        made = corpus_growth.make_size(items, runs.folder / growth.FOLDER, sizes, runs.say)
        tuning, test = made.users("validation"), made.users("test")
        tuning = tuning.take(np.arange(min(settings.seeded_users, len(tuning))))
        return _compare(runs, settings, made.bundle.index, made.modules.scorer, tuning, test)

    of_size = {**_comparison(settings), "size": sizes.of_size(items), "tuning_users": settings.seeded_users}
    return cached(runs.folder / FOLDER, of_size, compare)


def _compare(
    runs: Runs, settings: StudySettings, index: SearchIndex, scorer: Scorer, tuning: MeasuredUsers, test: MeasuredUsers
) -> Json:
    return seeded_entry.compare(
        index,
        scorer,
        tuning,
        test,
        coverages=settings.seeded_coverages,
        budgets=settings.budgets,
        max_share=settings.seeded_max_share,
        say=runs.say,
    )


def headline(result: Json, data: str) -> dict[str, Json]:
    """Evaluations at equal coverage: `seeded`, and `seeded_1m` if a corpus of a million items was measured."""
    large = [each for each in result["synthetic"] if each["items"] >= ONE_MILLION]
    return {"seeded": result["data"]["at"], **({"seeded_1m": large[0]["at"]} if large else {})}


def markdown(result: Json) -> str:
    """A sentence about entry by seeds, then the tables."""
    sentence = (
        "Entry by seeds is ours, not the paper's. A light score, an inner product learned from the model, finds seeds "
        "with a walk of its own. The scorer's walk starts from these seeds on the ground layer."
    )
    synthetic = (
        f"On a synthetic corpus of {each['items']:,} items:\n\n{seeded_entry.markdown(each)}"
        for each in result["synthetic"]
    )
    return "\n\n".join([sentence, seeded_entry.markdown(result["data"]), *synthetic])


STUDY = Study(
    "seeded",
    "Beyond the paper: entering by seeds",
    run,
    markdown,
    {"seeded.png": lambda result, path: seeded_entry.plot(result["data"], path)},
    headline,
    inputs=_inputs,
)
