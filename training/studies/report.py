"""All studies, and the introduction and details of their report."""

from __future__ import annotations

from ..reports.report import Report
from ..reports.store import Json
from . import (
    baselines,
    equal_vectors,
    figure5,
    figure6,
    figure7,
    figures3_4,
    filters,
    fresh,
    growth,
    readings,
    seeds,
    table3,
    tuned,
    worth,
)
from .study import Study

STUDIES: tuple[Study, ...] = (
    table3.STUDY,
    figures3_4.FIGURE3,
    figures3_4.FIGURE4,
    figure5.STUDY,
    figure6.STUDY,
    figure7.STUDY,
    readings.STUDY,
    tuned.STUDY,
    baselines.STUDY,
    growth.STUDY,
    seeds.STUDY,
    equal_vectors.STUDY,
    worth.STUDY,
    filters.STUDY,
    fresh.STUDY,
)
"""In the order of the report. A new study is a module with a `Study`, and a line here."""

_INTRODUCTION = """# Experiments

Section 5 of the [paper](https://arxiv.org/abs/2202.10226) on {data}. `nann experiments` writes this report; its numbers
are also in [experiments.json](experiments.json).

- recall-all: recall of scoring every item. The ground truth is what a test user did next.
- recall-retrieval: recall of the search.
- recall-Δ: the share of recall-all that the search loses.
- coverage: the share of the exhaustive top list that the search finds.
- items scored: the cost of the search, as a share of the corpus.
"""
_ABOUT = {
    "complete_journey": "Complete Journey (a year of grocery baskets, simulated from real shopping patterns)",
    "userbehavior": "Taobao's UserBehavior",
}


def _introduction(body: Json) -> str:
    names: dict[str, None] = {}
    for _, entry in REPORT.entries(body):
        names |= dict.fromkeys(entry["data"] if isinstance(entry["data"], list) else [entry["data"]])
    return _INTRODUCTION.format(data=" and ".join(_ABOUT.get(name, name) for name in names))


def _details(made: Json) -> list[str]:
    optimization, seeds = made["configuration"]["optimization"], made["seeds"]
    return [
        f"{optimization['steps']:,} training steps of {optimization['batch_size']:,} contexts",
        f"{made['users']:,} test users",
        f"random seeds {seeds}" if len(seeds) > 1 else f"random seed {seeds[0]}",
    ]


REPORT = Report(
    "experiments.json",
    "experiments.md",
    STUDIES,
    word="study",
    introduction=_introduction,
    section="studies",
    details=_details,
    command="nann experiments",
)
