"""The text and table of the study `fresh`."""

from __future__ import annotations

from ..reports.machine import in_words
from ..reports.store import Json
from ..reports.text import MISSING, percent, percent_spread, table

LABELS = {
    "encoder": "item encoder, trained with id dropout",
    "category_mean": "mean of the category's trained vectors",
    "untrained": "without id dropout: what an untrained id leaves",
    "without_plain": "not in the corpus",
    "without_dropout": "not in the corpus, trained with id dropout",
}
COLUMNS = {
    "recall": "all answers",
    "recall_new": "new items",
    "recall_old": "other items",
    "recall_alone": "new items, listed alone",
}
_IN_ONE_LIST = ("recall_new", "recall_old", "recall")
_INTRODUCTION = """New items are those that no training row has; the answers of test users hold some. The model is that
of `nann train --config auto` in a part of its steps, without id dropout and with it. A new item is placed in one of
these ways, or left out of the corpus, and every item is scored. Recall is a mean over the users with such answers;
"listed alone" ranks new items only, as a list of new arrivals does. ± is the standard deviation over random seeds."""

_BOOSTED = """In one list a new item, as popular as the average one, stands beside the most popular. It gets a place
only if what describes it fits the user well. With a boost on their scores new items take more of the places, or fewer.
At equal shares:"""


def markdown(result: Json) -> str:
    """A section for each data set."""
    return "\n\n".join([_INTRODUCTION, *(_section(name, one) for name, one in result.items())])


def _section(name: str, one: Json) -> str:
    rows = [_row(label, one["methods"][method]) for method, label in LABELS.items()]
    header = ["new items are placed by", *(f"recall@{one['top_k']}, {what}" for what in COLUMNS.values())]
    seeds = [each["seed"] for each in one["methods"]["encoder"]["by_seed"]]
    details = [
        "{users:,} test users".format(**one)
        + " with {new:,} answers that are new and {old:,} others".format(**one["answers"]),
        f"{one['steps']:,} training steps",
        f"id dropout {one['id_dropout']:g}",
        f"random seeds {seeds}" if len(seeds) > 1 else f"random seed {seeds[0]}",
    ]
    return "\n\n".join(
        [
            f"### {name}: {one['new_items']:,} of {one['items']:,} items are new",
            _sentence(one),
            table([*header, "share of the lists"], rows),
            _BOOSTED,
            _boosted(one),
            f"<sub>{in_words(one['provenance'], details)}</sub>",
        ]
    )


def _row(label: str, measured: Json) -> list[str]:
    cells = [percent_spread(measured[key], measured["spread"][key]) if key in measured else MISSING for key in COLUMNS]
    return [label, *cells, percent(measured.get("listed"))]


def _boosted(one: Json) -> str:
    """Recall at each share of the places, of each way to place new items."""
    methods = {name: measured for name, measured in one["methods"].items() if "boosted" in measured}
    rows = [
        [
            LABELS[name],
            percent(each["listed"]),
            f"{each['boost']:+.1f}",
            *(percent(each[key]) for key in _IN_ONE_LIST),
        ]
        for name, measured in methods.items()
        for each in measured["boosted"]
    ]
    header = ["new items are placed by", "share of the lists", "boost", *(COLUMNS[key] for key in _IN_ONE_LIST)]
    return table(header, rows)


def _sentence(one: Json) -> str:
    """What id dropout costs on other items, beside the noise of a training, and what new items are worth."""
    methods, size = one["methods"], one["top_k"]
    plain, dropout, encoder = (methods[name] for name in ("without_plain", "without_dropout", "encoder"))
    change = dropout["recall_old"] - plain["recall_old"]
    noise = plain["spread"]["recall_old"]
    beside = "" if noise is None else f"; one training differs from the next by {100 * noise:.2f} (standard deviation)"
    gain = 100 * (encoder["recall"] - plain["recall"])
    share = one["answers"]["new"] / sum(one["answers"].values())
    return (
        f"Id dropout changes recall of the other items by {100 * change:+.2f} points{beside}. In one list with them, "
        f"new items placed by the encoder change recall of all answers by {gain:+.2f} points. {percent(share)} of the "
        f"answers are new items, and the scores give them {percent(encoder['probability'])} of the probability. A "
        f"user's best new item is {encoder['best']:.2f} times as likely as the last of a list without them. Of new "
        f"items alone, a random list of {size} holds {percent(min(1, size / one['new_items']))}."
    )
