"""The Markdown report: every study's tables, plots and a sentence of reading."""

from __future__ import annotations

from ..reports.store import Json
from .provenance import in_words
from .registry import STUDIES

_INTRODUCTION = """# Experiments

Section 5 of the [paper](https://arxiv.org/abs/2202.10226) on {data}; written by `nann experiments`, numbers also in
[experiments.json](experiments.json). recall-all is the recall of scoring every item, recall-retrieval that of the
search, recall-Δ the share of it that the search loses, coverage the share of the exhaustive top list that the search
finds, items scored its cost as a share of the corpus. Ground truth is what a test user did next.
"""
_ABOUT = {
    "complete_journey": "Complete Journey (a year of grocery baskets, simulated from real shopping patterns)",
    "userbehavior": "Taobao's UserBehavior",
}


def report(body: Json) -> str:
    """The whole report for the body of experiments.json; studies without a result are left out."""
    stored = [(study, body["studies"][study.name]) for study in STUDIES if study.name in body["studies"]]
    names = dict.fromkeys(entry["data"] for _, entry in stored)
    parts = [_INTRODUCTION.format(data=" and ".join(_ABOUT.get(name, name) for name in names))]
    for study, entry in stored:
        images = "\n\n".join(f"![{study.title}]({name})" for name in study.plots)
        made = f"<sub>{in_words(entry['provenance'])}</sub>"
        sections = (f"## {study.title}", study.markdown(entry["result"]), images, made)
        parts.append("\n\n".join(section for section in sections if section) + "\n")
    return "\n".join(parts)
