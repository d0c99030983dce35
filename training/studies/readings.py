"""Compares two readings of the auxiliary loss: eq. 5 as printed, and the authors' public code."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from ..config import TrainingConfig
from ..reports.plots import BLUE, GREY, ORANGE, figure, percent_axis
from ..reports.store import Json
from ..reports.text import mean, percent, percent_spread, table
from .figure6 import score_changes, summary
from .runs import Runs
from .settings import StudySettings
from .study import Study
from .table3 import METRICS, averaged

READINGS = {"none": "without", "eq5": "eq. 5 as printed", "row_kl": "KL over the row, as the authors' code"}
_WHY = {
    "row_kl": (
        "its softmax over a user's candidates ignores a shift of all scores, as every search does. Its unperturbed "
        "side is held fixed, so the loss falls only if the scores become flatter. The sum of s log(s / s') in eq. 5 "
        "is not normalised, and also falls if the perturbed scores rise"
    ),
    "eq5": "it is what the paper prints",
}


def configs(settings: StudySettings) -> list[TrainingConfig]:
    """DNN with attention, one model per reading and random seed."""
    return [settings.config(reading=reading, seed=seed) for seed in settings.seeds for reading in READINGS]


def _inputs(settings: StudySettings) -> Json:
    return {"search": asdict(settings.search), "seeds": settings.seeds, "epsilon": settings.epsilon}


def run(runs: Runs, settings: StudySettings) -> Json:
    """`readings`: for each, mean and spread of the metrics and the mean relative score change (Figure 6)."""
    readings: Json = {}
    for reading in READINGS:
        models = [runs.get(settings.config(reading=reading, seed=seed)) for seed in settings.seeds]
        changes = [
            summary(*score_changes(model, settings.search.top_k, settings.epsilon))["median_relative"]
            for model in models
        ]
        readings[reading] = {
            **averaged([model.beam(settings.search) for model in models]),
            "relative_score_change": mean(changes),
        }
    return {
        "default": settings.base.loss.auxiliary.reading,
        "epsilon": settings.epsilon,
        "seeds": list(settings.seeds),
        "readings": readings,
    }


def plot(result: Json, path: Path) -> None:
    """Plots recall-retrieval on the left and coverage on the right: the mean per reading, with its spread."""
    marks = {"none": ("none", GREY), "eq5": ("eq. 5", ORANGE), "row_kl": ("row KL", BLUE)}
    with figure(path, "The two readings of the auxiliary loss", panels=2) as panels:
        for axes, metric in zip(panels, ("recall_retrieval", "coverage"), strict=True):
            for place, (reading, (_, color)) in enumerate(marks.items()):
                cell = result["readings"][reading]
                value, error = 100 * cell["mean"][metric], 100 * (cell["spread"][metric] or 0.0)
                axes.errorbar(place, value, yerr=error or None, fmt="o", markersize=9, capsize=5, color=color)
                axes.annotate(f"{value:.2f}", (place, value), xytext=(10, -4), textcoords="offset points")
            axes.set_xticks(range(len(READINGS)), [name for name, _ in marks.values()])
            axes.set_xlim(-0.5, len(READINGS) - 0.2)
            axes.set_xlabel("auxiliary loss")
            percent_axis(axes.yaxis, metric.replace("_", "-"))


def markdown(result: Json) -> str:
    """The default reading and the reason for it, then the table."""
    rows = []
    for reading, title in READINGS.items():
        cell = result["readings"][reading]
        values = [percent_spread(cell["mean"][metric], cell["spread"][metric]) for metric in METRICS]
        rows.append([title, *values, percent(cell["relative_score_change"], 3)])
    metrics = ["recall-all", "recall-retrieval", "recall-Δ", "coverage", "items scored"]
    header = ["auxiliary loss", *metrics, "score change / spread"]
    return f"{_reading(result)}\n\n{table(header, rows)}"


def _reading(result: Json) -> str:
    means = {reading: cell["mean"] for reading, cell in result["readings"].items()}
    better = {
        metric: max(("eq5", "row_kl"), key=lambda reading: means[reading][metric])
        for metric in ("recall_retrieval", "coverage")
    }
    seeds = "one random seed" if len(result["seeds"]) == 1 else f"{len(result['seeds'])} random seeds"
    default = result["default"]
    return (
        f"eps {result['epsilon']:g}, {seeds}. The defaults take `{default}`: {_WHY[default]}. Of the two, "
        f"`{better['recall_retrieval']}` has the higher recall-retrieval here and `{better['coverage']}` the higher "
        "coverage."
    )


STUDY = Study(
    "readings",
    "Both readings of the auxiliary loss",
    run,
    markdown,
    {"auxiliary_readings.png": plot},
    configs=configs,
    inputs=_inputs,
)
