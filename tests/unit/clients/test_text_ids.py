"""Text ids in requests and answers, without a server."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import InferenceServerException, serialize_byte_tensor

from nann.clients import RetrievalClient
from nann.clients._codec import decode_result, encode_request, join
from nann.clients._errors import translate
from nann.errors import RequestError, ServerError, ServerUnavailable
from nann.item_ids import NUMBERS, TEXT
from nann.signature import ALLOW_ITEM_IDS, BEHAVIOR_ITEM_IDS, EXCLUDE_ITEM_IDS, PADDING_SCORE

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@pytest.mark.parametrize(
    ("ids", "rows"),
    [
        (["sku-1", "日本"], [["sku-1", "日本"]]),
        ([["a", "b"], ["c"]], [["a", "b"], ["", "c"]]),
        ([["a"], []], [["a"], [""]]),
        ([""], [[""]]),
        ([b"a", b"b"], [["a", "b"]]),
        (np.array(["a", "bc"]), [["a", "bc"]]),
        (np.array([b"a", b"bc"]), [["a", "bc"]]),
        (np.array([["a", "b"], ["c", "d"]], object), [["a", "b"], ["c", "d"]]),
        (pl.Series(["a", "b"]), [["a", "b"]]),
        (["0012", "12"], [["0012", "12"]]),
    ],
)
def test_histories_of_texts_become_rows(ids, rows):
    ((spec, array),) = encode_request(ids).inputs.items()
    assert (spec, spec.triton_dtype, array.dtype) == (BEHAVIOR_ITEM_IDS, "BYTES", object)
    assert TEXT.plain(array) == rows


@given(st.lists(st.lists(texts, min_size=1, max_size=5), min_size=1, max_size=4))
def test_texts_are_sent_as_their_utf_8(users):
    array = encode_request(users).inputs[BEHAVIOR_ITEM_IDS]
    width = max(map(len, users))
    wanted = [text.encode() for row in users for text in [""] * (width - len(row)) + row]
    sent = b"".join(len(text).to_bytes(4, "little") + text for text in wanted)
    assert serialize_byte_tensor(array).item() == sent


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", 1], "behavior_item_ids holds 1; expected texts that UTF-8 can hold, one list per user"),
        (["a", None], "behavior_item_ids holds None; expected texts"),
        (["a", ["b"]], r"behavior_item_ids holds \['b'\]; expected texts"),
        (["\ud800"], r"behavior_item_ids holds '\\ud800'; expected texts that UTF-8 can hold"),
        ([["a"], [1]], "behavior_item_ids has texts, and behavior_item_ids numbers; expected ids of one kind"),
        ([1, "a"], "behavior_item_ids holds <U21"),
        ("sku-1", "behavior_item_ids holds <U5"),
    ],
)
def test_what_is_no_text_id_is_refused(ids, message):
    with pytest.raises(RequestError, match=message):
        encode_request(ids)


def test_lists_are_of_the_histories_kind():
    request = encode_request([["a"], ["b"]], exclude_item_ids=["c", "d"], allow_item_ids=[])
    assert TEXT.plain(request.inputs[EXCLUDE_ITEM_IDS]) == [["c", "d"]] * 2
    assert TEXT.plain(request.inputs[ALLOW_ITEM_IDS]) == [[""], [""]]
    assert TEXT.plain(encode_request([], exclude_item_ids=["c"]).inputs[BEHAVIOR_ITEM_IDS]) == [[""]]
    with pytest.raises(RequestError, match="exclude_item_ids has texts, and behavior_item_ids numbers"):
        encode_request([1], exclude_item_ids=["a"])


def answer(request, ids):
    one = np.ones((1, 1), np.int32)
    return {
        "item_ids": ids,
        "scores": np.array([[0.5, PADDING_SCORE]], np.float32),
        **dict.fromkeys(("unknown_items", "items_scored", "status", "stored_items"), one),
        "items_matching": one.astype(np.int64),
        "request_key": np.array([[request.key]]),
    }


def test_answers_are_texts():
    request = encode_request(["a"])
    result = decode_result(request, answer(request, np.array([["日本".encode(), b""]], object)), 1.0)
    assert result.item_ids.tolist() == [["日本", ""]]
    three = {"item_ids": np.array([[b"a", b"b", b"c"]], object), "scores": np.ones((1, 3), np.float32)}
    wide = decode_result(request, answer(request, None) | three, 1.0)
    assert join([result, wide]).item_ids.tolist() == [["日本", "", ""], ["a", "b", "c"]]
    with pytest.raises(ServerError, match=r"returned int64\[1, 2\] as item_ids; expected BYTES \[1, any\]"):
        decode_result(request, answer(request, np.array([[7, -1]])), 1.0)
    with pytest.raises(ServerError, match=r"an item id that is no UTF-8 .*; check its bundle"):
        decode_result(request, answer(request, np.array([[b"\xff", b""]], object)), 1.0)
    numbers = encode_request([1])
    with pytest.raises(ServerError, match=r"returned object\[1, 2\] as item_ids; expected INT64 \[1, any\]"):
        decode_result(numbers, answer(numbers, np.array([[b"a", b""]], object)), 1.0)


class FakeTransport:
    """A server whose ids are of a kind; None: it can't be asked."""

    def __init__(self, kind: str | None) -> None:
        self.kind, self.asked, self.sent = kind, 0, []

    def settings(self, timeout_s):
        self.asked += 1
        if self.kind is None:
            raise ServerUnavailable("closed to you")
        return {"item_id_kind": self.kind} if self.kind else {}

    def infer(self, request, timeout_s):
        self.sent.append(request.inputs[BEHAVIOR_ITEM_IDS].tolist())
        empty = np.array([[-1, -1]]) if self.sent[-1] == [[0]] else np.array([[b"", b""]], object)
        return answer(request, empty)


@pytest.mark.parametrize(("kind", "sent"), [("text", [[""]]), ("numbers", [[0]]), ("", [[0]]), (None, [[0]])])
def test_an_empty_history_is_of_the_servers_kind(kind, sent):
    transport = FakeTransport(kind)
    client = RetrievalClient(transport=transport)
    for _ in range(2):
        client.retrieve([])
    assert transport.sent == [sent, sent]
    assert transport.asked == (2 if kind is None else 1)


def test_the_server_says_its_kind():
    assert RetrievalClient(transport=FakeTransport("text")).id_kind() is TEXT
    assert RetrievalClient(transport=FakeTransport("")).id_kind() is NUMBERS
    with pytest.raises(ServerUnavailable, match="closed to you"):
        RetrievalClient(transport=FakeTransport(None)).id_kind()


@pytest.mark.parametrize(
    ("came", "expects", "words"),
    [
        ("INT64", "BYTES", r"whole numbers \(INT64\); the item ids of the server at h:1 are text \(BYTES\)"),
        ("BYTES", "INT64", r"text \(BYTES\); the item ids of the server at h:1 are whole numbers \(INT64\)"),
        ("FP32", "INT64", r"FP32; the item ids of the server at h:1 are whole numbers \(INT64\)"),
    ],
)
def test_ids_of_the_other_kind_are_told(came, expects, words):
    message = f"inference input 'allow_item_ids' data-type is '{came}', but model 'nann' expects '{expects}'"
    error = translate(InferenceServerException(message, "400"), "h:1", 1)
    with pytest.raises(RequestError, match=f"allow_item_ids came as {words}"):
        raise error
