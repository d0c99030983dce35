"""The cost of coverage: searches tuned on validation users, as by `nann tune`, and measured on test users."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..reports.plots import COLORS, figure, plain_log
from ..reports.store import Json
from ..reports.text import percent, table
from ..search.tuning_search import tune_every_entry
from ..search.tuning_trials import Aim
from .runs import Runs
from .settings import StudySettings
from .study import Study

_SPLIT = "validation"
_MAX_SHARE = 0.2
"""Largest share of the corpus that a search may score."""
_HEADLINE = ("coverage", "recall_delta", "share_scored")


def _inputs(settings: StudySettings) -> Json:
    return {"top_k": settings.search.top_k, "coverages": settings.tuned_coverages, "users": settings.tuned_users}


def run(runs: Runs, settings: StudySettings) -> Json:
    """`points`: `validation` and `test` measures per wanted coverage, ascending; `missed`: coverages not reached."""
    model = runs.get(settings.config())
    top_k = settings.search.top_k
    queries = runs.data.queries(_SPLIT, model.config.model.sequence_length, settings.tuned_users)
    users = model.measured(queries, top_k)
    points, missed = [], []
    for wanted in settings.tuned_coverages:
        runs.say(f"tuning for {percent(wanted, 1)} coverage on {len(users)} validation users")
        pick = tune_every_entry(model.bundle.index, model.scorer, users, Aim(wanted), max_share=_MAX_SHARE).best
        if pick is None:
            missed.append(wanted)
        else:
            points.append({"wanted": wanted, "validation": pick.summary(), "test": model.beam(pick.params)})
    return {"top_k": top_k, "users": len(users), "points": points, "missed": missed}


def headline(result: Json, data: str) -> dict[str, Json]:
    """`tuned`: the measures on test users for the highest coverage reached."""
    if not result["points"]:
        return {}
    test = result["points"][-1]["test"]
    return {"tuned": {name: test[name] for name in _HEADLINE}}


def markdown(result: Json) -> str:
    """A sentence, and a table with one row per wanted coverage."""
    columns = ("coverage, validation", "coverage, test", "recall-Δ, test", "items scored, test")
    header = ["wanted", "entry", "ef", "rounds", *columns]
    rows = []
    for point in result["points"]:
        chosen, test = point["validation"], point["test"]
        seeds = chosen.get("seeds")
        rows.append(
            [
                percent(point["wanted"]),
                chosen["entry"] if seeds is None else f"{seeds['count']} seeds",
                *(" ".join(map(str, chosen[name])) for name in ("ef", "rounds")),
                *(percent(value) for value in (chosen["coverage"], test["coverage"])),
                *(percent(test[name]) for name in ("recall_delta", "share_scored")),
            ]
        )
    sentence = (
        f"The search is the cheapest that reaches the wanted coverage of the exact top {result['top_k']} for "
        f"{result['users']} validation users. It is then measured on the test users."
    )
    if result["missed"]:
        unreached = " and ".join(percent(wanted, 1) for wanted in result["missed"])
        sentence += f" No search that scores at most {percent(_MAX_SHARE, 0)} of the items reached {unreached}."
    return f"{sentence}\n\n{table(header, rows)}"


def plot(result: Json, path: Path) -> None:
    """Plots coverage against share scored, on test users and on validation users."""
    points = result["points"]
    with figure(path) as (axis,):
        for split, style in (("test", {"color": COLORS[0], "marker": "o"}), ("validation", {"color": COLORS[1]})):
            shares, covers = (
                100 * np.array([point[split][name] for point in points]) for name in ("share_scored", "coverage")
            )
            axis.plot(shares, covers, label=f"{split} users", linestyle="-" if split == "test" else ":", **style)
        plain_log(axis, "x")
        axis.set_xlabel("share of the items scored (%)")
        axis.set_ylabel(f"coverage@{result['top_k']} (%)")
        axis.set_title("What coverage costs, tuned on validation users")
        axis.legend()


STUDY = Study("tuned", "The tuned search", run, markdown, {"tuned.png": plot}, headline, inputs=_inputs)
