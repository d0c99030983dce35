"""Growth of a synthetic corpus: the settings for `measures.corpus_growth`."""

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
    """Settings of all sizes: the base configuration with the first random seed."""
    tuning_users, test_users = settings.growth_users
    top_k = settings.search.top_k
    search = SearchConfig(top_k=top_k, ef=(100, 200, max(400, top_k)), rounds=(1, 1, 3))
    config = settings.config().model_copy(update={"search": search})
    return corpus_growth.GrowthSettings(config, tuning_users=tuning_users, test_users=test_users)


def run(runs: Runs, settings: StudySettings) -> Json:
    """The result of `corpus_growth.run`."""
    return corpus_growth.run(settings.growth_items, runs.folder / FOLDER, growth_settings(settings), runs.say)


def markdown(result: Json) -> str:
    """A sentence and the table."""
    sizes = result["sizes"]
    ends = (
        f"At {size['items']:,} items it scores {percent(size['share_scored'])} of them and covers "
        f"{percent(size['coverage'])}."
        for size in [sizes[0], sizes[-1]][: len(sizes)]
    )
    start = f"Synthetic logs; the search is tuned for a coverage of {percent(result['wanted_coverage'])}."
    return f"{' '.join([start, *ends])}\n\n{corpus_growth.table(result)}"


STUDY = Study(
    "growth",
    "Growth of a synthetic corpus",
    run,
    markdown,
    {"growth.png": corpus_growth.plot},
    lambda result, data: {"synthetic_1m": result["synthetic_1m"]} if result["synthetic_1m"] else {},
    configs=lambda settings: [],  # every size trains its own model, on its own synthetic log
    inputs=lambda settings: [growth_settings(settings).of_size(items) for items in settings.growth_items],
)
