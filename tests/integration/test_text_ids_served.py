"""A text catalogue on a live server: the answers are those of the same catalogue with numbers, by their texts."""

from __future__ import annotations

import contextlib
import json
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pytest
from support.live_bundle import ITEMS, attributes, item_ids, make_bundle, text_ids
from support.own_server import own_server
from support.reference import OfflineEnsemble
from support.waiting import wait_until
from tritonclient.grpc import service_pb2, service_pb2_grpc
from typer.testing import CliRunner

from nann.bundle import Bundle
from nann.cli.main import app
from nann.cli.serve import _welcome
from nann.clients import RetrievalClient
from nann.errors import ConfigError, DeployError, RequestError
from nann.item_ids import MAX_ID_BYTES, TEXT
from nann.perf.load.perf_analyzer import Load, run_perf_analyzer
from nann.perf.load.perf_analyzer_install import find_perf_analyzer
from nann.python_backend.repository.deploy import deploy, rollback_online
from nann.python_backend.server.heartbeat import Restarts, model_heartbeat
from nann.python_backend.server.processes import child_processes
from nann.python_backend.server.served_form import ServedForm
from nann.signature import BEAM_RETRIEVAL

pytestmark = pytest.mark.triton

TEXTS = np.array(text_ids(), object)
UNKNOWN = ["sku-", "0", TEXTS[0] + "x", "x" * MAX_ID_BYTES, "x" * 100_000, TEXTS[5] + "\0"]


@pytest.fixture(scope="module")
def text_bundle(tmp_path_factory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("texts") / "bundle", texts=True)


@pytest.fixture(scope="module")
def text_server(text_bundle, tmp_path_factory):
    with own_server(text_bundle.path, tmp_path_factory.mktemp("text_server")) as server:
        yield server


@pytest.fixture(scope="module", params=["grpc", "http"])
def text_client(request, text_server):
    url = text_server.grpc_url if request.param == "grpc" else text_server.http_url
    with contextlib.closing(RetrievalClient(url, request.param, timeout_s=20)) as client:
        yield client


@pytest.fixture(scope="module")
def offline(bundle):
    """The search of the bundle with numbers, whose items are the same."""
    return OfflineEnsemble(bundle)


def history(seed: int, length: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).integers(10, ITEMS, length)


def texts_of(ids: np.ndarray) -> list[str]:
    """The texts of numbers of the other bundle; -1 becomes the empty one."""
    return ["" if item < 0 else TEXTS[np.searchsorted(item_ids(), item)] for item in ids.tolist()]


def expected(offline, indices, hidden=()) -> list[str]:
    numbers = item_ids()
    return texts_of(offline.retrieve(numbers[indices].tolist(), hidden=numbers[list(hidden)].tolist())[0])


def test_answers_over_both_protocols(text_client, offline):
    users = [history(seed, length) for seed, length in ((0, 3), (1, 9), (2, 30))]
    result = text_client.retrieve([[*UNKNOWN[:row], *TEXTS[indices]] for row, indices in enumerate(users)])
    assert result.item_ids.tolist() == [expected(offline, indices) for indices in users]
    assert result.unknown_items.tolist() == [0, 1, 2]
    assert text_client.retrieve([*UNKNOWN, ""]).unknown_items.tolist() == [len(UNKNOWN)]
    assert text_client.id_kind() is TEXT


def test_an_empty_history(text_client, offline):
    assert text_client.retrieve([]).item_ids.tolist() == [texts_of(offline.retrieve([])[0])]


def test_conditions(text_client, offline):
    user = history(3, 30)
    hidden = {*user, *range(100, 140)}
    result = text_client.retrieve(
        TEXTS[user].tolist(), exclude_history=True, exclude_item_ids=[*UNKNOWN, *TEXTS[100:140]]
    )
    assert result.item_ids[0].tolist() == expected(offline, user, hidden)
    allowed = text_client.retrieve(TEXTS[user], allow_item_ids=["", *TEXTS[200:203], *UNKNOWN], top_k=5)
    assert sorted(allowed.item_ids[0]) == ["", "", *sorted(TEXTS[200:203])]
    assert allowed.items_matching.tolist() == [3]
    prices = attributes()["price"]
    cheap = {TEXTS[index] for index, price in enumerate(prices) if price is not None and price < 5}
    assert set(text_client.retrieve(TEXTS[user], filter="price < 5", top_k=10).item_ids[0]) <= cheap


def test_a_named_filter_of_a_list_of_texts(text_client, text_server, tmp_path):
    (tmp_path / "ids.txt").write_text("\n".join([*TEXTS[300:320], "gone"]), encoding="utf-8")
    at = ["--repository", str(text_server.options.repository)]
    done = CliRunner().invoke(app, ["filters", "set", "shelf", "--ids", str(tmp_path / "ids.txt"), *at])
    assert "allows 20 of 4,000 items; 1 ids are unknown" in done.output, done.output
    result = text_client.retrieve(TEXTS[:3], filter_name="shelf", top_k=20)
    assert sorted(result.item_ids[0]) == sorted(TEXTS[300:320])


def ask_json(server, data: list, name: str = "behavior_item_ids", datatype: str = "BYTES") -> dict:
    tensors = [{"name": name, "shape": [1, len(data)], "datatype": datatype, "data": data}]
    if name != "behavior_item_ids":
        tensors.append({"name": "behavior_item_ids", "shape": [1, 1], "datatype": "BYTES", "data": [""]})
    body = json.dumps({"inputs": tensors}, ensure_ascii=False)
    command = ["curl", "-s", f"http://{server.http_url}/v2/models/nann/infer", "-d", body]
    answer = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return answer if "error" in answer else {each["name"]: each["data"] for each in answer["outputs"]}


def test_curl(text_server, offline):
    user = history(4)
    answer = ask_json(text_server, ["", *TEXTS[user], "gone"])
    assert answer["item_ids"] == expected(offline, user)
    assert answer["unknown_items"] == [1]


def test_the_commands_that_serve_prints(text_server, text_bundle, offline, capsys):
    _welcome(text_server, text_bundle)
    (curl,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("curl"))
    answer = json.loads(subprocess.run(["bash", "-c", curl], capture_output=True, check=True).stdout)
    (found,) = (each["data"] for each in answer["outputs"] if each["name"] == "item_ids")
    assert found == expected(offline, np.arange(3))[:5]


def test_the_query_command(text_server, text_bundle, offline):
    user = history(5, 3)
    query = ["query", "--url", text_server.grpc_url, "--bundle", str(text_bundle.path), "--json"]
    done = CliRunner().invoke(app, [*query, "--ids", TEXT.typed(TEXTS[user]), "--exclude", TEXTS[7]])
    assert done.exit_code == 0, done.output
    (answer,) = json.loads(done.stdout.splitlines()[-1])["users"]
    assert [item["item_id"] for item in answer["items"]] == expected(offline, user, [7])
    assert answer["items"][0]["name"].startswith("item ")


def test_ids_of_the_other_kind(text_client, text_server, client):
    words = r"came as whole numbers \(INT64\); the item ids of the server at .* are text \(BYTES\)"
    with pytest.raises(RequestError, match=f"behavior_item_ids {words}"):
        text_client.retrieve([1, 2])
    with pytest.raises(RequestError, match=r"came as text \(BYTES\); .* are whole numbers \(INT64\)"):
        client.retrieve(["1", "2"])
    assert "expects 'BYTES'" in ask_json(text_server, [1], datatype="INT64")["error"]


def binary(*parts: bytes, announced: int | None = None) -> bytes:
    return b"".join((len(part) if announced is None else announced).to_bytes(4, "little") + part for part in parts)


def refused(server, body: bytes, **headers: str) -> str:
    """The message of a request over HTTP that is refused; Triton's status for JSON of another type is 500."""
    url = f"http://{server.http_url}/v2/models/nann/infer"
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(url, body, named), timeout=20)
    with caught.value as answer:
        words = answer.read().decode()
    assert answer.code == 400 or (answer.code == 500 and "Unable to parse" in words), words
    return words


@pytest.mark.parametrize("name", ["behavior_item_ids", "exclude_item_ids"])
@pytest.mark.parametrize(
    ("content", "shape"),
    [
        (binary(b"abc", announced=4), [1, 1]),
        (binary(b"abc", announced=2), [1, 1]),
        (binary(b"abc", announced=2**32 - 1), [1, 1]),
        (b"\1\0", [1, 1]),
        (b"", [1, 1]),
        (binary(b"a", b"b"), [1, 1]),
        (binary(b"a"), [1, 2]),
        (binary(b"a"), [1, 2**40]),
        (binary(b"a"), [4, 2**62]),
        (binary(b"a"), [1, -1]),
    ],
    ids=str,
)
def test_malformed_texts_are_refused_and_the_server_goes_on(text_server, name, content, shape):
    before = set(child_processes(text_server.pid))
    request = service_pb2.ModelInferRequest(model_name="nann")
    if name != "behavior_item_ids":
        request.inputs.add(name="behavior_item_ids", datatype="BYTES", shape=[1, 1])
        request.raw_input_contents.append(binary(b"a"))
    request.inputs.add(name=name, datatype="BYTES", shape=shape)
    request.raw_input_contents.append(content)
    with grpc.insecure_channel(text_server.grpc_url) as channel, pytest.raises(grpc.RpcError) as caught:
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=20)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, caught.value.details()

    others = [{"name": "behavior_item_ids", "shape": [1, 1], "datatype": "BYTES", "data": ["a"]}]
    tensor = {"name": name, "shape": shape, "datatype": "BYTES", "parameters": {"binary_data_size": len(content)}}
    head = json.dumps({"inputs": [*(others if name != "behavior_item_ids" else []), tensor]}).encode()
    refused(text_server, head + content, Inference_Header_Content_Length=str(len(head)))
    assert set(child_processes(text_server.pid)) == before


@pytest.mark.parametrize("raw", [True, False])
def test_a_huge_text_is_refused(text_server, raw):
    request = service_pb2.ModelInferRequest(model_name="nann")
    tensor = request.inputs.add(name="behavior_item_ids", datatype="BYTES", shape=[1, 1])
    if raw:
        request.raw_input_contents.append(binary(bytes(64 << 20)))
    else:
        tensor.contents.bytes_contents.append(bytes(64 << 20))
    with grpc.insecure_channel(text_server.grpc_url) as channel, pytest.raises(grpc.RpcError) as caught:
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=60)
    words = "behavior_item_ids has 67108868 bytes; expected at most 50331648"
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, words)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\xed\xa0\x80", b"a\0", b"\0"], ids=str)
def test_bytes_that_are_no_text_are_unknown_ids(text_server, content):
    request = service_pb2.ModelInferRequest(model_name="nann")
    request.inputs.add(name="behavior_item_ids", datatype="BYTES", shape=[1, 2])
    request.raw_input_contents.append(binary(content, TEXTS[9].encode()))
    with grpc.insecure_channel(text_server.grpc_url) as channel:
        answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=20)
    raw = dict(zip((each.name for each in answer.outputs), answer.raw_output_contents, strict=True))
    assert np.frombuffer(raw["unknown_items"], np.int32).tolist() == [1]


@pytest.mark.parametrize("data", [[1], [None], [["a"]], [{"a": 1}], [True], ["a", "b", "c"]], ids=str)
def test_json_that_is_no_text_is_refused(text_server, data):
    before = set(child_processes(text_server.pid))
    tensor = {"name": "behavior_item_ids", "shape": [1, 2], "datatype": "BYTES", "data": data}
    refused(text_server, json.dumps({"inputs": [tensor]}).encode())
    assert set(child_processes(text_server.pid)) == before


def test_heartbeats_are_answered(text_server, text_bundle):
    """`nann serve` ends a process that does not answer them."""
    repository, control = text_server.options.repository, text_server.control
    form = ServedForm.of(control)
    for model in (form.steps[0], form.steps[-1]):
        before = control.executions(model.name, 1)
        folder = repository / BEAM_RETRIEVAL.name / "1"
        with contextlib.closing(model_heartbeat(control, form, model.name, 1, folder, Restarts())) as heartbeat:
            wait_until(lambda: control.executions(model.name, 1) > before, 20)  # noqa: B023
            wait_until(lambda: heartbeat.silent_s < 0.5, 20)


def test_perf_analyzer_asks_with_texts(text_server):
    try:
        tool = find_perf_analyzer(Path("build/perf_analyzer"))
    except ConfigError as error:
        pytest.skip(str(error))
    histories = [TEXTS[history(seed, length)].tolist() for seed, length in ((7, 1), (8, 5), (9, 30))]
    point = run_perf_analyzer(tool, text_server.grpc_url, histories, Load(concurrency=2), 0.3)
    assert point.qps > 0
    # Its export runs the texts of a tensor together, each but the first behind its length.
    together = {(binary(*(text.encode() for text in one))[4:].decode(),) for one in histories}
    assert {answer.behavior_item_ids for answer in point.answers} <= together


def test_deploys_stay_within_the_kind(text_server, live_bundle_path, tmp_path):
    other, repository = make_bundle(tmp_path / "bundle", seed=2, texts=True), text_server.options.repository
    words = r"version 2 has item ids that are whole numbers \(INT64\), and those of version 1, which answers, are text"
    with pytest.raises(DeployError, match=words):
        deploy(live_bundle_path, repository, text_server.control)
    assert not (repository / "feature_transform" / "2").exists()
    assert deploy(other.path, repository, text_server.control).previous == 1
    indices = history(6)
    wanted = OfflineEnsemble(make_bundle(tmp_path / "numbers", seed=2)).retrieve(item_ids()[indices].tolist())[0]
    with RetrievalClient(text_server.grpc_url) as client:
        assert client.retrieve(TEXTS[indices]).item_ids[0].tolist() == texts_of(wanted)
    assert rollback_online(repository, text_server.control).version == 1
