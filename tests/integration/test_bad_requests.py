"""Every bad request gets INVALID_ARGUMENT, naming the tensor or parameter, and the server still answers."""

import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from support.live_bundle import FAILING_INDEX, NAN_INDEX, item_ids
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from nann.clients import RetrievalClient
from nann.errors import RequestError, ServerError
from nann.perf.servers.triton_counters import read_metrics

pytestmark = pytest.mark.triton

INVALID = {"grpc": "StatusCode.INVALID_ARGUMENT", "http": "400"}
INTERNAL = {"grpc": "StatusCode.INTERNAL", "http": "500"}
GOOD = item_ids()[None, 20:25]


@pytest.fixture(scope="module", params=["grpc", "http"])
def raw(request, server):
    """Sends a request with tritonclient, which checks nothing; returns the error's status and message."""
    module, url = {"grpc": (triton_grpc, server.grpc_url), "http": (triton_http, server.http_url)}[request.param]
    client = module.InferenceServerClient(url)

    def ask(ids, name="behavior_item_ids", others=None, **options):
        tensors = []
        for each, array in {name: ids, **(others or {})}.items():
            tensors.append(module.InferInput(each, list(array.shape), np_to_triton_dtype(array.dtype)))
            tensors[-1].set_data_from_numpy(array)
        return client.infer("nann", tensors, **options)

    def refused(ids, **options):
        with pytest.raises(InferenceServerException) as caught:
            ask(ids, **options)
        assert "Traceback" not in caught.value.message()
        assert ".py" not in caught.value.message()
        assert ask(GOOD).as_numpy("item_ids").shape == (1, 20), "the server must go on"
        return caught.value.status(), caught.value.message()

    refused.protocol = request.param
    yield refused
    client.close()


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (GOOD.astype(np.float32), "'behavior_item_ids' data-type is 'FP32', but model 'nann' expects 'INT64'"),
        (GOOD.astype(np.int32), "'behavior_item_ids' data-type is 'INT32'"),
        (np.array([["a"]], object), "'behavior_item_ids' data-type is 'BYTES'"),
        (GOOD[0], "unexpected shape for input 'behavior_item_ids'"),
        (GOOD[None], "unexpected shape for input 'behavior_item_ids'"),
        (np.zeros((0, 3), np.int64), "behavior_item_ids"),
        (np.zeros((1, 10_001), np.int64), "behavior_item_ids has 10001 ids per user; expected at most 10000"),
        (np.tile(GOOD, (17, 1)), "batch-size must be <= 16"),
    ],
    ids=lambda value: str(value.shape) + str(value.dtype) if isinstance(value, np.ndarray) else "",
)
def test_tensors(raw, ids, message):
    status, came = raw(ids)
    assert status == INVALID[raw.protocol]
    assert message in came


@pytest.mark.parametrize("name", ["exclude_item_ids", "allow_item_ids"])
@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (GOOD.astype(np.float32), "'{}' data-type is 'FP32', but model 'nann' expects 'INT64'"),
        (GOOD[None], "unexpected shape for input '{}'"),
        (np.tile(GOOD, (2, 1)), "batch size does not match other inputs for 'nann'"),
        (np.zeros((1, 10_001), np.int64), "{} has 10001 ids per user; expected at most 10000: name a set of items"),
    ],
    ids=["type", "shape", "users", "length"],
)
def test_lists(raw, name, listed, message):
    status, came = raw(GOOD, others={name: listed})
    assert status == INVALID[raw.protocol]
    assert message.format(name) in came


def test_another_tensor(raw):
    status, came = raw(GOOD, name="items")
    assert status == INVALID[raw.protocol]
    assert "'items'" in came


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"top_k": 0}, "top_k: 0 is out of bounds; expected 1 to 1000"),
        ({"top_k": 1001}, "top_k: 1001 is out of bounds"),
        ({"top_k": -5}, "top_k: -5 is out of bounds"),
        ({"top_k": "ten"}, "top_k is 'ten'; expected a whole number"),
        ({"top_k": True}, "top_k is True; expected a whole number"),
        ({"ef": "20,40,4001"}, "ef: 4001 is out of bounds; expected 1 to 4000"),
        ({"ef": "20,0,60"}, "ef: 0 is out of bounds"),
        ({"ef": "20,40,10"}, "ef of the ground layer is 10 and top_k 20"),
        ({"ef": "20,40"}, "ef is '20,40'; expected 3 whole numbers separated by commas"),
        ({"ef": "20;40;60"}, "ef is '20;40;60'; expected 3 whole numbers"),
        ({"ef": 60}, "ef is 60; expected 3 whole numbers"),
        ({"rounds": "1,2,21"}, "rounds: 21 is out of bounds; expected 0 to 20"),
        ({"rounds": "1,-2,1"}, "rounds: -2 is out of bounds"),
        ({"rounds": "1,two,1"}, "rounds is '1,two,1'; expected 3 whole numbers"),
        ({"deadline_ms": 0}, "deadline_ms: 0 is out of bounds; expected 1 to"),
        ({"deadline_ms": "soon"}, "deadline_ms is 'soon'; expected a whole number"),
        ({"on_deadline": "wait"}, 'on_deadline is \'wait\'; expected "error" or "partial"'),
        ({"seeds": 4001, "entry": "seeds"}, "seeds: 4001 is out of bounds; expected 1 to 4000"),
        ({"seed_ef": 4001, "entry": "seeds"}, "seed_ef: 4001 is out of bounds; expected 1 to 4000"),
        ({"exclude_history": 1}, "exclude_history is 1; expected true or false"),
        ({"exclude_history": "perhaps"}, "exclude_history is 'perhaps'; expected true or false"),
        ({"filter": ""}, "filter is ''; expected text"),
        ({"filter": 5}, "filter is 5; expected text"),
        ({"filter": "price <"}, 'parameter filter: position 8: got the end; expected a number with "<"'),
        ({"filter": "price < 5 price"}, 'position 11: got "price"; expected "and", "or" or the end'),
        ({"filter": "price < 5; x"}, "position 10: got ';'; expected a name, a value, an operator, a comma or a paren"),
        (
            {"filter": 'tag = "x'},
            "position 9: got the end within the text that begins at position 7; expected a closing",
        ),
        (
            {"filter": "colour = 3"},
            "position 1: got 'colour'; expected an attribute of the items: department, brand, price",
        ),
        (
            {"filter": 'price = "cheap"'},
            'attribute price is a number; got = "cheap"; expected a comparison with numbers',
        ),
        ({"filter": "department < 3"}, "attribute department is a category; got < 3; expected a"),
        ({"filter": "(" * 40 + "available" + ")" * 40}, "position 33: got more than 32 levels of parentheses"),
        ({"filter": " and ".join(["price < 5"] * 100)}, "got more than 64 comparisons; expected at most 64"),
        ({"filter": f"price in ({', '.join(map(str, range(1001)))})"}, "a list of more than 1,000 values; expected at"),
        ({"filter": "available " * 2000}, "the filter has 20,000 characters; expected at most 16,384"),
        ({"filter_name": "dear"}, "filter_name is 'dear'; expected one of: available_de"),
        ({"filter_name": "../cheap"}, "filter_name is '../cheap'; expected one of: available_de"),
        ({"filter_name": True}, "filter_name is True; expected text"),
        ({"topk": 5}, "unknown request parameter 'topk'; did you mean 'top_k'? known are top_k, ef, rounds"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_parameters(raw, parameters, message):
    status, came = raw(GOOD, parameters=parameters)
    assert status == INVALID[raw.protocol]
    assert message in came


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"top_k": 2.5}, "top_k"),
        ({"top_k": None}, "top_k"),
        ({"top_k": [5]}, "top_k"),
        ({"ef": [20, 40, 60]}, "ef"),
        ({"ef": {"2": 20}}, "ef"),
    ],
    ids=str,
)
def test_parameters_that_only_json_can_say(server, parameters, message):
    data = {"name": "behavior_item_ids", "datatype": "INT64", "shape": [1, 1], "data": [1060]}
    body = json.dumps({"inputs": [data], "parameters": parameters}).encode()
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"http://{server.http_url}/v2/models/nann/infer", body, timeout=20)
    words = json.load(caught.value)["error"]
    assert caught.value.code == 400
    assert message in words, words
    assert "Traceback" not in words


def test_our_client_raises_our_errors(client):
    with pytest.raises(RequestError, match="top_k: 1001 is out of bounds"):
        client.retrieve(GOOD, top_k=1001)
    with pytest.raises(RequestError, match="ef is '200'; expected 3 whole numbers separated by commas, one for each"):
        client.retrieve(GOOD, ef=200)


@pytest.mark.parametrize(
    "asked",
    [
        {"ef": "x"},
        {"ef": np.array(5)},
        {"deadline_ms": float("nan")},
        {"priority": -1},
        {"priority": 9},
        {"priority": "high"},
        {"top_k": 10**20},
        {"top_k": 2.7},
        {"timeout_s": float("inf")},
        {"request_id": "\ud800"},
    ],
    ids=str,
)
def test_mistakes_that_neither_protocol_can_carry_are_request_errors(client, asked):
    with pytest.raises(RequestError, match=next(iter(asked))):
        client.retrieve(GOOD, **asked)
    assert client.retrieve(GOOD, priority=3, request_id="\u00fc").item_ids.shape == (1, 20)


def test_tritons_own_parameters_are_no_mistake(client, server):
    triton = triton_grpc.InferenceServerClient(server.grpc_url)
    tensor = triton_grpc.InferInput("behavior_item_ids", list(GOOD.shape), "INT64")
    tensor.set_data_from_numpy(GOOD)
    result = triton.infer("nann", [tensor], priority=1, timeout=20_000_000, request_id="r", headers={"x-user": "7"})
    np.testing.assert_array_equal(result.as_numpy("item_ids"), client.retrieve(GOOD).item_ids)
    triton.close()


@pytest.mark.parametrize(
    ("item", "message"), [(NAN_INDEX, "the scorer returned NaN"), (FAILING_INDEX, "scorer version 1 failed")]
)
def test_a_failing_scorer_is_our_fault_and_the_server_goes_on(raw, client, item, message):
    ids = item_ids()[None, [item]]
    status, came = raw(ids)
    assert status == INTERNAL[raw.protocol]
    assert message in came
    with pytest.raises(ServerError, match=message) as caught:
        client.retrieve(ids)
    assert caught.type is ServerError


def test_bad_requests_among_concurrent_good_ones_fail_alone(server):
    def ask(number):
        if number % 4:
            return client.retrieve(GOOD, top_k=1 + number % 9).item_ids.shape
        try:
            client.retrieve(GOOD, ef="1,2,3,4")
        except RequestError as error:
            return "ef is '1,2,3,4'" in str(error)

    with RetrievalClient(server.grpc_url, timeout_s=30) as client, ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(ask, range(80)))
    assert answers == [(1, 1 + number % 9) if number % 4 else True for number in range(80)]


@pytest.mark.parametrize(
    ("item", "message"), [(NAN_INDEX, "the scorer returned NaN"), (FAILING_INDEX, "scorer version 1 failed")]
)
def test_users_that_the_scorer_fails_for_spoil_no_answer_of_their_batch(server, item, message):
    spoiled = item_ids()[[item]].tolist()

    def ask(number):
        if number % 3:
            return client.retrieve(GOOD).item_ids
        with pytest.raises(ServerError, match=message):
            client.retrieve(spoiled)
        return None

    with RetrievalClient(server.grpc_url, timeout_s=30) as client, ThreadPoolExecutor(24) as pool:
        expected = client.retrieve(GOOD).item_ids
        before = read_metrics(server.metrics_url)
        answers = list(pool.map(ask, range(72)))
        after = read_metrics(server.metrics_url)
    for number, answer in enumerate(answers):
        if number % 3:
            np.testing.assert_array_equal(answer, expected)
    requests, batches = (
        after[name, "beam_retrieval"] - before[name, "beam_retrieval"]
        for name in ("nv_inference_request_success", "nv_inference_exec_count")
    )
    assert 0 < batches < requests, "the requests must have met in batches"


def test_what_clients_do_not_need_is_closed_to_them(server):
    triton = triton_grpc.InferenceServerClient(server.grpc_url)
    for call in (triton.get_system_shared_memory_status, triton.get_model_repository_index, triton.get_log_settings):
        with pytest.raises(InferenceServerException, match="restricted"):
            call()
    triton.close()
