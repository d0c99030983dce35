"""NANN beside common retrievers: the models and users for `measures.other_retrievers`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from nann.manifest import search_to_json
from nann.search_params import SearchParams

from ..baselines.plain import Popular
from ..config import TrainingConfig
from ..reports.store import Json
from ..reports.text import percent
from ..search.recommended import seeded_search
from .curves import frontier
from .measures import other_retrievers
from .runs import Runs, TrainedRun, fit_params
from .settings import SPLIT, StudySettings
from .study import Study


def configs(settings: StudySettings) -> list[TrainingConfig]:
    """The judge, and the two-sided model of the cascade, trained without the auxiliary loss as is usual."""
    return [settings.config(), settings.config("two_sided", auxiliary=False)]


def _inputs(settings: StudySettings) -> Json:
    walks = [asdict(params) for params in (settings.search, *settings.beam_sweep(), *settings.seeded_sweep())]
    return {"walks": walks, "budgets": settings.budgets, "histories": settings.histories}


def run(runs: Runs, settings: StudySettings) -> Json:
    """The result of `other_retrievers.run`, with the curves of beam-retrieval from the sweeps of Figure 3."""
    judge, two_sided = (runs.get(config) for config in configs(settings))
    data, top_k = runs.data, settings.search.top_k
    result = other_retrievers.run(
        index=judge.bundle.index,
        scorer=judge.scorer,
        users=judge.users.cut(top_k),
        item_vectors=judge.bundle.item_vectors,
        # The user state of a two-sided model is its user vector.
        two_tower=other_retrievers.TwoTower(two_sided.states, two_sided.bundle.item_vectors),
        popular=Popular.fit(data),
        histories={length: data.queries(SPLIT, length, settings.users).behaviors for length in settings.histories},
        tuned=fit_params(settings.search, judge.bundle.graph),
        budgets=settings.budgets,
    )
    others = {name: points for name, points in result["curves"].items() if name != "nann"}
    curves = {"nann": _walks(judge, settings.beam_sweep(), result["curves"]["nann"])}
    if judge.bundle.light_vectors is not None:
        recommended = seeded_search(top_k, data.item_count)
        (point,) = _walks(judge, [recommended], [])
        curves["nann_seeded"] = _walks(judge, settings.seeded_sweep(), [point])
        result["baselines"] = {"nann": result["baselines"].pop("nann"), "nann_seeded": point, **result["baselines"]}
    return {**result, "curves": {**curves, **others}}


def _walks(judge: TrainedRun, sweep: Sequence[SearchParams], measured: list[Json]) -> list[Json]:
    """The frontier of a sweep and the points measured before, by evaluations."""
    swept = [{"params": params, **judge.beam(params)} for params in sweep]
    points = [
        {
            "evaluations": point["items_scored"],
            "recall": point["recall_retrieval"],
            "coverage": point["coverage"],
            **{name: value for name, value in search_to_json(point["params"]).items() if name != "top_k"},
        }
        for point in frontier(swept, "coverage")
    ]
    return sorted([*measured, *points], key=lambda point: point["evaluations"])


def markdown(result: Json) -> str:
    """A sentence and the table."""
    methods = result["baselines"]
    walk, cascade = methods["nann"], methods["cascade"]
    seeded = ""
    if (ours := methods.get("nann_seeded")) is not None:
        seeded = f" The walk entered by seeds covers {percent(ours['coverage'])} at {ours['evaluations']:,.0f}."
    plain = max((name for name in methods if name.startswith("personal")), key=lambda name: methods[name]["recall"])
    sentence = (
        f"At {walk['evaluations']:,.0f} scorer evaluations per user the paper's walk covers "
        f"{percent(walk['coverage'])} of the exact top {result['top_k']}, and the cascade "
        f"{percent(cascade['coverage'])}.{seeded} The recall of the paper's walk is {percent(walk['recall'])}. The "
        f"best recall of the user's own most frequent items is {percent(methods[plain]['recall'])} "
        f"({other_retrievers.LABELS.get(plain, plain)})."
    )
    return f"{sentence}\n\n{other_retrievers.table(result)}"


STUDY = Study(
    "baselines",
    "What people use today, with the same scorer as judge",
    run,
    markdown,
    {"baselines.png": other_retrievers.plot},
    lambda result, data: {"baselines": result["baselines"]},
    configs=configs,
    inputs=_inputs,
)
