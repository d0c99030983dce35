"""The GPU report's text against the numbers in its JSON."""

from __future__ import annotations

from typing import Any

from nann.perf.gpu.strategies import LEVELS, SHARES

from .reports import tables


def check_gpu_report(body: Any, text: str) -> None:
    """Compares every cell with its number; a skipped part has a line and no section."""
    facts, *found = tables(text)
    assert [row["value"] for row in facts] == [
        str(value) for value in [*body["environment"].values(), *body["bundle"].values()]
    ]
    points, loads, *strategies = found
    assert len(strategies) == ("strategies" in body)
    for row, point in zip(points, body["points"], strict=True):
        half = point["half_difference"]
        assert list(row.values()) == [
            f"{point['users']} x {point['width']}",
            *(f"{point[key]:.3f}" for key in ("call_ms", "eager_ms")),
            f"{point['difference']:.1e}",
            "" if half is None else f"{half:.1e}",
        ]
    for row, load in zip(loads, body["load"], strict=True):
        assert list(row.values()) == [
            str(load["concurrency"]),
            f"{load['qps']:.0f}",
            *(f"{load[key]:.2f}" for key in ("p50_ms", "p99_ms")),
            *(f"{load[key]:.1f}" for key in ("users_per_search", "scorer_calls_per_search")),
            f"{load['scorer_share_of_search']:.0%}",
        ]
    for users, ms in body["exhaustive_ms"].items():
        assert f"- {users} users: {ms:.2f} ms, {1000 * int(users) / ms:.0f} QPS" in text
    if "strategies" in body:
        assert len(strategies[0]) == len(SHARES) * len(LEVELS)
    if "training" in body:
        assert f"## Training\n\n{body['training']['examples_per_s']:,.0f} examples/s." in text
    for name, reason in body["skipped"].items():
        assert name not in body
        assert f"Not measured: {name} ({reason})." in text
