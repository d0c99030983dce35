"""The text and tables of the study `worth`."""

from __future__ import annotations

from collections.abc import Mapping

from ..baselines.compare import LABELS
from ..reports.machine import in_words
from ..reports.store import Json
from ..reports.text import MISSING, percent, percent_spread, spread, table
from .worth_forms import ABLATIONS
from .worth_models import METRICS

HEADERS = {"recall_20": "recall@20", "recall_200": "recall@200", "ndcg_20": "NDCG@20"}
METHODS = {"deep": "deep model", "two_sided": "its two-sided form, trained by itself"}
_INTRODUCTION = """The deep model is that of `nann train --config auto`. Its two-sided form is an inner product of a
user and an item vector, trained by itself for as many passes over the data. All methods rank every item for the same
test users with the same histories. Differences are in percentage points, ± the standard error over users, which does
not know how much one training differs from the next. Seconds are those to train a model, and those to fit a baseline
and rank with it."""


def markdown(result: Json) -> str:
    """A section for each data set."""
    return "\n\n".join([_INTRODUCTION, *(_section(name, one) for name, one in result.items())])


def _section(name: str, one: Json) -> str:
    pieces = [f"### {name}", _sentences(one), _methods(one), _classes(one["by_frequency"])]
    if one["ablations"] is not None:
        pieces.append(_ablations(one["ablations"]))
    seeds = [each["seed"] for each in one["deep"]["by_seed"]]
    details = [
        f"{one['users']:,} test users",
        f"{one['items']:,} items",
        "{deep:,} training steps, {two_sided:,} of the two-sided form".format(**one["steps"]),
        f"random seeds {seeds}" if len(seeds) > 1 else f"random seed {seeds[0]}",
    ]
    return "\n\n".join([*pieces, f"<sub>{in_words(one['provenance'], details)}</sub>"])


def _sentences(one: Json) -> str:
    deep, simple, walk = (one[name] for name in ("deep", "two_sided", "walk"))
    lines = []
    for metric, best in {"recall_20": one["best_baseline_20"], "recall_200": one["best_baseline"]}.items():
        margins = one["margins"][metric]
        lines.append(
            f"- {HEADERS[metric]} of the deep model is {percent(deep[metric])}: {_times(deep, best, metric)} the best "
            f"baseline's ({LABELS[best['name']]}; {_points(margins['best_baseline'])}) and "
            f"{_times(deep, simple, metric)} its two-sided form's ({_points(margins['two_sided'])})."
        )
    lines.append(
        f"- The walk, tuned on validation users for a coverage of {percent(walk['wanted'], 1)}, covers "
        f"{percent(walk['coverage'])} of the exact top 200 and scores {percent(walk['share_scored'])} of the items; "
        f"recall-Δ is {percent(walk['recall_delta'])}."
    )
    return "\n".join(lines)


def _times(one: Json, other: Json, metric: str) -> str:
    return f"{one[metric] / other[metric]:.2f} times" if other[metric] else "beside a 0 of"


def _points(margin: Json) -> str:
    """A difference in percentage points, with its standard error."""
    error = margin["standard_error"]
    return f"{100 * margin['difference']:+.2f}" + ("" if error is None else f" ± {100 * error:.2f}")


def _methods(one: Json) -> str:
    rows = []
    for name, label in METHODS.items():
        by_seed = one[name]["by_seed"]
        spreads = {metric: spread(each[metric] for each in by_seed) for metric in METRICS}
        rows.append(_row(label, one[name], spreads))
        if len(by_seed) > 1:
            rows += [_row(f"- seed {each['seed']}", each, {}) for each in by_seed]
    rows += [_row(LABELS[name], each, {}) for name, each in one["baselines"].items()]
    return table(["method", *HEADERS.values(), "seconds"], rows)


def _row(label: str, measured: Json, spreads: Mapping[str, float | None]) -> list[str]:
    cells = [percent_spread(measured[metric], spreads.get(metric)) for metric in METRICS]
    return [label, *cells, f"{measured['seconds']:,.1f}"]


def _classes(found: Json) -> str:
    columns = [f"{times} times ({count:,})" for times, count in found["targets"].items()]
    labels = {**LABELS, **METHODS}
    rows = [[labels[name], *map(percent, shares)] for name, shares in found["methods"].items()]
    above = [MISSING if one is None else _points(one) for one in found["deep_above_als"]]
    rows.append(["deep model above ALS, points", *above])
    sentence = "Recall@200 by how often training saw the target, with the number of targets:"
    return f"{sentence}\n\n{table(['method', *columns], rows)}"


def _ablations(ablations: Json) -> str:
    forms = ablations["forms"]
    rows = [
        [ABLATIONS[name], *(percent(one[metric]) for metric in METRICS), percent(one["new"]), f"{one['seconds']:,.1f}"]
        for name, one in forms.items()
    ]
    sentence = f"What each means brings, in trainings of {percent(ablations['share'], 0)} of the steps:"
    return f"{sentence}\n\n{table(['deep model', *HEADERS.values(), 'recall@200, new items', 'seconds'], rows)}"
