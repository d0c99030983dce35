"""Everything that wants a GPU, in one run: parity, call times, serving under load, exhaustive scoring, training.

    python -m nann.perf.gpu.report --bundle build/bundle --data build/data/complete_journey --out build/perf/gpu

Needs torch, and Triton for the load; no network. `--device cpu` rehearses it where there is no GPU. It writes
report.json and report.md. The paper's Table 1 has 624 QPS at 6.3 ms on a T4: compare it with what stands beside the
figures here (items, search, GPU).
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from nann.bundle import SCORER_FILE, Bundle
from nann.errors import ConfigError, NannError

from ..load.clients import run_load
from ..load.requests import histories
from ..servers.triton_counters import breakdown, read_metrics
from .scorer_calls import device_name, exhaustive_ms, measure_points, user_states

_QUERIES = 256


@dataclass
class Report:
    """What was measured; a section that could not be is named in `skipped`, with the reason."""

    device: str
    environment: dict[str, str]
    bundle: dict[str, Any]
    points: list[dict[str, Any]] = field(default_factory=list)
    tensorrt: dict[str, float] = field(default_factory=dict)
    load: list[dict[str, Any]] = field(default_factory=list)
    exhaustive_ms: dict[int, float] = field(default_factory=dict)
    training: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def main(
    bundle: Annotated[Path, typer.Option(help="Exported, best with --half and planned shapes.")] = Path("build/bundle"),
    data: Annotated[Path, typer.Option(help="The prepared data set it is of.")] = Path("build/data/complete_journey"),
    out: Annotated[Path, typer.Option(help="Folder for report.json and report.md.")] = Path("build/perf/gpu"),
    device: Annotated[str, typer.Option(help="cuda, or cpu for a rehearsal.")] = "cuda",
    plans: Annotated[Path | None, typer.Option(help="TensorRT plans, for their parity.")] = None,
    triton: Annotated[
        Path | None, typer.Option(help="Folder with Triton's bin/ and backends/, where it is not installed by pip.")
    ] = None,
    concurrency: Annotated[str, typer.Option(help="Numbers of clients.")] = "1,2,4,8,16,32,64",
    duration_s: Annotated[float, typer.Option(min=0.1, help="Length of each load.")] = 10.0,
    training_steps: Annotated[int, typer.Option(min=0, help="Steps of training; 0: none.")] = 300,
) -> None:
    """Measure everything that wants a GPU and write a report."""
    where = torch.device(device)
    if where.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("torch sees no GPU; run this where there is one, or rehearse with --device cpu")
    opened = Bundle.open(bundle)
    report = Report(device_name(where), _environment(), _bundle_facts(opened))
    with tempfile.TemporaryDirectory(prefix="nann-gpu-report-") as folder:
        _measure(report, opened, data, Path(folder), where, plans, triton, concurrency, duration_s, training_steps)
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")
    (out / "report.md").write_text(as_markdown(report), encoding="utf-8")
    typer.echo(as_markdown(report))


def _measure(
    report: Report,
    bundle: Bundle,
    data: Path,
    folder: Path,
    device: torch.device,
    plans: Path | None,
    triton: Path | None,
    concurrency: str,
    duration_s: float,
    training_steps: int,
) -> None:
    from ...python_backend.repository.install import install_bundle
    from ...training.data.prepared import PreparedData
    from ...training.scorers import OnnxScorer

    repository = folder / "repository"
    install_bundle(bundle.path, repository)
    prepared = PreparedData.load(data)
    queries = prepared.queries("validation", bundle.sequence_length, _QUERIES)
    states = user_states(repository, bundle, queries.behaviors, queries.profiles)
    states = np.resize(states, (max(len(states), bundle.shape_grid.batch_sizes[-1]), states.shape[1]))
    report.points = [asdict(point) for point in measure_points(repository, bundle, states, device)]
    if plans is None:
        report.skipped["tensorrt"] = "no --plans"
    else:
        from .plans import plan_differences

        report.tensorrt = plan_differences(plans, bundle, states, OnnxScorer(bundle.path / SCORER_FILE))
    report.exhaustive_ms = exhaustive_ms(repository, bundle, states, device)
    users = histories(data, bundle.sequence_length, _QUERIES)
    clients = [int(part) for part in concurrency.split(",")]
    report.load = serve_under_load(repository, users, clients, duration_s, triton)
    if training_steps == 0:
        report.skipped["training"] = "no --training-steps"
    else:
        report.training = _training_throughput(prepared, folder, training_steps)


def serve_under_load(
    repository: Path, users: list[list[int]], concurrencies: list[int], duration_s: float, triton: Path | None = None
) -> list[dict[str, Any]]:
    """Triton with the target torch at each concurrency: throughput, latency, lockstep batch, where the time goes."""
    from ...python_backend.server.install import triton_at
    from ...python_backend.server.ports import free_ports
    from ...python_backend.server.triton import ServerOptions, TritonServer

    log = repository.with_suffix(".log")
    http_port, grpc_port, metrics_port = free_ports(3)
    options = ServerOptions(repository, "127.0.0.1", http_port, grpc_port, metrics_port, "torch", log)
    results = []
    with TritonServer(options, None if triton is None else triton_at(triton)) as server:
        run_load(server.grpc_url, users, 1, min(duration_s, 2.0))
        for concurrency in concurrencies:
            before = read_metrics(server.metrics_url)
            result = run_load(server.grpc_url, users, concurrency, duration_s)
            results.append({**asdict(result), **breakdown(before, read_metrics(server.metrics_url))})
    return results


def _training_throughput(prepared: Any, folder: Path, steps: int) -> dict[str, float]:
    from ...training.config import TrainingConfig
    from ...training.train import train

    result = train(prepared, TrainingConfig(), folder / "train", stop_at_step=steps)
    return {"steps": float(steps), "examples_per_s": result.examples_per_s}


def as_markdown(report: Report) -> str:
    """The report for people: one table a section."""
    lines = [f"# GPU report: {report.device}", "", "| | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in {**report.environment, **report.bundle}.items()]
    lines += ["", "## A scorer call at each shape", ""]
    lines += [
        "| users x candidates | call ms | kernel by kernel ms | differs | half differs |",
        "|---|---|---|---|---|",
    ]
    for point in report.points:
        half = "" if point["half_difference"] is None else f"{point['half_difference']:.1e}"
        lines.append(
            f"| {point['users']} x {point['width']} | {point['call_ms']:.3f} | {point['eager_ms']:.3f} | "
            f"{point['difference']:.1e} | {half} |"
        )
    if report.tensorrt:
        lines += ["", f"TensorRT differs by at most {max(report.tensorrt.values()):.1e} from onnxruntime on the CPU."]
    lines += ["", "## Served by Triton's Python backend, target torch", ""]
    lines += ["| clients | QPS | p50 ms | p99 ms | users a search | scorer calls a search | scorer's share |"]
    lines += ["|---|---|---|---|---|---|---|"]
    lines += [
        f"| {row['concurrency']} | {row['qps']:.0f} | {row['p50_ms']:.2f} | {row['p99_ms']:.2f} | "
        f"{row['users_per_search']:.1f} | {row['scorer_calls_per_search']:.1f} | {row['scorer_share_of_search']:.0%} |"
        for row in report.load
    ]
    lines += ["", "## Scoring every item instead", ""]
    lines += [
        f"- {users} users: {ms:.2f} ms, {1000 * users / ms:.0f} QPS" for users, ms in report.exhaustive_ms.items()
    ]
    if report.training:
        lines += ["", f"Training: {report.training['examples_per_s']:,.0f} examples/s."]
    lines += [f"\nNot measured: {name} ({reason})." for name, reason in report.skipped.items()]
    return "\n".join(lines) + "\n"


def _environment() -> dict[str, str]:
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "torch": torch.__version__,
        "CUDA": torch.version.cuda or "none",
        "Python": platform.python_version(),
        "processor": platform.processor() or platform.machine(),
    }


def _bundle_facts(bundle: Bundle) -> dict[str, Any]:
    params = bundle.search_params
    search = f"top {params.top_k}, ef {list(params.ef)}, rounds {list(params.rounds)}"
    return {"items": bundle.item_count, "search": search, "widths": list(bundle.shape_grid.widths)}


if __name__ == "__main__":
    try:
        typer.run(main)
    except NannError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
