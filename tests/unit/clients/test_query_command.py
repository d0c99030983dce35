import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from nann import clients
from nann.bundle import write_manifest
from nann.cli.query import query
from nann.errors import BundleError, ConfigError, RequestError, ServerError
from nann.item_ids import NUMBERS, TEXT
from nann.search_params import REQUEST_PARAMETERS
from nann.signature import PADDING_SCORE


@pytest.fixture
def ask(monkeypatch, tmp_path):
    """Runs `nann query` against a client that knows two items; returns its result and what the client was asked."""
    asked = {"answering": "another bundle", "kind": NUMBERS}

    class FakeClient:
        def __init__(self, url, protocol, timeout_s, retry, tls):
            assert not retry, "a person waits"
            asked.update(url=url, protocol=protocol, timeout_s=timeout_s, tls=tls)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def bundle_id(self):
            if asked["answering"] is None:
                raise ServerError("closed to you")
            return asked["answering"]

        def id_kind(self):
            if asked["answering"] is None:
                raise ServerError("closed to you")
            return asked["kind"]

        def retrieve(self, ids, options, **others):
            asked.update(ids=ids, options=options, **others)
            users, items = (
                len(ids or others["user_id"]),
                [30, 10, -1] if asked["kind"] is NUMBERS else ["c[d]", "a,b", ""],
            )
            return clients.RetrievalResult(
                item_ids=np.tile(np.array([items], asked["kind"].dtype), (users, 1)),
                scores=np.tile(np.array([[2.5, 1, PADDING_SCORE]], np.float32), (users, 1)),
                unknown_items=np.full(users, 2, np.int32),
                items_scored=np.full(users, 1234, np.int32),
                items_matching=np.full(users, 5678),
                status=np.zeros(users, np.int32),
                stored_items=np.full(users, 4, np.int32),
                latency_ms=3.25,
            )

    monkeypatch.setattr(clients, "RetrievalClient", FakeClient)
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(query)

    def run(*arguments):
        return CliRunner().invoke(app, arguments), asked

    run.asked = asked
    return run


def write_names(path):
    path.mkdir(parents=True)
    np.save(path / "item_ids.npy", np.array([10, 20, 30]))
    (path / "item_names.txt").write_text("milk\n[bold]bread\nsoap\n")
    graph = {"layer_count": 1, "entry_layer": 0, "hnsw_entry_point": 0}
    search = {"top_k": 2, "ef": [3], "rounds": [1]}
    manifest = {"item_count": 3, "sequence_length": 5, "profile_fields": [], "graph": graph, "search": search}
    return write_manifest(path, manifest, ["item_ids.npy", "item_names.txt"]).bundle_id


def test_a_table_with_names(ask, tmp_path):
    ask.asked["answering"] = write_names(tmp_path / "build" / "bundle")
    result, asked = ask("--ids", "10,20", "--top-k", "3", "--ef", "1,2,3", "--rounds", "1,1,1")
    assert result.exit_code == 0, result.output
    assert asked["ids"] == [[10, 20]]
    assert asked["options"] == clients.SearchOptions(top_k=3, ef=(1, 2, 3), rounds=(1, 1, 1))
    assert (asked["url"], asked["protocol"]) == ("127.0.0.1:8001", "grpc")
    scored = "1,234 of 5,678 items scored, 4 stored behaviours read, 2 ids unknown"
    assert scored in " ".join(result.output.split())
    for words in ("soap", "milk", "2.5000", "over grpc in 3.2 ms"):
        assert words in result.output
    assert "e38" not in result.output
    assert "-1" not in result.output.split()


def test_names_are_those_of_the_bundle_that_answers(ask, tmp_path):
    bundle_id = write_names(tmp_path / "build" / "bundle")
    result, _ = ask("--ids", "10")
    words = " ".join(result.output.split())
    assert (
        f"build/bundle is bundle {bundle_id}, and the server answers from another bundle; no names are shown" in words
    )
    assert "soap" not in words
    result, _ = ask("--ids", "10", "--bundle", "build/bundle")
    words = " ".join(result.output.split())
    assert (
        f"is bundle {bundle_id}, and the server answers from another bundle; its names are shown as you chose it"
        in words
    )
    assert "soap" in words
    ask.asked["answering"] = None
    result, _ = ask("--ids", "10")
    assert result.exit_code == 0, result.output
    assert "the server answers from one that it does not name" in " ".join(result.output.split())


def test_json_for_programs(ask):
    result, asked = ask("--ids", "10", "--ids", "20,30", "--json", "--protocol", "http", "--profile", "4,5")
    assert asked["user_profile"] == [(4, 5), (4, 5)]
    assert asked["url"] == "127.0.0.1:8000"
    body = json.loads(result.stdout.splitlines()[-1])
    assert body["protocol"] == "http"
    assert body["latency_ms"] == 3.25
    assert len(body["users"]) == 2
    assert body["users"][0] == {
        "user": None,
        "items": [{"item_id": 30, "name": None, "score": 2.5}, {"item_id": 10, "name": None, "score": 1.0}],
        "unknown_items": 2,
        "items_scored": 1234,
        "items_matching": 5678,
        "status": "complete",
        "stored_items": 4,
    }


def test_users_by_id(ask):
    result, asked = ask("--user", "17", "--user", "u-1", "--profile", "4")
    assert result.exit_code == 0, result.output
    assert (asked["ids"], asked["user_id"], asked["user_profile"]) == (None, ["17", "u-1"], [(4,), (4,)])
    assert ask("--user", "17", "--ids", "10,20")[1]["ids"] == [[10, 20]]
    for given, came in (
        (("--user", "1", "--user", "2", "--ids", "10"), "2 --user and 1 --ids"),
        ((), "0 --user and 0"),
    ):
        with pytest.raises(ConfigError, match=f"{came}.*expected one of both for each user, or as many of both"):
            raise ask(*given)[0].exception


def test_mistakes_in_options(ask, tmp_path):
    assert "--ids" in str(ask("--ids", "1,x")[0].exception)
    refused = ask("--ids", "1", "--ef", "5,x")[0].exception
    assert isinstance(refused, RequestError)
    assert "ef is '5,x'" in str(refused)
    result, _ = ask("--ids", "1", "--bundle", str(tmp_path / "nowhere"))
    assert isinstance(result.exception, BundleError)


def test_entry_by_seeds(ask):
    options = ("--entry", "seeds", "--seeds", "50", "--seed-ef", "100", "--ef", "60")
    result, asked = ask("--ids", "10", *options)
    assert result.exit_code == 0, result.output
    assert asked["options"] == clients.SearchOptions(entry="seeds", seeds=50, seed_ef=100, ef=(60,))


def test_conditions(ask):
    options = ("--exclude-history", "--exclude", "5,6", "--allow", "7", "--filter", "price < 3", "--filter-name", "de")
    result, asked = ask("--ids", "10", "--ids", "11", *options)
    assert result.exit_code == 0, result.output
    assert asked["options"] == clients.SearchOptions(exclude_history=True, filter="price < 3", filter_name="de")
    assert (asked["exclude_item_ids"], asked["allow_item_ids"]) == ([5, 6], [7])
    assert "--exclude" in str(ask("--ids", "1", "--exclude", "x")[0].exception)


def test_each_request_parameter_is_an_option(ask):
    words = " ".join(ask("--help")[0].output.split())
    for name in REQUEST_PARAMETERS:
        assert f"--{name.replace('_', '-')} " in words


def test_text_ids(ask, tmp_path):
    path = tmp_path / "bundle"
    write_names(path)
    np.save(path / "item_ids.npy", np.array([b"a", b"a,b", b"c[d]"]))
    manifest = {**json.loads((path / "manifest.json").read_text()), "item_id_kind": "text"}
    ask.asked.update(kind=TEXT, answering=write_manifest(path, manifest, ["item_ids.npy", "item_names.txt"]).bundle_id)
    result, asked = ask("--ids", '0012,"a,b"', "--exclude", "5", "--bundle", str(path), "--json")
    assert result.exit_code == 0, result.output
    assert (asked["ids"], asked["exclude_item_ids"], asked["allow_item_ids"]) == ([["0012", "a,b"]], ["5"], None)
    found = [
        (item["item_id"], item["name"]) for item in json.loads(result.output.splitlines()[-1])["users"][0]["items"]
    ]
    assert found == [("c[d]", "soap"), ("a,b", "[bold]bread")]
    assert "c[d]" in result.output.splitlines()[3]


def test_ids_of_another_kind_than_the_servers(ask):
    error = ask("--ids", "sku-1")[0].exception
    with pytest.raises(ConfigError, match=r"--ids is 'sku-1'; expected item ids as the server has them: whole numbers"):
        raise error
    ask.asked["answering"] = None  # it can't be asked for its kind
    assert ask("--ids", "5")[1]["ids"] == [[5]]
