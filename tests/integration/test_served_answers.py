"""The served ensemble gives the answers of the offline search, over every protocol and client."""

import json
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support.live_bundle import ITEMS, SEEDED, item_ids
from support.reference import OfflineEnsemble

from nann.clients import RetrievalClient
from nann.errors import RequestError
from nann.search_params import SearchParams, SeedParams
from nann.signature import PADDING_SCORE

pytestmark = pytest.mark.triton

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def offline(bundle):
    return OfflineEnsemble(bundle)


def random_users(count: int, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    # Without the items that make the scorer fail on purpose.
    return [item_ids()[rng.integers(10, ITEMS, rng.integers(1, 30))].tolist() for _ in range(count)]


def assert_same(result, row, expected):
    items, scores, scored = expected
    np.testing.assert_array_equal(result.item_ids[row], items)
    np.testing.assert_allclose(result.scores[row], scores, rtol=TOLERANCE, atol=TOLERANCE)
    assert result.items_scored[row] == scored


def test_it_is_ready(client):
    assert client.is_ready()


def test_users_one_by_one(client, offline):
    for ids in random_users(20):
        assert_same(client.retrieve(ids), 0, offline.retrieve(ids))


def test_users_of_one_request(client, offline):
    users = random_users(16)
    result = client.retrieve(users)
    assert result.item_ids.shape == (16, 20)
    for row, ids in enumerate(users):
        assert_same(result, row, offline.retrieve(ids))


def test_the_requests_parameters(client, offline):
    (ids,) = random_users(1)
    for top_k, ef, rounds in ((1, (1, 1, 1), (0, 0, 0)), (7, (5, 10, 20), (1, 1, 2)), (150, (30, 90, 200), (1, 3, 6))):
        result = client.retrieve(ids, top_k=top_k, ef=ef, rounds=rounds)
        assert_same(result, 0, offline.retrieve(ids, SearchParams(top_k, ef, rounds)))
    assert_same(client.retrieve(ids, top_k=90), 0, offline.retrieve(ids, SearchParams(90, (20, 40, 90), (1, 2, 4))))


def test_entry_by_seeds(client, offline):
    users = random_users(8, seed=3)
    result = client.retrieve(users, entry="seeds")
    for row, ids in enumerate(users):
        assert_same(result, row, offline.retrieve(ids, SEEDED))
    params = SearchParams(5, (40,), (2,), SeedParams(30, 80))
    result = client.retrieve(users[0], entry="seeds", top_k=5, ef=(40,), rounds="2", seeds=30, seed_ef=80)
    assert_same(result, 0, offline.retrieve(users[0], params))


def test_concurrent_requests_may_enter_in_different_ways(server, offline):
    users = random_users(64, seed=4)
    with RetrievalClient(server.grpc_url, timeout_s=30) as client, ThreadPoolExecutor(24) as pool:
        entries = [("layers", "seeds")[number % 2] for number in range(len(users))]
        results = list(pool.map(lambda ids, entry: client.retrieve(ids, entry=entry), users, entries))
    for result, ids, entry in zip(results, users, entries, strict=True):
        assert_same(result, 0, offline.retrieve(ids, SEEDED if entry == "seeds" else None))


def test_short_results_are_padded(client):
    result = client.retrieve(random_users(1)[0], top_k=100, ef="1,1,100", rounds="0,0,0")
    found = result.item_ids[0] != -1
    assert 0 < found.sum() < 100
    assert (result.scores[0][~found] == PADDING_SCORE).all()
    assert (result.scores[0][found] > PADDING_SCORE).all()


def test_an_answer_with_padding_is_json_for_strict_parsers(server):
    data = {"name": "behavior_item_ids", "datatype": "INT64", "shape": [1, 1], "data": [1060]}
    asked = {"top_k": 100, "ef": "1,1,100", "rounds": "0,0,0"}
    outputs = ask_json(server, {"inputs": [data], "parameters": asked})
    scores = np.array(outputs["scores"]["data"], np.float32)
    np.testing.assert_array_equal(scores == PADDING_SCORE, np.array(outputs["item_ids"]["data"]) == -1)
    assert 0 < np.count_nonzero(scores == PADDING_SCORE) < 100


def test_a_history_of_length_0_is_that_of_a_new_user(server, offline):
    expected = offline.retrieve([0])
    outputs = ask_json(
        server, {"inputs": [{"name": "behavior_item_ids", "datatype": "INT64", "shape": [1, 0], "data": []}]}
    )
    assert outputs["item_ids"]["data"] == expected[0].tolist()


def test_other_kserve_clients_parameters_are_no_mistake(server):
    data = {"name": "behavior_item_ids", "datatype": "INT64", "shape": [1, 1], "data": [1060]}
    plain = {"inputs": [data], "parameters": {"top_k": 5}}
    theirs = {"content_type": "np"}
    adorned = {"inputs": [{**data, "parameters": theirs}], "parameters": {"top_k": 5, **theirs}}
    assert ask_json(server, adorned)["item_ids"] == ask_json(server, plain)["item_ids"]


def test_more_users_than_one_request_may_have(client, offline):
    users = random_users(35, seed=5)
    result = client.retrieve(users, top_k=7)
    assert result.item_ids.shape == result.scores.shape == (35, 7)
    for row in (0, 15, 16, 34):
        assert_same(result, row, offline.retrieve(users[row], SearchParams(7, (20, 40, 60), (1, 2, 4))))


def test_the_server_says_which_bundle_answers(client, bundle):
    assert client.bundle_id() == bundle.bundle_id
    assert client.served_bundle().identity == bundle.identity


def test_unknown_ids_are_dropped_and_counted(client, offline):
    (ids,) = random_users(1)
    result = client.retrieve([ids, [5, *ids, 1001, -7]])
    np.testing.assert_array_equal(result.item_ids[0], result.item_ids[1])
    np.testing.assert_array_equal(result.unknown_items, [0, 3])


def test_a_user_without_known_items_is_answered(client, offline):
    for ids in ([], [5, 6], [0, -1]):
        assert_same(client.retrieve(ids), 0, offline.retrieve(ids or [0]))


def test_a_profile_is_refused_where_the_data_set_has_none(client):
    with pytest.raises(RequestError, match="user_profile came, and the model knows no user profile"):
        client.retrieve(random_users(2), user_profile=[[1, 2], [3, 4]])


def test_concurrent_requests_with_different_parameters_each_get_theirs(server, offline):
    asked = [
        (ids, SearchParams(1 + 7 * (number % 9), (5 + number % 3, 30, 60), (1, number % 4, 1 + number % 5)))
        for number, ids in enumerate(random_users(96, seed=1))
    ]
    before = batches(server)
    with RetrievalClient(server.grpc_url, timeout_s=30) as client, ThreadPoolExecutor(24) as pool:

        def ask(one):
            ids, params = one
            return client.retrieve(ids, top_k=params.top_k, ef=params.ef, rounds=params.rounds)

        results = list(pool.map(ask, asked))
    for result, (ids, params) in zip(results, asked, strict=True):
        assert result.item_ids.shape == (1, params.top_k)
        assert_same(result, 0, offline.retrieve(ids, params))
    assert batches(server) - before < len(asked), "no two requests were searched together"


def test_plain_kserve_json(server, offline):
    (ids,) = random_users(1)
    body = {
        "id": "curl-1",
        "inputs": [{"name": "behavior_item_ids", "datatype": "INT64", "shape": [1, len(ids)], "data": ids}],
        "parameters": {"top_k": 5},
    }
    outputs = ask_json(server, body)
    assert outputs["item_ids"]["shape"] == [1, 5]
    items, _, _ = offline.retrieve(ids)
    assert outputs["item_ids"]["data"] == items[:5].tolist()


def test_tritonclient_with_nothing_of_ours(server, offline):
    script = f"""
import sys
import numpy as np
import tritonclient.grpc as triton

client = triton.InferenceServerClient("{server.grpc_url}")
ids = np.array([{random_users(1)[0]}], np.int64)
tensor = triton.InferInput("behavior_item_ids", list(ids.shape), "INT64")
tensor.set_data_from_numpy(ids)
result = client.infer("nann", [tensor], parameters={{"top_k": 5}})
assert not any(name.split(".")[0] in ("nann", "clients") for name in sys.modules)
print(result.as_numpy("item_ids")[0].tolist())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    items, _, _ = offline.retrieve(random_users(1)[0])
    assert done.stdout.strip() == str(items[:5].tolist()), done.stderr


def ask_json(server, body):
    """The output tensors by name, read by a parser that takes only what JSON has: no NaN and no Infinity."""

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    request = urllib.request.Request(f"http://{server.http_url}/v2/models/nann/infer", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=20) as response:
        answer = json.loads(response.read(), parse_constant=refuse)
    assert answer.get("id") == body.get("id")
    return {tensor["name"]: tensor for tensor in answer["outputs"]}


def batches(server) -> float:
    """How many batches beam_retrieval has searched."""
    return metric(server, 'nv_inference_exec_count{model="beam_retrieval"')


def metric(server, name: str) -> float:
    with urllib.request.urlopen(f"http://{server.metrics_url}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))
