"""The Markdown report of a perf.json: the headline figures, then every benchmark's tables and plots."""

from __future__ import annotations

from ..training.reports.text import MISSING, table
from .benchmark import Json
from .headlines import HEADLINES, value_at
from .suite import BENCHMARKS

_INTRODUCTION = """# Serving speed

Written by `nann bench`, numbers also in [perf.json](perf.json). Two corpora. Complete Journey is a year of grocery
baskets, simulated from real shopping patterns. The other is synthetic, made in the setting of the
[paper](https://arxiv.org/abs/2202.10226)'s Table 1: three layers, ef {200, 500, 1000}, rounds {1, 1, 2}, the paper's
network, trained briefly so that its scores have a structure. Requests are real histories of test users through
Triton's perf_analyzer. Times on a machine that does other things too are noisy: alternatives take turns within one run
and are compared as ratios. Coverage is the share of the exhaustive top list that the search finds, recall that of what
the user did next; both are those of the search that was timed.
"""


def report(body: Json) -> str:
    """The whole report for the body of perf.json; benchmarks without a result are left out."""
    parts = [_INTRODUCTION, headline_table(body) + "\n"]
    for benchmark in BENCHMARKS:
        stored = body.get("benchmarks", {}).get(benchmark.name)
        if stored is None:
            continue
        images = "\n\n".join(f"![{benchmark.title}]({name})" for name in benchmark.plots)
        made = f"<sub>{in_words(stored['provenance'])}</sub>"
        try:
            text = benchmark.markdown(stored["result"])
        except (KeyError, TypeError):  # a perf.json may be older than the benchmark
            text = f"Measured by another version; `nann bench --only {benchmark.name}` measures it again."
        sections = (f"## {benchmark.title}", text, images, made)
        parts.append("\n\n".join(section for section in sections if section) + "\n")
    return "\n".join(parts)


def headline_table(body: Json) -> str:
    """Every headline figure with its goal."""
    rows = []
    for headline in HEADLINES:
        value = value_at(body, headline.key)
        rows.append([headline.words, MISSING if value is None else f"{value:,.2f}", headline.goal])
    return table(["", "measured", "goal"], rows)


def in_words(made: Json) -> str:
    """One line of provenance."""
    where = made["machine"]
    settings = made["settings"]
    parts = [
        f"`{made['command']}`",
        ", ".join(f"{name} {corpus['items']:,} items ({corpus['id']})" for name, corpus in made["corpora"].items()),
        f"{settings['users']} test users, windows of {settings['window_s']:g} s, {settings['repeats']} repeats",
        f"{where['cpu']}, {where['cores']} cores" + (f", {where['gpu']}" if where["gpu"] else ", no GPU"),
        ", ".join(f"{name} {number}" for name, number in made["versions"].items()),
        f"{made['date']}, {made['took_s']} s",
    ]
    return "; ".join(parts)
