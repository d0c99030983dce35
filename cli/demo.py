"""`nann demo`: every step from the log to served answers, on Complete Journey."""

from __future__ import annotations

import shlex
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from nann.durable_files import write_json
from nann.errors import ConfigError, ServerError

from .baselines import measured_methods
from .demo_checks import ask_one_by_one, offline_answers, same_items, stacked
from .support import JsonOption, console, find_serving, make_table, output, print_json

if TYPE_CHECKING:
    from nann.bundle import Bundle

    from ..clients import RetrievalResult
    from ..python_backend.server.triton import ServerOptions
    from ..training.data.prepared import Queries
    from ..training.search.evaluate import Evaluation

CONFIG = "auto"
SHOWN_ITEMS = 10
COMPARED_USERS = 200
"""Test users whose served answers are compared with those of the offline search under torch."""


@dataclass
class Demo:
    """The demo in a folder: its files, its steps, and the seconds that each step took."""

    folder: Path
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        """The prepared data set."""
        return self.folder / "data/complete_journey"

    @property
    def checkpoint(self) -> Path:
        """The trained model."""
        return self.folder / "train/checkpoint.pt"

    @property
    def bundle(self) -> Path:
        """Graph and exported models."""
        return self.folder / "bundle"

    @contextmanager
    def step(self, name: str, words: str) -> Iterator[None]:
        """Announces a step and times it."""
        console.rule(f"[bold]{name}[/]: {words}", align="left")
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 2)

    def build(self, config: str = CONFIG, steps: int | None = None, *, overwrite: bool = False) -> None:
        """Prepares the data, trains, indexes and exports.

        Raises:
            ConfigError: if the folder has a trained model and `overwrite` is not given.
        """
        from .export import export
        from .index import index
        from .prepare import complete_journey
        from .train import train

        if self.checkpoint.is_file() and not overwrite:
            raise ConfigError(
                f"{self.checkpoint} is of an earlier run; replace it (--overwrite), or choose another --folder"
            )
        with self.step("prepare", "a year of grocery baskets into a data set"):
            complete_journey(out=self.data)
        with self.step("train", "the scorer: user network, target attention, item network, score network"):
            train(self.data, self.checkpoint.parent, config, steps=steps, overwrite=overwrite)
        with self.step("index", "an HNSW graph on the item vectors"):
            index(self.data, self.checkpoint, self.bundle)
        with self.step("export", "user encoder and scorer to ONNX, compared with torch"):
            export(self.data, self.checkpoint, self.bundle)


def demo(
    folder: Annotated[Path, typer.Option(help="Folder for everything that the demo builds.")] = Path("build"),
    config: Annotated[str, typer.Option(help="Training configuration.")] = CONFIG,
    steps: Annotated[int | None, typer.Option(min=1, help="Fewer training steps, for a quick look.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the trained model in FOLDER.")] = False,
    json: JsonOption = False,
) -> None:
    """Run every step on Complete Journey, from the log to served answers.

    Prepares the data, trains the scorer, builds graph and bundle, exports, evaluates, compares with simple methods,
    serves, sends requests and stops the server. The files stay: `nann serve` serves them. Complete Journey is a year of
    grocery baskets, simulated from real shopping patterns.
    """
    from nann.bundle import Bundle

    from ..training.data.prepared import PreparedData
    from ..training.search.evaluate import evaluate_bundle, note_evaluation

    find_serving()
    run = Demo(folder)
    run.build(config, steps, overwrite=overwrite)
    with run.step("evaluate", "the search against scoring every item, for every test household"):
        bundle = Bundle.open(run.bundle)
        evaluation = evaluate_bundle(bundle, PreparedData.load(run.data))
        note_evaluation(bundle, evaluation)
    with run.step("baselines", "what simple methods find for the same households"):
        simple = _best_baseline(run, evaluation.top_k)
    served = _serve_and_ask(run)
    body = {
        "recall_all": evaluation.recall_all,
        "recall_retrieval": evaluation.recall_retrieval,
        "recall_delta": evaluation.recall_delta,
        "coverage": evaluation.coverage,
        "share_scored": evaluation.share_scored,
        **simple,
        **served,
        "test_users": evaluation.users,
        "seconds": run.seconds,
    }
    _print_table(evaluation, simple, served)
    result = folder / "demo.json"
    write_json(result, body)
    console.print(f"written to {result}; {sum(run.seconds.values()):.0f} s in all. Next:")
    for words, command in next_commands(run).items():
        console.print(f"  {command}    # {words}", highlight=False, soft_wrap=True, markup=False)
    if json:
        print_json(body)
    if not (served["grpc_equals_http"] and served["served_equals_offline"]):
        raise ServerError("the served answers differ from each other or from the offline search; see the lines above")


def next_commands(run: Demo) -> dict[str, str]:
    """What to do with what the demo built; the program is named as this shell finds it."""
    from ..training.data.output_folder import HISTORIES_FOLDER

    program = "nann" if shutil.which("nann") else sys.argv[0]
    served = ["--bundle", str(run.bundle), "--histories", str(run.data / HISTORIES_FOLDER)]
    return {
        "a page to try, judge and explain it": shlex.join([program, "explore", *served, "--data", str(run.data)]),
        "the server alone": shlex.join([program, "serve", *served]),
    }


def _best_baseline(run: Demo, top_k: int) -> dict[str, Any]:
    from nann.bundle import Bundle

    from ..training.baselines.compare import Comparison, best_baseline
    from ..training.data.prepared import PreparedData

    data = PreparedData.load(run.data)
    queries = data.queries("test", Bundle.open(run.bundle, files=[]).sequence_length)
    methods, metric = dict(measured_methods(Comparison(data, queries, (top_k,)), None)), f"recall_{top_k}"
    best = best_baseline(methods, metric)
    return {"best_baseline": best, "best_baseline_recall": methods[best][metric]}


def _serve_and_ask(run: Demo) -> dict[str, Any]:
    from nann.bundle import Bundle

    from ..clients import RetrievalClient
    from ..python_backend.server.triton import TritonServer
    from ..training.data.prepared import PreparedData

    data, bundle = PreparedData.load(run.data), Bundle.open(run.bundle)
    queries = data.queries("test", bundle.sequence_length, COMPARED_USERS)
    options = _installed(run)
    with run.step("serve", "the ensemble in a real Triton Inference Server"):
        server = TritonServer(options)
        server.start()
    with (
        server,
        RetrievalClient(server.grpc_url) as grpc,
        RetrievalClient(server.http_url, "http") as http,
        run.step("query", f"{len(queries.users)} test households over gRPC and HTTP"),
    ):
        answers = ask_one_by_one(grpc, queries.external_ids)
        http_answers = ask_one_by_one(http, queries.external_ids)
    with run.step("compare", "the served answers with the offline search under torch"):
        ids, scores = stacked(answers)
        http_ids, http_scores = stacked(http_answers)
        agree = bool((ids == http_ids).all() and (scores == http_scores).all())
        same = same_items(ids, scores, *offline_answers(data, bundle, run.checkpoint, queries))
    _print_example(bundle, queries, answers[0])
    console.print(f"gRPC and HTTP agree: {'yes' if agree else 'NO'}")
    console.print(f"served = offline search with the torch scorer: {same.sum()} of {len(same)} households")
    return {
        "grpc_equals_http": agree,
        "served_equals_offline": bool(same.all()),
        "latency_p50_ms": round(statistics.median(answer.latency_ms for answer in answers), 3),
        "items": bundle.item_count,
    }


def _installed(run: Demo) -> ServerOptions:
    """A repository with the bundle, and how to serve it: as `nann serve` does, at free ports."""
    from ..python_backend.repository.install import install_bundle, set_instances
    from ..python_backend.server.ports import free_ports
    from ..python_backend.server.served_form import AUTO, chosen_steps
    from ..python_backend.server.triton import ServerOptions
    from ..python_backend.server.triton_install import has_gpu
    from ..python_backend.version_folder import EMBEDDED, SEPARATE

    repository = run.folder / "demo_repository"
    install_bundle(run.bundle, repository)
    steps, _ = chosen_steps(AUTO, EMBEDDED, has_gpu())
    if steps != SEPARATE:
        set_instances(repository, steps, None)
    http_port, grpc_port, metrics_port = free_ports(3)
    ports, log = (http_port, grpc_port, metrics_port), repository.with_suffix(".log")
    return ServerOptions(repository, "127.0.0.1", *ports, log_file=log, steps=steps)


def _print_example(bundle: Bundle, queries: Queries, answer: RetrievalResult) -> None:
    names = bundle.item_names or [str(item) for item in bundle.item_ids]
    bought = [item for item in queries.behaviors[0] if item >= 0][-SHOWN_ITEMS:]
    table = Table(title="one test household")
    for column, style in (("last purchases", "dim"), ("retrieved", "bold")):
        table.add_column(column, style=style, no_wrap=True, overflow="ellipsis", max_width=26)
    table.add_column("score", justify="right", min_width=5)
    table.add_column("bought next", min_width=11)
    retrieved = bundle.features.item_indices(answer.item_ids[0, :SHOWN_ITEMS])
    next_basket = set(queries.targets_of(0).tolist())
    for before, item, score in zip_longest(reversed(bought), retrieved, answer.scores[0, :SHOWN_ITEMS]):
        hit = "yes" if item in next_basket else ""
        table.add_row(names[before] if before is not None else "", names[item], f"{score:.2f}", hit)
    output.print(table)


def _print_table(evaluation: Evaluation, simple: dict[str, Any], served: dict[str, Any]) -> None:
    from ..training.baselines.compare import LABELS

    k = evaluation.top_k
    labels = (
        f"recall-all@{k} (every item scored)",
        f"recall-retrieval@{k} (this search)",
        "recall-Delta",
        f"coverage@{k}",
        "share of items scored",
        f"recall@{k} of the best simple method ({LABELS[simple['best_baseline']]})",
        "p50 latency over gRPC",
    )
    values = (*evaluation.percentages(), f"{simple['best_baseline_recall']:.2%}", f"{served['latency_p50_ms']:.1f} ms")
    rows = [(label, f"[bold]{value}[/]") for label, value in zip(labels, values, strict=True)]
    output.print(make_table(f"{evaluation.users} test households, {served['items']:,} items", ("", ""), rows))
