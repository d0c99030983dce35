"""What memory-mapping the index saves: the time until it can be searched, with its files in the page cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nann.bundle import Bundle, search_file_names

from ...training.reports.alternate import alternate
from ...training.reports.text import table
from ..benchmark import Benchmark, BenchSettings, Json, Say


def time_loading(bundle: Path, repeats: int) -> Json:
    """Times opening the search's files in both ways, and verifying their hashes, which both ways need."""
    manifest = Bundle.open(bundle, ()).manifest
    names = search_file_names(manifest)
    arrays = [name for name in names if name.endswith(".npy")]
    times = alternate(
        {
            "mapped": lambda: _open_mapped(bundle),
            "copied": lambda: [np.load(bundle / name, allow_pickle=False) for name in arrays],
            "verified": lambda: Bundle.open(bundle, names),
        },
        repeats,
    )
    return {
        "items": manifest["item_count"],
        "mib": sum(manifest["files"][name]["bytes"] for name in names) / 2**20,
        "ms": times,
    }


def _open_mapped(path: Path) -> None:
    bundle = Bundle.open(path, ())
    graph = bundle.graph  # every index checked
    assert len(graph.entry_points)
    assert len(bundle.item_ids)
    assert bundle.light_vectors is None or len(bundle.light_vectors) == bundle.item_count


def _run(settings: BenchSettings, say: Say) -> Json:
    say("index: loading")
    return time_loading(settings.table1.bundle, settings.repeats)


def _markdown(result: Json) -> str:
    ms = result["ms"]
    rows = [
        ["memory-mapped, every index checked", f"{ms['mapped']:.0f}", "1.0"],
        ["copied into memory, unchecked", f"{ms['copied']:.0f}", f"{ms['copied'] / ms['mapped']:.1f}"],
        ["sha256 of the files, needed by both", f"{ms['verified']:.0f}", f"{ms['verified'] / ms['mapped']:.1f}"],
    ]
    return (
        f"The {result['mib']:,.0f} MiB that beam_retrieval opens for {result['items']:,} items, from the page cache:"
        f"\n\n{table(['index load', 'ms', 'ratio'], rows)}"
    )


BENCHMARK = Benchmark("index_load", "Index load", _run, _markdown)
