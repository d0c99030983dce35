"""Curves of quality against cost: their frontier, values between measured points, and how they are drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from ..reports.plots import COLORS, MARKERS, plain_log
from ..reports.store import Json


def frontier(points: Iterable[Json], gain: str, cost: str = "share_scored") -> list[Json]:
    """The points whose `gain` exceeds that of every cheaper point, by ascending `cost`."""
    kept: list[Json] = []
    for point in sorted(points, key=lambda point: (point[cost], -point[gain])):
        if not kept or point[gain] > kept[-1][gain]:
            kept.append(point)
    return kept


def value_at(points: Sequence[Json], x: str, place: float, y: str) -> float | None:
    """`y` where `x` is `place`, linear between points of ascending `x`; None outside of them."""
    for left, right in pairwise(points):
        if left[x] <= place <= right[x]:
            weight = (place - left[x]) / (right[x] - left[x])
            return float(left[y] + weight * (right[y] - left[y]))
    return None


def draw_curves(axis: Any, result: Json, metric: str, labels: Mapping[str, str]) -> None:
    """Draws `metric` against scorer evaluations for every curve of a result, with a label by the curve's name."""
    for place, (name, points) in enumerate(result["curves"].items()):
        x, y = [point["evaluations"] for point in points], [100 * point[metric] for point in points]
        axis.plot(x, y, color=COLORS[place], marker=MARKERS[place], markersize=4, label=labels[name])
    plain_log(axis, "x")
    axis.set_xlabel(f"scorer evaluations per user (of {result['items']:,} items)")
    axis.set_ylabel(f"{metric}@{result['top_k']} (%)")


def search_in_words(search: Mapping[str, Any]) -> str:
    """The ef, rounds and seeds that a JSON object of search parameters has, for tables and sentences."""
    seeds = search.get("seeds")
    parts = [f"{seeds['count']} seeds"] if seeds else []
    return ", ".join([*parts, *(f"{name} {list(search[name])}" for name in ("ef", "rounds") if name in search)])
