"""Trains the modules of `model.py` or `sasrec.py`, indexes, exports, evaluates and serves them, and sends requests.

    python -m examples.custom_scorer.run
    python -m examples.custom_scorer.run --encoder sasrec

Modules of your own need everything after `_train`, too.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from examples.custom_scorer.train import ENCODERS, TARGETS, SyntheticLog, Trained, histories, make_log, train
from nann import Bundle, SearchResult, UserBatch, beam_search, coverage, exact_search, recall, share_scored
from nann.clients import RetrievalClient
from nann.durable_files import finite
from nann.errors import ConfigError, NannError, ServerError
from nann.python_backend import ServerOptions, TritonServer, free_ports, install_bundle
from nann.training import (
    IndexConfig,
    SearchConfig,
    TorchScorer,
    create_bundle,
    encode_users_torch,
    export_to_bundle,
)

console, output = Console(stderr=True), Console()
SEQUENCE_LENGTH = 30
BEHAVIORS = 60
FIRST_ITEM_ID = 1001
SEARCH = SearchConfig(top_k=50, ef=(10, 30, 100), rounds=(1, 3, 4))
WEIGHTS_FILE = "weights.pt"
TOLERANCE = 1e-4
"""Scores of torch and onnxruntime that differ by less count as equal."""


@dataclass(frozen=True)
class Queries:
    """Users to search for.

    Attributes:
        histories: `int64[Q, BEHAVIORS - TARGETS]` external item ids, oldest first.
        targets: `int32[Q, TARGETS]` item indices of what they did next.
    """

    histories: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int32]


def bundle_of(trained: Trained, out: Path) -> Bundle:
    """Makes graph and ONNX files of trained modules, with the two calls that any module of your own needs."""
    vectors = trained.items.weight.numpy()
    item_ids = np.arange(len(vectors), dtype=np.int64) + FIRST_ITEM_ID
    bundle = create_bundle(
        out,
        item_ids=item_ids,
        item_vectors=vectors,
        sequence_length=SEQUENCE_LENGTH,
        index=IndexConfig(),
        search=SEARCH,
        provenance={"model": "examples/custom_scorer"},
        threads=1,
    )
    export_to_bundle(bundle, trained.encoder, trained.scorer)
    return Bundle.open(out)


def search_offline(trained: Trained, bundle: Bundle, queries: Queries) -> tuple[SearchResult, SearchResult]:
    """The graph search and the exhaustive search, both with the torch modules in this process."""
    behaviors, _ = bundle.features.behaviors(queries.histories)
    states = encode_users_torch(trained.encoder, behaviors, bundle.features.profile(None, len(behaviors)))
    scorer, users, params = TorchScorer(trained.scorer), UserBatch(states, behaviors), bundle.search_params
    found = beam_search(bundle.index, scorer, users, params)
    return found, exact_search(scorer, users, bundle.item_count, params.top_k)


def same_answers(
    bundle: Bundle, found: SearchResult, item_ids: npt.NDArray[np.int64], scores: npt.NDArray[np.float32]
) -> npt.NDArray[np.bool_]:
    """Which users were served the items and scores of the offline search; ties may differ: `bool[Q]`."""
    indices = bundle.features.item_indices(item_ids)
    close = np.abs(scores - found.scores) <= TOLERANCE
    # Two items whose scores differ in the last bit may change places; the scores by place are still equal then.
    missing = ~np.array([np.isin(a, b) for a, b in zip(indices, found.items, strict=True)])
    at_the_edge = np.abs(scores - found.scores[:, -1:]) <= TOLERANCE
    return np.asarray((close & (~missing | at_the_edge)).all(axis=1))


@contextmanager
def serving(bundle: Path, repository: Path) -> Iterator[TritonServer]:
    """Installs the bundle into an unchanged copy of `model_repository/`, and serves that."""
    install_bundle(bundle, repository)
    http_port, grpc_port, metrics_port = free_ports(3)
    log = repository.with_suffix(".log")
    options = ServerOptions(repository, "127.0.0.1", http_port, grpc_port, metrics_port, log_file=log)
    with TritonServer(options) as server:
        yield server


def main(
    encoder: Annotated[str, typer.Option(help=f"User encoder and its scorer: {' or '.join(ENCODERS)}.")] = ENCODERS[0],
    items: Annotated[int, typer.Option(help="Items of the synthetic corpus.")] = 10_000,
    users: Annotated[int, typer.Option(help="Users of the synthetic log.")] = 3_000,
    steps: Annotated[int, typer.Option(help="Training steps.")] = 800,
    queries: Annotated[int, typer.Option(help="Users to evaluate and to send requests for.")] = 100,
    seed: Annotated[int, typer.Option(help="Random seed of log and training.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder for everything that the example builds.")] = Path(
        "build/custom_scorer"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Train, index, export, evaluate and serve a torch scorer from outside this project, and send requests.

    The server is stopped at the end. Bundle, weights and model repository stay in OUT.
    """
    _check(encoder, items, users, steps, queries)
    torch.set_num_threads(1)  # the tensors are small: threads would mostly wait for each other
    start = time.perf_counter()
    log, trained = _train(encoder, items, users, steps, seed, out)
    bundle = bundle_of(trained, out / "bundle")
    console.print(f"bundle of {bundle.item_count:,} items, layers {bundle.manifest['graph']['layer_sizes']}")
    asked = _queries(log, queries)
    found, exact = search_offline(trained, bundle, asked)
    body = {
        "items": bundle.item_count,
        "user_state_width": bundle.manifest["export"]["user_state_width"],
        **_quality(log, asked, bundle, found, exact),
        **_ask(bundle, out / "model_repository", asked, found),
        "seconds": round(time.perf_counter() - start, 1),
    }
    _print_table(body, bundle.search_params.top_k)
    if as_json:
        print(json.dumps(finite(body), allow_nan=False))
    if not (body["grpc_equals_http"] and body["served_equals_offline"] == 1):
        raise ServerError("the served answers differ from the offline search or between gRPC and HTTP; see the table")


def _check(encoder: str, items: int, users: int, steps: int, queries: int) -> None:
    if encoder not in ENCODERS:
        raise ConfigError(f"--encoder is {encoder!r}; expected {' or '.join(ENCODERS)}")
    if items < SEARCH.top_k:
        raise ConfigError(f"--items is {items}; expected at least {SEARCH.top_k}, the items to retrieve")
    for option, value in (("--users", users), ("--steps", steps), ("--queries", queries)):
        if value < 1:
            raise ConfigError(f"{option} is {value}; expected at least 1")
    if queries > users:
        raise ConfigError(f"--queries is {queries}; expected at most {users}, the users of the log")


def _train(encoder: str, items: int, users: int, steps: int, seed: int, out: Path) -> tuple[SyntheticLog, Trained]:
    generator = torch.Generator().manual_seed(seed)
    log = make_log(items, users, BEHAVIORS, generator)
    with console.status("training ...") as status:
        trained = train(
            log,
            encoder=encoder,
            steps=steps,
            sequence_length=SEQUENCE_LENGTH,
            generator=generator,
            report=lambda step, loss: status.update(f"training: step {step} of {steps}, loss {loss:.3f}"),
        )
    out.mkdir(parents=True, exist_ok=True)
    weights = {"encoder": trained.encoder.state_dict(), "scorer": trained.scorer.state_dict()}
    torch.save(weights, out / WEIGHTS_FILE)
    return log, trained


def _queries(log: SyntheticLog, count: int) -> Queries:
    end, chosen = BEHAVIORS - TARGETS, torch.arange(count)
    known = histories(log, chosen, torch.full((count,), end), end).numpy()
    return Queries(known.astype(np.int64) + FIRST_ITEM_ID, log.behaviors[:count, end:].numpy().astype(np.int32))


def _quality(
    log: SyntheticLog, queries: Queries, bundle: Bundle, found: SearchResult, exact: SearchResult
) -> dict[str, float]:
    count, top_k = len(queries.targets), exact.items.shape[1]
    past = log.behaviors[:, : BEHAVIORS - TARGETS].flatten().numpy()
    popular = np.argsort(-np.bincount(past, minlength=bundle.item_count), kind="stable")[:top_k].astype(np.int32)
    targets = (np.arange(count + 1) * TARGETS, queries.targets.ravel())
    return {
        "recall_popular": recall(np.tile(popular, (count, 1)), *targets),
        "recall_all": recall(exact.items, *targets),
        "recall_retrieval": recall(found.items, *targets),
        "coverage": coverage(found.items, exact.items),
        "share_scored": share_scored(found.items_scored, bundle.item_count),
    }


def _ask(bundle: Bundle, repository: Path, queries: Queries, found: SearchResult) -> dict[str, Any]:
    with (
        serving(bundle.path, repository) as server,
        RetrievalClient(server.grpc_url) as grpc,
        RetrievalClient(server.http_url, "http") as http,
    ):
        answers, others = ([client.retrieve(row) for row in queries.histories] for client in (grpc, http))
    ids, scores = np.concatenate([a.item_ids for a in answers]), np.concatenate([a.scores for a in answers])
    http_ids = np.concatenate([a.item_ids for a in others])
    return {
        "served_equals_offline": float(same_answers(bundle, found, ids, scores).mean()),
        "grpc_equals_http": bool((ids == http_ids).all()),
        "latency_p50_ms": round(statistics.median(a.latency_ms for a in answers), 2),
    }


def _print_table(body: dict[str, Any], top_k: int) -> None:
    table = Table(title=f"A scorer of your own, {body['items']:,} items, top {top_k}", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for label, key in (
        ("recall of the most popular items", "recall_popular"),
        ("recall-all (every item scored)", "recall_all"),
        ("recall-retrieval", "recall_retrieval"),
        ("coverage", "coverage"),
        ("share of items scored", "share_scored"),
        ("users served as in the offline search", "served_equals_offline"),
    ):
        table.add_row(label, f"{100 * body[key]:.1f}%")
    table.add_row("gRPC and HTTP agree", "yes" if body["grpc_equals_http"] else "NO")
    table.add_row("p50 latency over gRPC", f"{body['latency_p50_ms']:.1f} ms")
    table.add_row("floats of user state", str(body["user_state_width"]))
    output.print(table)


if __name__ == "__main__":
    try:
        typer.run(main)
    except NannError as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(2)
