"""docs/requests.md: its requests, as they stand there, against a live server."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.error
import urllib.request

import numpy as np
import pytest
from support.live_bundle import item_ids
from support.pages import ROOT, python_blocks
from support.stored_users import HISTORIES

from nann.signature import ENSEMBLE, PADDING_SCORE

pytestmark = pytest.mark.triton
PAGE = ROOT / "docs/requests.md"
IDS = item_ids()[[20, 21, 22]].tolist()


def here(text: str, server) -> str:
    """The page's text with this server's addresses and the ids of its bundle."""
    for of_page, ours in (
        ("127.0.0.1:8000", server.http_url),
        ("127.0.0.1:8001", server.grpc_url),
        *zip(("1082185", "995242", "1029743"), map(str, IDS), strict=True),
    ):
        assert of_page in PAGE.read_text()
        text = text.replace(of_page, ours)
    return text


def plain_and_conditions(found: list[str]) -> tuple[str, str]:
    """The example without conditions and the one with."""
    conditions, plain = sorted(found, key=lambda text: "exclude_history" not in text)
    return plain, conditions


def curl_commands(*, by_user: bool = False) -> list[str]:
    found = re.findall(r"^```\n(curl .*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [command for command in found if ("user_id" in command) is by_user]


def asked_with_curl(command: str, server) -> dict:
    ended = subprocess.run(["bash", "-c", here(command, server)], capture_output=True, text=True, check=True)
    return json.loads(ended.stdout)


def test_over_http_and_grpc_the_answer_is_that_of_our_client(server, client):
    expected = client.retrieve(IDS, top_k=10)
    answer = asked_with_curl(plain_and_conditions(curl_commands())[0], server)
    outputs = {tensor["name"]: tensor for tensor in answer["outputs"]}
    assert answer["id"] == "r-17"
    assert outputs.keys() == {"item_ids", "scores", "status"}
    assert outputs["item_ids"]["data"] == expected.item_ids[0].tolist()
    np.testing.assert_allclose(outputs["scores"]["data"], expected.scores[0], rtol=1e-6)

    block, _ = plain_and_conditions(python_blocks(PAGE))
    names: dict[str, object] = {}
    exec(compile(here(block, server), PAGE.name, "exec"), names)
    np.testing.assert_array_equal(names["item_ids"], expected.item_ids[0])
    np.testing.assert_array_equal(names["scores"], expected.scores[0])
    assert names["answer"].id == "r-17"
    assert names["service_pb2"].DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name in PAGE.read_text()


def test_the_conditions_of_the_page(server, client):
    text = 'department in ("GROCERY", "PRODUCE") and not brand = "Private"'
    expected = client.retrieve(IDS, exclude_history=True, exclude_item_ids=IDS[1:], filter=text)
    answer = asked_with_curl(plain_and_conditions(curl_commands())[1], server)
    outputs = {tensor["name"]: tensor["data"] for tensor in answer["outputs"]}
    assert outputs["item_ids"] == expected.item_ids[0].tolist()
    assert outputs["items_matching"] == expected.items_matching.tolist()

    names: dict[str, object] = {}
    exec(compile(here(plain_and_conditions(python_blocks(PAGE))[1], server), PAGE.name, "exec"), names)
    expected = client.retrieve(
        IDS, exclude_history=True, exclude_item_ids=IDS[1:2], filter=text, filter_name="available_de"
    )
    np.testing.assert_array_equal(names["shown"].item_ids, expected.item_ids)


def test_the_user_of_the_page(server, client):
    (command,) = curl_commands(by_user=True)
    outputs = {tensor["name"]: tensor["data"] for tensor in asked_with_curl(command, server)["outputs"]}
    expected = client.retrieve(HISTORIES["17"] + IDS[:1], top_k=10, exclude_history=True)
    assert outputs["item_ids"] == expected.item_ids[0].tolist()
    assert (outputs["stored_items"], outputs["status"]) == ([11], [0])


def test_a_history_of_length_0_over_grpc(server, client):
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    request = service_pb2.ModelInferRequest(model_name="nann", raw_input_contents=[b""])
    request.inputs.add(name="behavior_item_ids", datatype="INT64", shape=[1, 0])
    with grpc.insecure_channel(server.grpc_url) as channel:
        answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=20)
    raw = dict(zip((tensor.name for tensor in answer.outputs), answer.raw_output_contents, strict=True))
    np.testing.assert_array_equal(np.frombuffer(raw["item_ids"], "<i8"), client.retrieve([]).item_ids[0])


def test_the_bundle_is_named(server, bundle):
    with urllib.request.urlopen(f"http://{server.http_url}/v2/models/nann/config", timeout=20) as response:
        assert json.load(response)["parameters"]["bundle"]["string_value"] == bundle.bundle_id


@pytest.mark.parametrize("data", ['["a"]', "[1.5]", "["])
def test_what_triton_calls_its_own_error(server, data):
    body = f'{{"inputs": [{{"name": "behavior_item_ids", "datatype": "INT64", "shape": [1, 1], "data": {data}}}]}}'
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"http://{server.http_url}/v2/models/nann/infer", body.encode(), timeout=20)
    words = json.load(caught.value)["error"].partition(":")[0]
    assert caught.value.code == 500
    assert f'"{words}"' in PAGE.read_text()


def test_the_table_has_every_tensor():
    text = PAGE.read_text()
    for direction, specs in (("input", ENSEMBLE.inputs), ("output", ENSEMBLE.outputs)):
        for spec in specs:
            (row,) = re.findall(
                rf"^\| `{spec.name}` \| {direction}[^|]* \| (\w+) \| \[B, (\w+)\] \|", text, re.MULTILINE
            )
            assert row[0] == spec.triton_dtype
            assert row[1] in ({"any", "top_k"} if spec.shape == (-1,) else {str(spec.shape[0])})
    assert repr(PADDING_SCORE).replace("+", "") in text
