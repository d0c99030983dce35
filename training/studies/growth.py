"""Corpus growth among the other studies: the settings for `measures.corpus_growth`."""

from __future__ import annotations

from ..config import SearchConfig
from ..reports.store import Json
from ..reports.text import percent
from .measures import corpus_growth
from .runs import Runs
from .settings import StudySettings
from .study import Study

FOLDER = "growth"


def growth_settings(settings: StudySettings) -> corpus_growth.GrowthSettings:
    """What each size is made with: the base configuration, first seed."""
    tuning_users, test_users = settings.growth_users
    top_k = settings.search.top_k
    search = SearchConfig(top_k=top_k, ef=(100, 200, max(400, top_k)), rounds=(1, 1, 3))
    config = settings.config().model_copy(update={"search": search})
    return corpus_growth.GrowthSettings(config, tuning_users=tuning_users, test_users=test_users)


def inputs(settings: StudySettings) -> Json:
    """Everything each size depends on."""
    return [growth_settings(settings).of_size(items) for items in settings.growth_items]


def run(runs: Runs, settings: StudySettings) -> Json:
    """The result of `corpus_growth.run`."""
    return corpus_growth.run(settings.growth_items, runs.folder / FOLDER, growth_settings(settings), runs.say)


def headline(result: Json, data: str) -> dict[str, Json]:
    """`synthetic_1m`, where a corpus of a million items was measured."""
    return {"synthetic_1m": result["synthetic_1m"]} if result["synthetic_1m"] else {}


def markdown(result: Json) -> str:
    """A sentence and the table."""
    first, last = result["sizes"][0], result["sizes"][-1]
    if first is last:
        sentence = (
            f"Synthetic logs. At {first['items']:,} items, tuned for a coverage of "
            f"{percent(result['wanted_coverage'])}, {percent(first['share_scored'])} are scored, at a coverage of "
            f"{percent(first['coverage'])}."
        )
        return f"{sentence}\n\n{corpus_growth.table(result)}"
    sentence = (
        f"Synthetic logs. From {first['items']:,} to {last['items']:,} items, tuned for a coverage of "
        f"{percent(result['wanted_coverage'])}, the share scored goes from {percent(first['share_scored'])} to "
        f"{percent(last['share_scored'])}, at a coverage of {percent(first['coverage'])} and "
        f"{percent(last['coverage'])}."
    )
    return f"{sentence}\n\n{corpus_growth.table(result)}"


STUDY = Study(
    "growth",
    "Growth of a synthetic corpus",
    run,
    markdown,
    {"growth.png": corpus_growth.plot},
    headline,
    configs=lambda settings: [],  # none of the data set's: every size trains its own, on its own synthetic log
    inputs=inputs,
)
