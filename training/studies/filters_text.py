"""The text, tables and plot of the study `filters`."""

from __future__ import annotations

from pathlib import Path

from ..reports.plots import COLORS, MARKERS, figure, plain_log
from ..reports.store import Json
from ..reports.text import MISSING, listing, percent, table
from .measures.filtered import NEGATIVE, POSITIVE, UNCORRELATED

_KINDS = (UNCORRELATED, POSITIVE, NEGATIVE)
_INTRODUCTION = """A filter matches a share of the items. It is drawn without regard to the user (uncorrelated), so
that the user's best item matches 100 times as often as the worst (positive), or so that the worst does (negative).
"and" joins two uncorrelated filters of 20% each; "and, opposed" a positive and a negative one of 20% each. Coverage is
that of the exact list of the items that match. Evaluations are scorer calls per item, and times are of the processor,
one user at a time, each beside the same search without a filter; the filter's set is compiled before. Where all
items that match are scored, the answer is exact. The model of the log is that of `nann train --config auto`, in all of
its steps; the planted corpus has a scorer of its own."""


def markdown(result: Json) -> str:
    """A section for each corpus, and one for databases."""
    sections = [_corpus(corpus, result["top_k"]) for corpus in result["corpora"]]
    return "\n\n".join([_INTRODUCTION, *sections, _databases(result["databases"], result["top_k"])])


def _corpus(corpus: Json, top_k: int) -> str:
    plain = corpus["unfiltered"]
    columns = {
        f"coverage@{top_k}": "{coverage:.2%}",
        "evaluations": "{evaluations:,.0f}",
        "of unfiltered": "{evaluations_ratio:.2f}",
        "p50": "{p50_ms:.2f} ms",
        "p50 of unfiltered": "{p50_ratio:.2f}",
        "all scored": "{all_scored:.0%}",
    }
    first = {"filter": "{correlation}, {selectivity:.2%}", "matching": "{matching:,.0f}"}
    pieces = [
        f"### {corpus['corpus']}: {corpus['items']:,} items",
        f"{corpus['users']} users. Without a filter the search covers {percent(plain['coverage'])} with "
        f"{plain['evaluations']:,.0f} evaluations.",
        listing(corpus["entries"], {**first, **columns}),
    ]
    if corpus["attributes"]:
        texts = [{**each, "filter": f"`{each['filter']}`"} for each in corpus["attributes"]]
        pieces += ["Filters over the items' own attributes:"]
        pieces += [listing(texts, {"filter": "{filter}", "matching": "{matching:,.0f}", **columns})]
    return "\n\n".join(pieces)


def _databases(compared: Json, top_k: int) -> str:
    names = list(compared["versions"])
    if not names:
        return "No vector database is installed: nothing is compared."
    rows = [
        [
            f"{row['correlation']}, {row['selectivity']:.2%}",
            f"{row['ours']['evaluations']:,.0f}",
            percent(row["ours"]["coverage"]),
            *(percent(row[name]["coverage"]) if name in row else MISSING for name in names),
            *(f"{row[name]['p50_ms']:.1f} ms" if name in row else MISSING for name in names),
        ]
        for row in compared["rows"]
    ]
    header = ["filter", "evaluations", "ours", *names, *(f"{name}, search alone" for name in names)]
    versions = ", ".join(f"{name} {number}" for name, number in compared["versions"].items())
    return (
        f"### Beside vector databases\n\n{versions}; {compared['users']} users. Each finds, by the light score's "
        "vectors and under the filter, as many items as our search has scored for that user, and the same scorer ranks "
        "them. usearch takes no predicate in Python: it is asked for more until enough match. "
        f"Coverage@{top_k} of the exact list:\n\n{table(header, rows)}"
    )


def plot(result: Json, path: Path) -> None:
    """Coverage, evaluations and time against selectivity: a line for each correlation on each corpus."""
    panels = (
        ("coverage", f"coverage@{result['top_k']} (%)", 100),
        ("evaluations_ratio", "evaluations of unfiltered", 1),
    )
    with figure(path, panels=3) as axes:
        for axis, (key, label, scale) in zip(axes, (*panels, ("p50_ratio", "p50 of unfiltered", 1)), strict=True):
            for number, corpus in enumerate(result["corpora"]):
                for place, kind in enumerate(_KINDS):
                    points = [each for each in corpus["entries"] if each["correlation"] == kind]
                    axis.plot(
                        [100 * each["selectivity"] for each in points],
                        [scale * each[key] for each in points],
                        color=COLORS[place],
                        marker=MARKERS[place],
                        linestyle=("-", ":")[number % 2],
                        label=f"{corpus['corpus']}, {kind}",
                    )
            plain_log(axis, "x")
            axis.set(xlabel="items that match (%)", ylabel=label)
        axes[0].set_ylim(90, 100.3)
        axes[0].legend(fontsize=7, loc="lower left")
