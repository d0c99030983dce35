"""Figure 7: sensitivity to the auxiliary loss's eps, and to K."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from ..config import TrainingConfig
from ..reports.plots import BLUE, GREEN, GREY, ORANGE, figure, line, percent_axis
from ..reports.store import Json
from ..reports.text import listing, percent
from .curves import search_in_words
from .runs import Runs
from .settings import StudySettings
from .study import Study

_COLUMNS = {
    "recall-all": "{recall_all:.2%}",
    "recall-retrieval": "{recall_retrieval:.2%}",
    "coverage": "{coverage:.2%}",
}


def configs(settings: StudySettings) -> list[TrainingConfig]:
    """DNN with attention, one model per eps, first random seed; eps 0: without the auxiliary loss."""
    return [settings.config(epsilon=epsilon) for epsilon in settings.epsilon_sweep()]


def _inputs(settings: StudySettings) -> Json:
    return {"search": asdict(settings.search), "epsilons": settings.epsilon_sweep(), "top_ks": settings.top_ks}


def run(runs: Runs, settings: StudySettings) -> Json:
    """`epsilon`: metrics of the model trained with each eps; `top_k`: metrics of the base model's search for each K.

    All K share one search, whose ground layer's ef is at least the largest K.
    """
    epsilons = []
    for epsilon in settings.epsilon_sweep():
        model = runs.get(settings.config(epsilon=epsilon))
        epsilons.append({"epsilon": epsilon, **model.beam(settings.search)})
    model = runs.get(settings.config())
    search = settings.search
    wide = replace(search, ef=(*search.ef[:-1], max(search.ef[-1], *settings.top_ks)))
    top_ks = [{"top_k": top_k, **model.beam(replace(wide, top_k=top_k))} for top_k in settings.top_ks]
    return {
        "search": asdict(search),
        "default_epsilon": settings.epsilon,
        "epsilon": epsilons,
        "top_k_search": asdict(wide),
        "top_k": top_ks,
    }


def plot_epsilon(result: Json, path: Path) -> None:
    """Plots recalls on the left and coverage on the right; eps is equally spaced, since a log scale has no 0."""
    points = result["epsilon"]
    places = list(range(len(points)))
    default = [point["epsilon"] for point in points].index(result["default_epsilon"])
    top_k = result["search"]["top_k"]
    with figure(path, "Sensitivity to the auxiliary loss's step size", panels=2) as (recalls, coverages):
        for axes, curves in (
            (recalls, (("recall_all", "recall-all", BLUE), ("recall_retrieval", "recall-retrieval", ORANGE))),
            (coverages, (("coverage", "coverage", GREEN),)),
        ):
            for key, label, color in curves:
                line(axes, places, [100 * point[key] for point in points], label, color)
            axes.axvline(default, color=GREY, linestyle="--", linewidth=1.2, label="default")
            axes.set_xticks(places, [f"{point['epsilon']:g}" for point in points])
            axes.set_xlabel(r"$\epsilon$ [units of $e_v$; 0 = no auxiliary loss]")
            axes.legend()
        percent_axis(recalls.yaxis, f"recall@{top_k}")
        percent_axis(coverages.yaxis, f"coverage@{top_k}")


def plot_top_k(result: Json, path: Path) -> None:
    """Plots coverage against K."""
    points = result["top_k"]
    with figure(path, "Coverage of shorter and longer results of the same search") as (axes,):
        line(axes, [point["top_k"] for point in points], [100 * point["coverage"] for point in points], "NANN", BLUE)
        axes.set_xticks([point["top_k"] for point in points])
        axes.set_xlabel("K [items returned]")
        percent_axis(axes.yaxis, "coverage@K")
        axes.legend()


def markdown(result: Json) -> str:
    """Both tables, each after a sentence."""
    points, top_ks = result["epsilon"], result["top_k"]
    best, covered = (max(points, key=lambda point: point[key]) for key in ("recall_retrieval", "coverage"))
    sentence = (
        f"recall-retrieval is highest at eps {best['epsilon']:g} ({percent(best['recall_retrieval'])}), coverage at "
        f"{covered['epsilon']:g} ({percent(covered['coverage'])}); the default is {result['default_epsilon']:g}."
    )
    by_epsilon = listing(points, {"eps": "{epsilon:g}", **_COLUMNS, "items scored": "{share_scored:.2%}"})
    search = search_in_words(result["top_k_search"])
    by_k = (
        f"From K = {top_ks[0]['top_k']} to K = {top_ks[-1]['top_k']} coverage goes from "
        f"{percent(top_ks[0]['coverage'])} to {percent(top_ks[-1]['coverage'])} ({search}, "
        f"{percent(top_ks[0]['share_scored'])} of the items scored)."
    )
    return f"{sentence}\n\n{by_epsilon}\n\n{by_k}\n\n{listing(top_ks, {'K': '{top_k}', **_COLUMNS})}"


STUDY = Study(
    "figure7",
    "Figure 7: sensitivity to eps and K",
    run,
    markdown,
    {"figure7_epsilon.png": plot_epsilon, "figure7_top_k.png": plot_top_k},
    configs=configs,
    inputs=_inputs,
)
