"""Figure 5: recall and coverage after each round of the ground layer."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from nann.metrics import coverage, share_scored
from nann.search_params import SearchParams

from ..reports.plots import BLUE, GREY, figure, line, percent_axis
from ..reports.store import Json
from ..reports.text import listing, percent
from ..search.ground_rounds import GroundRounds, search_by_ground_round
from ..search.measured_users import USER_BLOCK
from .curves import search_in_words
from .runs import Runs, TrainedRun, fit_params
from .settings import StudySettings
from .study import Study

_COLUMNS = {
    "round": "{round}",
    "recall": "{recall:.2%}",
    "coverage": "{coverage:.2%}",
    "items scored": "{share_scored:.2%}",
}


def by_round(model: TrainedRun, params: SearchParams) -> GroundRounds:
    """`search_by_ground_round` for all users, in batches."""
    index, users = model.bundle.index, model.users
    parts = [
        search_by_ground_round(index, model.scorer, users.take(rows), params)
        for rows in np.split(np.arange(len(users)), range(USER_BLOCK, len(users), USER_BLOCK))
    ]
    return GroundRounds(*(np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True)))


def run(runs: Runs, settings: StudySettings) -> Json:
    """`rounds`: recall, coverage and items scored after each round, as fractions; `recall_all`: exhaustive scoring."""
    model = runs.get(settings.config())
    params = fit_params(_search(settings), model.bundle.graph)
    users = model.users.cut(params.top_k)
    found = by_round(model, params)
    points = [
        {
            "round": number,
            "recall": users.recall(items),
            "coverage": coverage(items, users.exact),
            "share_scored": share_scored(scored, model.data.item_count),
        }
        for number, (items, scored) in enumerate(zip(found.items, found.items_scored, strict=True), start=1)
    ]
    return {"search": asdict(params), "recall_all": users.recall(users.exact), "rounds": points}


def _search(settings: StudySettings) -> SearchParams:
    return replace(settings.search, rounds=(*settings.search.rounds[:-1], settings.ground_rounds))


def plot(result: Json, path: Path) -> None:
    """Plots recall on the left and coverage on the right."""
    rounds = [point["round"] for point in result["rounds"]]
    exhaustive = {"recall": result["recall_all"], "coverage": 1.0}
    with figure(path, "What each round of the ground layer adds", panels=2) as panels:
        for axes, (metric, best) in zip(panels, exhaustive.items(), strict=True):
            line(axes, rounds, [100 * point[metric] for point in result["rounds"]], "beam-retrieval", BLUE)
            axes.axhline(100 * best, color=GREY, linestyle="--", linewidth=1.2, label="exhaustive scoring")
            axes.set_xlabel("round of the ground layer")
            axes.set_xticks(rounds)
            percent_axis(axes.yaxis, f"{metric}@{result['search']['top_k']}")
            axes.legend(loc="lower right")


def markdown(result: Json) -> str:
    """A sentence and the values by round."""
    points = result["rounds"]
    final = points[-1]["coverage"]
    enough = next(point for point in points if final - point["coverage"] < 0.005)
    sentence = (
        f"Coverage is {percent(points[0]['coverage'])} after the first round of the ground layer and comes within half "
        f"a percentage point of its final {percent(final)} in round {enough['round']}."
    )
    return f"{sentence} Search: {search_in_words(result['search'])}.\n\n{listing(points, _COLUMNS)}"


STUDY = Study(
    "figure5",
    "Figure 5: rounds of the ground layer",
    run,
    markdown,
    {"figure5_rounds.png": plot},
    inputs=lambda settings: {"search": asdict(_search(settings))},
)
