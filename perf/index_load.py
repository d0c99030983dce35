"""What memory-mapping the index gains: time until it can be searched, and memory of each further instance.

Loading is timed on the files that beam_retrieval opens, in the page cache. Memory is that of a real server with one,
two and three instances of beam_retrieval, after requests: PSS of all its processes, which counts a shared page once.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from clients import RetrievalClient
from nann.bundle import Bundle, search_file_names
from nann.signature import BEAM_RETRIEVAL
from perf.alternate import alternate
from perf.benchmark import Benchmark, BenchSettings, Json, Say
from perf.requests import histories
from python_backend.ports import free_ports
from python_backend.repository import install_bundle
from python_backend.server import ServerOptions, TritonServer
from training.studies.text import table

INSTANCES = (1, 2, 3)
_USERS = 64
_COUNT = re.compile(r"count:\s*\d+")
_PSS = re.compile(r"^Pss:\s*(\d+) kB", re.MULTILINE)


def time_loading(bundle: Path, repeats: int) -> Json:
    """Times opening the search's files both ways, ready to search, and verifying their hashes, which both need."""
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


def measure_memory(
    bundle: Path, users: Sequence[Sequence[int]], cache: Path, instances: Sequence[int], say: Say
) -> Json:
    """Total PSS in MB of a server with each number of instances of beam_retrieval, and the mean growth by one more.

    Args:
        bundle: exported; its files are linked into `cache` where that is on the same file system, else copied.
        users: histories of external ids, which the server is asked for before.
        cache: for temporary folders.
        instances: ascending.
        say: takes progress lines.
    """
    totals = {}
    for count in instances:
        say(f"index: a server with {count} instances of {BEAM_RETRIEVAL.name}")
        totals[str(count)] = _server_pss_mb(bundle, cache, count, users)
    growth = (totals[str(instances[-1])] - totals[str(instances[0])]) / (instances[-1] - instances[0])
    return {"total_mb": totals, "further_instance_mb": growth}


def pss_mb(session: int) -> float:
    """PSS of all processes of a session, in MB of a million bytes."""
    total_kib = 0
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            # The fields after the name, which may hold anything: state, ppid, pgrp, session.
            if int((process / "stat").read_text().rpartition(")")[2].split()[3]) == session:
                rollup = (process / "smaps_rollup").read_text()
                total_kib += sum(map(int, _PSS.findall(rollup)))
    return total_kib * 1024 / 1e6


def _open_mapped(path: Path) -> None:
    bundle = Bundle.open(path, ())
    graph = bundle.graph  # every index checked
    assert len(graph.entry_points)
    assert len(bundle.item_ids)
    assert bundle.light_vectors is None or len(bundle.light_vectors) == bundle.item_count


def _server_pss_mb(bundle: Path, cache: Path, instances: int, users: Sequence[Sequence[int]]) -> float:
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        repository = Path(folder) / "repository"
        install_bundle(bundle, repository)
        config = repository / BEAM_RETRIEVAL.name / "config.pbtxt"
        text = config.read_text(encoding="utf-8")
        place = text.index("instance_group")
        config.write_text(text[:place] + _COUNT.sub(f"count: {instances}", text[place:], count=1), encoding="utf-8")
        http_port, grpc_port, metrics_port = free_ports(3)
        log_file = Path(folder) / "triton.log"
        options = ServerOptions(repository, "127.0.0.1", http_port, grpc_port, metrics_port, log_file=log_file)
        with TritonServer(options) as server, contextlib.closing(RetrievalClient(server.grpc_url)) as client:
            _ask(client, users)
            assert server.pid is not None
            return pss_mb(server.pid)


def _ask(client: RetrievalClient, users: Sequence[Sequence[int]]) -> None:
    """Enough requests at a time that each instance gets some."""
    with ThreadPoolExecutor(4 * max(INSTANCES)) as pool:
        list(pool.map(lambda ids: client.retrieve(list(ids)), users))


def _run(settings: BenchSettings, say: Say) -> Json:
    say("index: loading")
    loading = time_loading(settings.table1, settings.repeats)
    users = histories(settings.table1_data, Bundle.open(settings.table1, ()).sequence_length, _USERS)
    memory = measure_memory(settings.table1, users, settings.cache / "index_load", INSTANCES, say)
    return {"loading": loading, "memory": memory}


def _markdown(result: Json) -> str:
    loading, memory = result["loading"], result["memory"]
    ms = loading["ms"]
    rows = [
        ["memory-mapped, every index checked", f"{ms['mapped']:.0f}", "1.0"],
        ["copied into memory, unchecked", f"{ms['copied']:.0f}", f"{ms['copied'] / ms['mapped']:.1f}"],
        ["sha256 of the files, needed by both", f"{ms['verified']:.0f}", f"{ms['verified'] / ms['mapped']:.1f}"],
    ]
    totals = [[count, f"{total:,.0f}"] for count, total in memory["total_mb"].items()]
    return (
        f"The {loading['mib']:,.0f} MiB that beam_retrieval opens for {loading['items']:,} items, in the page cache:"
        "\n\n"
        f"{table(['index load', 'ms', 'ratio'], rows)}\n\nPSS of the whole server, which answers requests:\n\n"
        f"{table(['instances of beam_retrieval', 'MB'], totals)}\n\n"
        f"A further instance takes {memory['further_instance_mb']:.0f} MB."
    )


def _headline(result: Json) -> dict[str, Json]:
    return {"extra_instance_pss_mb": result["memory"]["further_instance_mb"]}


BENCHMARK = Benchmark("index_load", "Index load and memory of an instance", _run, _markdown, headline=_headline)
"""(h) and (i)."""
