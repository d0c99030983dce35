"""All studies, and what the report of them says around them."""

from __future__ import annotations

from ..reports.report import Report
from ..reports.store import Json
from . import baselines, figure5, figure6, figure7, figures3_4, growth, readings, seeds, table3, tuned
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
)
"""In the order of the report. A new one is a `Study` in a module of its own and a line here."""

_INTRODUCTION = """# Experiments

Section 5 of the [paper](https://arxiv.org/abs/2202.10226) on {data}; written by `nann experiments`, numbers also in
[experiments.json](experiments.json). recall-all is the recall of scoring every item, recall-retrieval that of the
search, recall-Δ the share of it that the search loses, coverage the share of the exhaustive top list that the search
finds, items scored its cost as a share of the corpus. Ground truth is what a test user did next.
"""
_ABOUT = {
    "complete_journey": "Complete Journey (a year of grocery baskets, simulated from real shopping patterns)",
    "userbehavior": "Taobao's UserBehavior",
}


def _introduction(body: Json) -> str:
    names = dict.fromkeys(entry["data"] for _, entry in REPORT.entries(body))
    return _INTRODUCTION.format(data=" and ".join(_ABOUT.get(name, name) for name in names))


def _details(made: Json) -> list[str]:
    optimization, seeds = made["configuration"]["optimization"], made["seeds"]
    return [
        f"{optimization['steps']:,} training steps of {optimization['batch_size']:,} contexts",
        f"{made['users']:,} test users",
        f"seeds {seeds}" if len(seeds) > 1 else f"seed {seeds[0]}",
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
