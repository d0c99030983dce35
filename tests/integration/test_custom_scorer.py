"""The example of a user's own scorer, live, and the contract that docs/custom_scorer.md states."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.server_usage import commands_with
from torch import nn

from examples.custom_scorer import run
from examples.custom_scorer.model import InterestEncoder, InterestScorer
from examples.custom_scorer.train import Trained
from nann.bundle import Bundle
from nann.clients import RetrievalClient
from nann.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "custom_scorer"
ITEMS, USERS, STEPS, QUERIES = 1500, 400, 150, 40


def run_example(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "examples.custom_scorer.run", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """The output folder of the example, and the JSON that it printed."""
    out = tmp_path_factory.mktemp("custom_scorer")
    sizes = ("--items", ITEMS, "--users", USERS, "--steps", STEPS, "--queries", QUERIES)
    result = run_example(*sizes, "--out", out, "--json")
    assert result.returncode == 0, result.stderr
    assert "recall-retrieval" in result.stdout
    return out, json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def trained(example: tuple[Path, dict]) -> Trained:
    """The user's modules with the weights that the example saved, loaded without code of the project."""
    weights = torch.load(example[0] / run.WEIGHTS_FILE, weights_only=True)
    table = weights["scorer"]["items.weight"]
    items = nn.Embedding(*table.shape)
    interests = len(weights["encoder"]["forgetting"])
    encoder, scorer = InterestEncoder(items, interests), InterestScorer(items, interests)
    encoder.load_state_dict(weights["encoder"])
    scorer.load_state_dict(weights["scorer"])
    return Trained(items.requires_grad_(False), encoder.eval(), scorer.eval())


@pytest.mark.triton
def test_the_example_finds_what_exhaustive_scoring_finds(example):
    _, body = example
    assert body["items"] == ITEMS
    assert body["coverage"] > 0.9
    assert body["recall_retrieval"] > 2 * body["recall_popular"]
    assert body["recall_retrieval"] <= body["recall_all"] + 0.05
    assert 0 < body["share_scored"] < 1


@pytest.mark.triton
def test_the_example_served_what_the_offline_search_found(example):
    _, body = example
    assert body["served_equals_offline"] == 1
    assert body["grpc_equals_http"]
    assert body["latency_p50_ms"] > 0


@pytest.mark.triton
def test_it_is_served_by_the_same_model_repository(example, trained):
    """The example's bundle is served again, and answers behaviour sequences that the example did not use."""
    out, _ = example
    bundle = Bundle.open(out / "bundle")
    rng = np.random.default_rng(5)
    histories = rng.choice(bundle.item_ids, size=(12, 40))
    histories[0] = 0  # an empty history
    histories[1, :39] = -1
    histories[2, ::2] = 10**12  # unknown items
    queries = run.Queries(histories, np.zeros((12, 0), np.int32))
    found, _ = run.search_offline(trained, bundle, queries)
    with run.serving(bundle.path, out / "model_repository") as server, RetrievalClient(server.grpc_url) as client:
        answer = client.retrieve(histories)
    assert run.same_answers(bundle, found, answer.item_ids, answer.scores).all()
    np.testing.assert_array_equal(answer.items_scored.ravel(), found.items_scored)
    assert answer.unknown_items.ravel().tolist() == [0, 0, 20, *[0] * 9]
    for ours in (ROOT / "model_repository").glob("*/**/*.pbtxt"):
        served = out / "model_repository" / ours.relative_to(ROOT / "model_repository")
        assert served.read_bytes() == ours.read_bytes()


@pytest.mark.triton
def test_nothing_of_the_example_keeps_running(example):
    out, _ = example
    assert commands_with(str(out)) == []


@pytest.mark.triton
def test_the_user_state_is_not_of_our_layout(example, trained):
    """All widths in our user state depend on the sequence length, and this module's width does not."""
    _, body = example
    dim, interests = trained.items.embedding_dim, trained.scorer.interests
    assert body["user_state_width"] == interests * dim + dim + 1
    for length in (1, 30, 50):
        state = trained.encoder(torch.zeros(2, length, dtype=torch.int32), torch.zeros(2, 1, dtype=torch.int32))
        assert state.shape == (2, body["user_state_width"])


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("model.py", set()),
        ("sasrec.py", set()),
        ("train.py", {"examples.custom_scorer.model", "examples.custom_scorer.sasrec"}),
    ],
)
def test_the_user_imports_nothing_of_ours(name, allowed):
    tree = ast.parse((EXAMPLE / name).read_text(encoding="utf-8"))
    imports = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imports |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    known = {"__future__", "collections.abc", "dataclasses", "torch", "torch.nn"}
    assert imports <= known | allowed


def test_importing_the_users_module_loads_nothing_of_ours():
    code = (
        "import sys, examples.custom_scorer.train\n"
        "ours = {'nann', 'training', 'python_backend', 'clients', 'perf', 'cli'}\n"
        "assert not ours & {name.partition('.')[0] for name in sys.modules}, ours & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


def test_bad_sizes_end_with_one_line(tmp_path):
    result = run_example("--items", 49, "--out", tmp_path / "out")
    assert result.returncode == 2
    assert result.stderr.strip() == "error: --items is 49; expected at least 50, the items to retrieve"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"encoder": "bert"}, "--encoder is 'bert'; expected interests or sasrec"),
        ({"steps": 0}, "--steps is 0; expected at least 1"),
        ({"users": 0}, "--users is 0; expected at least 1"),
        ({"users": 5, "queries": 6}, "--queries is 6; expected at most 5, the users of the log"),
    ],
)
def test_other_bad_sizes(tmp_path, sizes, message):
    with pytest.raises(ConfigError, match=message):
        run.main(**sizes, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_scores_of_the_example_depend_on_the_pair_alone(trained):
    generator = torch.Generator().manual_seed(0)
    behaviors = torch.randint(-1, ITEMS, (3, run.SEQUENCE_LENGTH), generator=generator, dtype=torch.int32)
    candidates = torch.randint(-1, ITEMS, (3, 5), generator=generator, dtype=torch.int32)
    state = trained.encoder(behaviors, torch.zeros(3, 1, dtype=torch.int32))
    together = trained.scorer(state, candidates)
    alone = torch.stack(
        [
            torch.cat([trained.scorer(state[i : i + 1], candidates[i : i + 1, j : j + 1])[0] for j in range(5)])
            for i in range(3)
        ]
    )
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
