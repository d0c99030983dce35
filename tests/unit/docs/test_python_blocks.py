"""The Python of the pages runs as it stands there, and says what the pages say it gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.pages import ROOT, python_blocks, run_blocks

import nann.clients
import nann.python_backend
import nann.training
from nann.bundle import Bundle
from nann.errors import FilterError
from nann.filters import parse
from nann.filters.catalogue import CACHE_BYTES
from nann.filters.parser import MAX_DEPTH, MAX_LENGTH, MAX_TERMS, MAX_VALUES

pytestmark = pytest.mark.heavy
API = ROOT / "docs/python_api.md"


class FakeTransport:
    """Gives every user item 1001, as a server would."""

    def infer(self, request, timeout_s):
        users, width = len(next(iter(request.inputs.values()))), request.parameters.get("top_k", 1)
        one = np.ones((users, 1), np.int32)
        return {
            "item_ids": np.full((users, width), 1001),
            "scores": np.ones((users, width), np.float32),
            **dict.fromkeys(("unknown_items", "items_scored", "status"), one),
            "items_matching": one.astype(np.int64),
            "request_key": np.full((users, 1), request.key),
            "stored_items": np.zeros((users, 1), np.int32),
        }

    def close(self):
        pass


class AsyncFakeTransport(FakeTransport):
    async def infer(self, request, timeout_s):
        return super().infer(request, timeout_s)

    async def close(self):
        pass


@pytest.fixture
def fake_server(monkeypatch):
    asked = []
    monkeypatch.setattr("nann.clients._client.open_transport", lambda url, *_: asked.append(url) or FakeTransport())
    return asked


@pytest.fixture(scope="module")
def api_names(tmp_path_factory) -> dict[str, object]:
    """What the API page defines, run in order in an empty folder, but for its last block, which needs Triton."""
    names: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("python_api"))
        patch.setattr("nann.clients._client.open_transport", lambda *_: FakeTransport())
        patch.setattr("nann.clients._async_client.open_async_transport", lambda *_: AsyncFakeTransport())
        run_blocks(API, python_blocks(API)[:-1], names)
    return names


def test_the_api_page_runs_and_its_search_finds_what_is_there(api_names):
    found, exact = api_names["found"], api_names["exact"]
    assert found.items.shape == exact.items.shape == (2, 10)
    assert nann.coverage(found.items, exact.items) > 0.9
    assert api_names["unknown"].tolist() == [[0], [1]]
    np.testing.assert_allclose(api_names["same_states"], api_names["states"], atol=1e-5)
    assert api_names["result"].item_ids.tolist() == [[1001] * 10] * 2
    assert [answer.item_ids.tolist() for answer in api_names["answers"]] == [[[1001] * 10]] * 2
    assert api_names["seeded"].entry == "seeds"


def test_the_api_page_has_every_public_name():
    text = API.read_text()
    packages = (nann, nann.training, nann.python_backend)
    names = [name for package in packages for name in package.__all__] + [
        "AsyncRetrievalClient",
        "RetrievalClient",
        "RetrievalResult",
        "SearchOptions",
        "Tls",
    ]
    assert [name for name in names if name not in text] == []


def test_the_custom_scorer_page_runs(api_names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = dict(api_names)
    page = ROOT / "docs/custom_scorer.md"
    run_blocks(page, python_blocks(page), names)
    assert names["found"].items.shape == (2, 50)
    assert isinstance(names["bundle"], Bundle)
    assert Bundle.open("build/bundle").user_state_width == torch.as_tensor(names["vectors"]).shape[1]


def test_the_filters_page_runs_and_says_the_languages_bounds(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page, names = ROOT / "docs/filters.md", {}
    run_blocks(page, python_blocks(page), names)
    printed, matching = capsys.readouterr().out.splitlines()
    text = page.read_text(encoding="utf-8")
    assert f"print(cheap)  # {printed}\n" in text
    assert matching == "30 [22 24 26]"  # the prices 5 to 20 are those of items 21 to 81; the even ones are available
    bounds = (f"{MAX_LENGTH:,} characters", f"{MAX_TERMS} comparisons", f"{MAX_VALUES:,} values", f"{MAX_DEPTH} levels")
    for words in (*bounds, f"{CACHE_BYTES >> 20} MiB"):
        assert words in text, words
    with pytest.raises(FilterError) as caught:
        parse("price <")
    assert str(caught.value) in " ".join(text.split())


def test_the_readme_asks_the_server(fake_server, capsys):
    run_blocks(ROOT / "README.md", python_blocks(ROOT / "README.md"), {})
    assert fake_server == ["127.0.0.1:8001"]
    assert capsys.readouterr().out == f"{np.full(10, 1001)} {np.ones(10)}\n"
