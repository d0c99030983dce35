"""What the page may ask, and a question as text to copy."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from nann.clients import Tls
from nann.errors import RequestError
from nann.explore.asked import Asked
from nann.explore.snippets import as_curl, as_python
from nann.item_ids import NUMBERS, TEXT

N = 50
IDS = np.arange(10, 60)
TEXTS = np.array([b"a", b"b", b"c", b"d", "sku-é".encode()])


def test_a_question_is_read():
    body = {"items": [3, 0], "user_id": "u", "profile": [1], "parameters": {"top_k": 5, "rounds": "1,2"}}
    asked = Asked.of_json(body, N)
    assert (asked.items, asked.user_id, asked.profile) == ((3, 0), "u", (1,))
    assert (asked.options.top_k, asked.options.rounds) == (5, (1, 2))
    assert Asked.of_json({}, N) == Asked.of_json({"items": None, "user_id": "", "parameters": None}, N) == Asked()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], r"the question is \[\]; expected a JSON object with some of items, user_id"),
        ({"things": 1}, "the question is .*; expected a JSON object"),
        ({"items": "3"}, "items is '3'; expected a list of whole numbers"),
        ({"items": [50]}, "items holds 50; expected whole numbers from 0 to 49"),
        ({"items": [-1]}, "items holds -1"),
        ({"items": [True]}, "items holds True"),
        ({"items": ["x" * 99]}, r"items holds 'x+\.\.\.; expected whole numbers"),
        ({"items": [1] * 10_001}, "items holds 10,001 items; expected at most 10,000"),
        ({"excluded": [50]}, "excluded holds 50"),
        ({"excluded": [1] * 10_001}, "excluded holds 10,001 items"),
        ({"user_id": 17}, "user_id is 17; expected text"),
        ({"user_id": "\ud800"}, "user_id is .*; expected text"),
        ({"profile": [1.5]}, "profile holds 1.5"),
        ({"parameters": [1]}, r"parameters is \[1\]; expected a JSON object"),
        ({"parameters": {"topk": 1}}, "unknown request parameter 'topk'; did you mean 'top_k'[?] known are top_k"),
        ({"parameters": {"top_k": 0}}, "parameter top_k: 0 is out of bounds"),
    ],
)
def test_what_can_not_be_asked(body, message):
    with pytest.raises(RequestError, match=message):
        Asked.of_json(body, N)


def test_curl_sends_what_the_client_would():
    body = {"items": [1], "user_id": "it's", "profile": [2, 0], "excluded": [4, 5], "parameters": {"top_k": 3}}
    words = shlex.split(as_curl(Asked.of_json(body, N), IDS, NUMBERS, "http://h:8000"))
    assert words[:4] == ["curl", "-s", "http://h:8000/v2/models/nann/infer", "-d"]
    body = json.loads(words[4])
    assert {each["name"]: each["data"] for each in body["inputs"]} == {
        "behavior_item_ids": [11], "user_id": ["it's"], "user_profile": [2, 0], "exclude_item_ids": [14, 15],
    }  # fmt: skip
    assert body["parameters"] == {"top_k": 3}


def test_of_text_ids():
    (tensor,) = json.loads(shlex.split(as_curl(Asked((4,)), TEXTS, TEXT, "http://h:1"))[-1])["inputs"]
    assert tensor == {"name": "behavior_item_ids", "datatype": "BYTES", "shape": [1, 1], "data": ["sku-é"]}


def test_a_user_alone_needs_no_items():
    asked = Asked((), "u-1")
    assert "behavior_item_ids" not in as_curl(asked, IDS, NUMBERS, "http://h:1")
    assert "retrieve(\n        user_id='u-1',\n    )" in as_python(asked, IDS, NUMBERS, "h:2")


def test_nobody_is_a_history_of_padding():
    (tensor,) = json.loads(shlex.split(as_curl(Asked(), IDS, NUMBERS, "http://h:1"))[-1])["inputs"]
    assert tensor["data"] == [0]


def test_python_is_a_program():
    asked = Asked.of_json({"items": [1], "excluded": [2], "parameters": {"filter": 'a = "b"'}}, N)
    text = as_python(asked, IDS, NUMBERS, "h:2")
    compile(text, "snippet", "exec")
    assert "[11],\n" in text
    assert "exclude_item_ids=[12],\n" in text
    assert """filter='a = "b"',""" in text


def test_copies_know_the_tls_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ("it's a ca.pem", "own.pem", "own.key")
    ca, certificate, key = (Path(name) for name in names)
    for path in (ca, certificate, key):
        path.touch()
    files = [str(tmp_path / name) for name in names]
    trust = Tls(ca, certificate, key)
    words = shlex.split(as_curl(Asked((1,)), IDS, NUMBERS, "https://h:443", trust))
    assert words[:9] == [
        "curl", "-s", "--cacert", files[0], "--cert", files[1], "--key", files[2],
        "https://h:443/v2/models/nann/infer",
    ]  # fmt: skip
    assert "--cacert" not in as_curl(Asked((1,)), IDS, NUMBERS, "http://h:8000", trust), "nothing is encrypted there"
    text = as_python(Asked((1,)), IDS, NUMBERS, "h:2", trust)
    compile(text, "snippet", "exec")
    assert "import RetrievalClient, Tls\n" in text
    assert (
        f"""RetrievalClient('h:2', tls=Tls(ca="{files[0]}", certificate='{files[1]}', key='{files[2]}')) as""" in text
    )
    assert "('h:2', tls=Tls())" in as_python(Asked((1,)), IDS, NUMBERS, "h:2", Tls())
