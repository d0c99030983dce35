"""All measurements that need a GPU, in one run: parity, call times, load, kinds of search, training.

    python -m nann.perf.gpu.report --bundle build/bundle --data build/data/complete_journey --out build/perf/gpu

Needs torch, and Triton for the load; no network. `--device cpu` rehearses it without a GPU. The paper's Table 1 reports
624 QPS at 6.3 ms on a T4; a comparison must consider items, search and GPU, which the report states.
"""

from __future__ import annotations

import platform
import tempfile
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from nann.bundle import Bundle
from nann.errors import ConfigError
from nann.scorer import Float32Array
from nann.search_input import UserBatch

from ...python_backend.repository.install import install_bundle
from ...python_backend.server.triton_install import triton_at
from ...training.config import TrainingConfig
from ...training.data.prepared import PreparedData
from ...training.reports.report import Part, Report
from ...training.reports.runner import Measuring, run_parts
from ...training.reports.store import Json
from ...training.reports.text import listing, table
from ...training.scorers import OnnxScorer
from ...training.train import train
from ..command import run_command
from ..load.clients import LoadTest
from ..load.requests import histories
from ..servers.serving import serving
from ..servers.triton_counters import breakdown, read_metrics
from .plans import plan_differences
from .scorer_calls import device_name, exhaustive_ms, measure_points, user_states
from .strategies import measure_strategies, strategies_text

_QUERIES = 256
_SEARCHED = 32


@dataclass(frozen=True)
class Session:
    """What the parts measure and where: the command's options, the opened bundle, a scratch folder, the device."""

    bundle: Bundle
    data: Path
    folder: Path
    device: torch.device
    plans: Path | None
    triton: Path | None
    clients: list[int]
    duration_s: float
    training_steps: int

    @cached_property
    def repository(self) -> Path:
        """The model repository, with the bundle installed."""
        install_bundle(self.bundle.path, self.folder / "repository")
        return self.folder / "repository"

    @cached_property
    def states(self) -> Float32Array:
        """States of validation users, `float32[R, S]`, repeated if they are fewer than the largest batch."""
        queries = PreparedData.load(self.data).queries("validation", self.bundle.sequence_length, _QUERIES)
        states = user_states(self.repository, queries.behaviors, queries.profiles)
        return np.resize(states, (max(len(states), self.bundle.shape_grid.batch_sizes[-1]), states.shape[1]))


_POINTS = {
    "users x candidates": "{users} x {width}",
    "call ms": "{call_ms:.3f}",
    "kernel by kernel ms": "{eager_ms:.3f}",
    "differs": "{difference:.1e}",
    "half differs": "{half}",
}
_LOADS = {
    "clients": "{concurrency}",
    "QPS": "{qps:.0f}",
    "p50 ms": "{p50_ms:.2f}",
    "p99 ms": "{p99_ms:.2f}",
    "users per search": "{users_per_search:.1f}",
    "scorer calls per search": "{scorer_calls_per_search:.1f}",
    "scorer's share": "{scorer_share_of_search:.0%}",
}


def _points(session: Session) -> Json:
    points = measure_points(session.repository, session.bundle, session.states, session.device)
    return [asdict(point) for point in points]


def _points_text(points: Json) -> str:
    halves = ("" if point["half_difference"] is None else f"{point['half_difference']:.1e}" for point in points)
    return listing(({**point, "half": half} for point, half in zip(points, halves, strict=True)), _POINTS)


def _plans(session: Session) -> Json:
    if session.plans is None:
        raise ConfigError("no --plans")
    reference = OnnxScorer.of_bundle(session.bundle)
    return plan_differences(session.plans, session.bundle, session.states, reference)


def _plans_text(differences: Json) -> str:
    return f"It differs by at most {max(differences.values()):.1e} from onnxruntime on the CPU."


def _load(session: Session) -> Json:
    """Serves with the target `torch`; one result per concurrency."""
    users = histories(session.data, session.bundle.sequence_length, _QUERIES)
    triton = None if session.triton is None else triton_at(session.triton)
    results = []
    with serving(session.repository, target="torch", triton=triton) as server:
        LoadTest(server.grpc_url, users, min(session.duration_s, 2.0)).closed_loop(1)  # warms up
        for concurrency in session.clients:
            before = read_metrics(server.metrics_url)
            result = LoadTest(server.grpc_url, users, session.duration_s).closed_loop(concurrency)
            results.append({**asdict(result), **breakdown(before, read_metrics(server.metrics_url))})
    return results


def _exhaustive(session: Session) -> Json:
    return exhaustive_ms(session.repository, session.bundle, session.states, session.device)


def _exhaustive_text(times: Json) -> str:
    return "\n".join(f"- {users} users: {ms:.2f} ms, {1000 * int(users) / ms:.0f} QPS" for users, ms in times.items())


def _strategies(session: Session) -> Json:
    bundle = session.bundle
    queries = PreparedData.load(session.data).queries("validation", bundle.sequence_length, _SEARCHED)
    own = bundle.features.own_items(queries.behaviors)
    users = UserBatch(session.states[: len(own)], own)
    return measure_strategies(session.repository, bundle, users, session.device)


def _training(session: Session) -> Json:
    if session.training_steps == 0:
        raise ConfigError("no --training-steps")
    data, folder = PreparedData.load(session.data), session.folder / "train"
    result = train(data, TrainingConfig(), folder, overwrite=True, stop_at_step=session.training_steps)
    return {"steps": float(session.training_steps), "examples_per_s": result.examples_per_s}


def _introduction(body: Json) -> str:
    facts = {**body["environment"], **body["bundle"]}
    skipped = "".join(f"\nNot measured: {name} ({reason}).\n" for name, reason in body["skipped"].items())
    rows = [[key, str(value)] for key, value in facts.items()]
    return f"# GPU report: {body['device']}\n\n{table(['', 'value'], rows)}\n{skipped}"


REPORT = Report(
    "report.json",
    "report.md",
    (
        Part("points", "A scorer call at each shape", _points, _points_text),
        Part("tensorrt", "The TensorRT plan", _plans, _plans_text),
        Part("load", "Served by Triton's Python backend, target torch", _load, lambda loads: listing(loads, _LOADS)),
        Part("exhaustive_ms", "Scoring every item instead", _exhaustive, _exhaustive_text),
        Part("strategies", "All items, light scan and walk at equal coverage", _strategies, strategies_text),
        Part("training", "Training", _training, "{examples_per_s:,.0f} examples/s.".format_map),
    ),
    word="part",
    introduction=_introduction,
)


def main(
    bundle: Annotated[Path, typer.Option(help="Exported, if possible with --half and planned shapes.")] = Path(
        "build/bundle"
    ),
    data: Annotated[Path, typer.Option(help="Prepared data set of the bundle.")] = Path("build/data/complete_journey"),
    out: Annotated[Path, typer.Option(help="Folder for report.json and report.md.")] = Path("build/perf/gpu"),
    device: Annotated[str, typer.Option(help="cuda, or cpu for a rehearsal.")] = "cuda",
    plans: Annotated[Path | None, typer.Option(help="TensorRT plans to compare with the scorer.")] = None,
    triton: Annotated[
        Path | None, typer.Option(help="Folder with Triton's bin/ and backends/, if pip did not install it.")
    ] = None,
    concurrency: Annotated[str, typer.Option(help="Numbers of clients, separated by commas.")] = "1,2,4,8,16,32,64",
    duration_s: Annotated[float, typer.Option(min=0.1, help="How long to measure each load.")] = 10.0,
    training_steps: Annotated[int, typer.Option(min=0, help="Steps of training; 0: none.")] = 300,
) -> None:
    """Measure everything that needs a GPU and write a report; a part that can't be measured is named in `skipped`."""
    where = torch.device(device)
    if where.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("torch sees no GPU; run this where there is one, or rehearse with --device cpu")
    opened = Bundle.open(bundle)
    clients = [int(part) for part in concurrency.split(",")]
    body: Json = {
        "device": device_name(where),
        "environment": _environment(),
        "bundle": _bundle_facts(opened),
        "skipped": {},
    }
    with tempfile.TemporaryDirectory(prefix="nann-gpu-report-") as folder:
        session = Session(opened, data, Path(folder), where, plans, triton, clients, duration_s, training_steps)
        run_parts(
            REPORT,
            REPORT.parts,
            out,
            Measuring(lambda part: part.run(session), lambda part: part.name, session.folder / "results"),
            body=body,
            left_out=lambda part, error: body["skipped"].update({part.name: str(error)}),
            say=lambda line: typer.echo(line, err=True),
        )
    typer.echo(REPORT.markdown(body))


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
    run_command(main)
