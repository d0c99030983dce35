"""Users searched in lockstep: the time per user by batch size, and by stage of the search."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from nann.stage_clock import STAGES

from ...training.reports.alternate import alternate
from ...training.reports.plots import COLORS, figure
from ...training.reports.text import table
from ..benchmark import Benchmark, BenchSettings, Json, Say
from ..corpora.offline import OfflineUsers

BATCHES = (1, 2, 4, 8, 16)
PARTS = (*STAGES, "python")


def measure(users: OfflineUsers, repeats: int) -> Json:
    """Time per user in batches of each size; all sizes search for the same users."""
    params, count = users.bundle.search_params, len(users.batch)

    def search(batch: int) -> None:
        for row in range(0, count, batch):
            users.search(params, slice(row, row + batch))

    times = alternate({str(batch): partial(search, batch) for batch in BATCHES}, repeats)
    return {
        "items": users.bundle.item_count,
        "users": count,
        "entry": params.entry,
        "ms_per_user": {batch: ms / count for batch, ms in times.items()},
        "stages_ms_per_user": {str(batch): users.stages_ms(params, batch, count) for batch in BATCHES},
    }


def _run(settings: BenchSettings, say: Say) -> Json:
    result = {}
    for name, corpus in settings.corpora.items():
        say(f"lockstep: {name}")
        result[name] = measure(OfflineUsers.load(corpus, max(BATCHES)), settings.repeats)
    return result


def _table(result: Json) -> str:
    alone = result["ms_per_user"]["1"]
    stages = result["stages_ms_per_user"]
    rows = [
        [batch, f"{ms:.2f}", f"{ms / alone:.2f}", *(f"{stages[batch][part]:.2f}" for part in PARTS)]
        for batch, ms in result["ms_per_user"].items()
    ]
    return table(["users in a batch", "ms per user", "relative to one user", *PARTS], rows)


def _markdown(result: Json) -> str:
    return "\n\n".join(
        f"**{one['items']:,} items**, {one['users']} test users, the recommended search (entry {one['entry']}), scorer "
        f"on one thread, in the engine that a server takes; ms per user, in total and by stage:\n\n{_table(one)}"
        for one in result.values()
    )


def _plot(result: Json, path: Path) -> None:
    with figure(path, panels=len(result)) as axes:
        for axis, one in zip(axes, result.values(), strict=True):
            bottom = [0.0] * len(BATCHES)
            places = range(len(BATCHES))
            for color, part in zip(COLORS, PARTS, strict=False):
                values = [one["stages_ms_per_user"][str(batch)][part] for batch in BATCHES]
                axis.bar(places, values, bottom=bottom, color=color, label=part)
                bottom = [low + value for low, value in zip(bottom, values, strict=True)]
            axis.set_xticks(places, [str(batch) for batch in BATCHES])
            axis.set_xlabel("users in a batch")
            axis.set_ylabel("ms per user")
            axis.set_title(f"{one['items']:,} items")
        axes[0].set_ylim(top=1.2 * axes[0].get_ylim()[1])  # room for the legend
        axes[0].legend(fontsize=7, ncols=3, loc="upper center")


BENCHMARK = Benchmark("lockstep", "Users in lockstep", _run, _markdown, {"perf_lockstep_stages.png": _plot})
