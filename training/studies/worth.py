"""Does the deep model pay? The configuration `auto` beside its two-sided form and the baselines, by data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from nann.packages import find_package

from ..auto_config import auto_config
from ..baselines.by_frequency import CLASSES, count_targets, frequency_classes
from ..baselines.compare import Comparison, best_baseline
from ..config import TrainingConfig
from ..data.prepared import PreparedData, Queries
from ..reports.store import Json
from ..reports.text import mean
from .measures.paired import Found, class_differences, recall_difference
from .runs import Runs
from .settings import SPLIT, StudySettings
from .study import Study
from .worth_forms import Form, ablated, two_sided
from .worth_models import MEASURES, TOP_KS, WALK, WorthModels
from .worth_text import markdown

_MADE = ("command", "machine", "versions", "date", "took_s")
_HEADLINE = ("deep", "two_sided", "best_baseline", "best_baseline_20", "margins", "walk", "by_frequency", "ablations")


def _inputs(settings: StudySettings) -> Json:
    return {"seeds": settings.seeds, **asdict(settings.worth)}


def _data_inputs(data: PreparedData) -> dict[str, Json]:
    return {"auto": auto_config(data).config.fingerprint}


def run(runs: Runs, settings: StudySettings) -> Json:
    """The measures of one data set, as means over the random seeds and for each of them."""
    find_package("implicit")  # fails before the training, not after
    data, worth = runs.data, settings.worth
    choice = auto_config(data)
    autos = [choice.config.override(seed=seed) for seed in settings.seeds]
    share = 1.0 if worth.steps is None else worth.steps / choice.config.steps
    deep = [Form("deep", auto, data).for_share(share) for auto in autos]
    simple = [two_sided(auto, data).for_share(share) for auto in autos]
    queries = data.queries(SPLIT, choice.config.model.sequence_length, worth.users)
    models = WorthModels(runs, Comparison(data, queries, TOP_KS))
    served = [models.served(form, worth.coverage, worth.max_share) for form in deep]
    measured = {"deep": served, "two_sided": [models.lists(form) for form in simple]}
    baselines = models.baselines()
    best = {metric: best_baseline(baselines, metric) for metric in ("recall_20", "recall_200")}
    compared = {**measured, **{name: [one] for name, one in baselines.items()}}
    return {
        "items": data.item_count,
        "users": len(queries.users),
        "chosen": list(choice.reasons),
        "steps": {"deep": deep[0].config.steps, "two_sided": simple[0].config.steps},
        **{name: _averaged(each, MEASURES, settings.seeds) for name, each in measured.items()},
        "baselines": {name: _values(one) for name, one in baselines.items()},
        "best_baseline": {"name": best["recall_200"], **_values(baselines[best["recall_200"]])},
        "best_baseline_20": {"name": best["recall_20"], **_values(baselines[best["recall_20"]])},
        "margins": _margins(compared, queries, best),
        "walk": {"wanted": worth.coverage, **_averaged([one["walk"] for one in served], WALK, settings.seeds)},
        "by_frequency": _by_frequency(compared, queries, data),
        "ablations": None if worth.ablations is None else _ablations(models, autos[0], share * worth.ablations),
    }


def _averaged(measured: Sequence[Json], names: Sequence[str], seeds: Sequence[int]) -> Json:
    by_seed = [{"seed": seed, **{name: one[name] for name in names}} for seed, one in zip(seeds, measured, strict=True)]
    return {**{name: mean(one[name] for one in measured) for name in names}, "by_seed": by_seed}


def _margins(compared: Mapping[str, Sequence[Json]], queries: Queries, best: Mapping[str, str]) -> Json:
    """By metric: how much the recall of the deep model is above the best baseline's and its two-sided form's."""
    margins: Json = {}
    for metric, name in best.items():
        deep, *others = (_found(compared[one], metric) for one in ("deep", name, "two_sided"))
        baseline, simple = (recall_difference(deep, other, queries.target_indptr) for other in others)
        margins[metric] = {"best_baseline": baseline, "two_sided": simple}
    return margins


def _by_frequency(compared: Mapping[str, Sequence[Json]], queries: Queries, data: PreparedData) -> Json:
    """Recall@200 by class, and how much that of the deep model is above that of ALS."""
    deep, als = (_found(compared[name], "recall_200") for name in ("deep", "als"))
    classes = frequency_classes(queries.target_items, data.train_counts)
    counts = count_targets(queries.target_items, data.train_counts)
    by_class = {name: zip(*(one["by_frequency"] for one in each), strict=True) for name, each in compared.items()}
    return {
        "targets": dict(zip(CLASSES, counts, strict=True)),
        "methods": {name: [mean(values) for values in shares] for name, shares in by_class.items()},
        "deep_above_als": class_differences(deep, als, queries.target_indptr, classes, len(CLASSES)),
    }


def _found(measured: Sequence[Json], metric: str) -> Found:
    """The share of a method's models that found each target, `float64[T]`."""
    found: Found = np.mean([one[metric.replace("recall", "found")] for one in measured], axis=0)
    return found


def _ablations(models: WorthModels, auto: TrainingConfig, share: float) -> Json:
    """By name: the measures of a short training, with `new`, the recall@200 of items that training did not see."""
    forms: Json = {}
    for form in ablated(auto, models.runs.data):
        one = models.lists(form.for_share(share))
        forms[form.name] = {**_values(one), "new": one["by_frequency"][0]}
    return {"share": share, "forms": forms}


def _values(measured: Json) -> Json:
    return {name: measured[name] for name in MEASURES}


def joined(stored: Json, entry: Json) -> Json:
    """The entry with the results of all data sets by name, each with its provenance; replaces an older one."""
    provenance = {key: value for key, value in entry["provenance"].items() if key in _MADE}
    earlier = {} if stored is None else stored["result"]
    result = {**earlier, entry["data"]: {**entry["result"], "provenance": provenance}}
    return {"data": list(result), "result": result}


def headline(result: Json, data: str) -> dict[str, Json]:
    """`worth`: the measures of each data set, with machine and date."""
    return {
        "worth": {
            name: {
                **{key: one[key] for key in _HEADLINE},
                **{key: one["provenance"][key] for key in ("machine", "date")},
            }
            for name, one in result.items()
        }
    }


STUDY = Study(
    "worth",
    "Does the deep model pay?",
    run,
    markdown,
    headline=headline,
    joined=joined,
    configs=lambda settings: [],  # the data set chooses them
    inputs=_inputs,
    data_inputs=_data_inputs,
)
