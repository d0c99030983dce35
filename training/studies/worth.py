"""Does the deep model pay? The configuration `auto` beside its two-sided form and the baselines, by data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from nann.packages import find_package

from ..auto_config import auto_config
from ..baselines.by_frequency import CLASSES, count_targets
from ..baselines.compare import Comparison, best_baseline
from ..config import TrainingConfig
from ..data.prepared import PreparedData
from ..reports.store import Json
from ..reports.text import mean
from .runs import Runs
from .settings import SPLIT, StudySettings
from .study import Study
from .worth_forms import Form, ablated, two_sided
from .worth_models import MEASURES, TOP_KS, WALK, WorthModels
from .worth_text import markdown

_MADE = ("command", "machine", "versions", "date", "took_s")
_HEADLINE = ("deep", "two_sided", "best_baseline", "walk", "by_frequency", "ablations")


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
    served = [models.served(form, worth.coverage) for form in deep]
    measured = {"deep": served, "two_sided": [models.lists(form) for form in simple]}
    baselines = models.baselines()
    best, best_20 = (best_baseline(baselines, metric) for metric in ("recall_200", "recall_20"))
    targets = count_targets(queries.target_items, data.train_counts)
    return {
        "items": data.item_count,
        "users": len(queries.users),
        "chosen": list(choice.reasons),
        "steps": {"deep": deep[0].config.steps, "two_sided": simple[0].config.steps},
        **{name: _averaged(each, settings.seeds) for name, each in measured.items()},
        "baselines": {name: _values(one) for name, one in baselines.items()},
        "best_baseline": {"name": best, **_values(baselines[best])},
        "best_baseline_20": {"name": best_20, **_values(baselines[best_20])},
        "walk": {"wanted": worth.coverage, **_walk([one["walk"] for one in served], settings.seeds)},
        "by_frequency": {
            "targets": dict(zip(CLASSES, targets, strict=True)),
            **{name: _mean_classes(each) for name, each in measured.items()},
            **{name: one["by_frequency"] for name, one in baselines.items()},
        },
        "ablations": None if worth.ablations is None else _ablations(models, autos[0], share * worth.ablations),
    }


def _ablations(models: WorthModels, auto: TrainingConfig, share: float) -> Json:
    """By name: the measures of a short training, with `new`, the recall@200 of items that training did not see."""
    found: Json = {}
    for form in ablated(auto, models.runs.data):
        one = models.lists(form.for_share(share))
        found[form.name] = {**_values(one), "new": one["by_frequency"][0]}
    return {"share": share, "forms": found}


def _values(measured: Json) -> Json:
    return {name: measured[name] for name in MEASURES}


def _averaged(measured: Sequence[Json], seeds: Sequence[int]) -> Json:
    means = {name: mean(one[name] for one in measured) for name in MEASURES}
    by_seed = [{"seed": seed, **_values(one)} for seed, one in zip(seeds, measured, strict=True)]
    return {**means, "by_seed": by_seed}


def _walk(walks: Sequence[Json], seeds: Sequence[int]) -> Json:
    means = {name: mean(one[name] for one in walks) for name in WALK}
    return {**means, "by_seed": [{"seed": seed, **one} for seed, one in zip(seeds, walks, strict=True)]}


def _mean_classes(measured: Sequence[Json]) -> list[float | None]:
    return [mean(each) for each in zip(*(one["by_frequency"] for one in measured), strict=True)]


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
