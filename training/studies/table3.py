"""Table 3: three architectures, without and with the auxiliary loss."""

from __future__ import annotations

from dataclasses import asdict

from ..config import TrainingConfig
from ..reports.store import Json
from ..reports.text import mean, percent, percent_spread, spread, table
from .curves import search_in_words
from .paper import USERBEHAVIOR_TABLE3
from .runs import Runs
from .settings import ARCHITECTURES, StudySettings
from .study import Study

METRICS = ("recall_all", "recall_retrieval", "recall_delta", "coverage", "share_scored")
KEYS = {"two_sided": "two_sided", "no_attention": "dnn", "attention": "dnn_attention"}
"""Architecture -> key in experiments.json."""
TITLES = {"two_sided": "two-sided", "no_attention": "DNN without attention", "attention": "DNN with attention"}
_LOSSES = ("no_aux", "aux")


def configs(settings: StudySettings) -> list[TrainingConfig]:
    """The models of all cells and random seeds, by seed."""
    return [
        settings.config(architecture, auxiliary=loss == "aux", seed=seed)
        for seed in settings.seeds
        for architecture in ARCHITECTURES
        for loss in _LOSSES
    ]


def run(runs: Runs, settings: StudySettings) -> Json:
    """Cells `{architecture: {no_aux|aux: {mean, spread, seeds}}}`: metrics as fractions, also of each seed."""
    cells: Json = {}
    for architecture in ARCHITECTURES:
        cells[architecture] = {}
        for loss in _LOSSES:
            models = [settings.config(architecture, auxiliary=loss == "aux", seed=seed) for seed in settings.seeds]
            cells[architecture][loss] = averaged([runs.get(model).beam(settings.search) for model in models])
    return {"search": asdict(settings.search), "seeds": list(settings.seeds), "cells": cells}


def averaged(seeds: list[dict[str, float | None]]) -> Json:
    """Mean and sample standard deviation of each metric over the random seeds."""
    return {
        "mean": {metric: mean(seed[metric] for seed in seeds) for metric in METRICS},
        "spread": {metric: spread(seed[metric] for seed in seeds) for metric in METRICS},
        "seeds": seeds,
    }


def headline(result: Json, data: str) -> dict[str, Json]:
    """`table3`: means; `table3_spread`: sample standard deviations, null with one random seed."""

    def part(name: str) -> Json:
        cells = result["cells"]
        return {data: {KEYS[row]: {loss: cells[row][loss][name] for loss in _LOSSES} for row in ARCHITECTURES}}

    return {"table3": part("mean"), "table3_spread": part("spread"), "table3_seeds": result["seeds"]}


def markdown(result: Json) -> str:
    """The table, with a column of the paper's results on UserBehavior, and a sentence."""
    header = ["model", "auxiliary loss", "recall-all", "recall-retrieval", "recall-Δ", "coverage", "items scored"]
    rows = []
    for architecture in ARCHITECTURES:
        for loss in _LOSSES:
            cell = result["cells"][architecture][loss]
            values = [percent_spread(cell["mean"][metric], cell["spread"][metric]) for metric in METRICS]
            paper = USERBEHAVIOR_TABLE3[architecture][loss]
            values.append(" / ".join(percent(value, places) for value, places in zip(paper, (1, 1, 2), strict=True)))
            rows.append([TITLES[architecture], "with" if loss == "aux" else "without", *values])
    search, seeds = result["search"], len(result["seeds"])
    spread_of = f"means over {seeds} random seeds ± sample standard deviation in percentage points"
    return (
        f"Top {search['top_k']}, {search_in_words(search)}; {spread_of if seeds > 1 else 'one random seed'}. The last "
        "column shows the paper's results on UserBehavior: recall-all / recall-retrieval / recall-Δ.\n\n"
        f"{table([*header, 'paper'], rows)}\n\n{_reading(result['cells'])}"
    )


def _reading(cells: Json) -> str:
    best = max(ARCHITECTURES, key=lambda row: cells[row]["aux"]["mean"]["recall_all"])
    attention = cells["attention"]
    before, after = (attention[loss]["mean"]["coverage"] for loss in _LOSSES)
    return (
        f"With the auxiliary loss, {TITLES[best]} has the highest recall-all. For DNN with attention, the auxiliary "
        f"loss changes coverage from {percent(before)} to {percent(after)}."
    )


STUDY = Study(
    "table3",
    "Table 3: architectures and the auxiliary loss",
    run,
    markdown,
    headline=headline,
    configs=configs,
    inputs=lambda settings: {"search": asdict(settings.search), "seeds": settings.seeds},
)
