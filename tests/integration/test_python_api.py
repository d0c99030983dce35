"""docs/python_api.md from its first block to its last, which starts Triton."""

import pytest
from support.pages import ROOT, python_blocks, run_blocks

pytestmark = pytest.mark.triton
API = ROOT / "docs/python_api.md"


def test_the_page_serves_what_it_made(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = [code for code in python_blocks(API) if '"127.0.0.1:8001"' not in code]  # a server that is there already
    names: dict[str, object] = {}
    client = "from nann.clients import RetrievalClient\n"
    run_blocks(API, [*blocks[:-1], client, blocks[-1]], names)
    assert len(blocks) == len(python_blocks(API)) - 2
    served = capsys.readouterr().out.rpartition("[[")[2].rstrip("]\n").split()
    found = names["bundle"].external_ids(names["found"].items)[0]
    assert [int(item) for item in served] == found.tolist()
