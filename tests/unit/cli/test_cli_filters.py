"""`nann filters`, and the filters that `nann index` names."""

from __future__ import annotations

import os

import numpy as np
import pytest
from support.cli_commands import nann, refused

from nann.bundle import Bundle
from nann.durable_files import link_or_copy
from nann.filters import NamedFilters
from nann.python_backend.version_history import Versions, release_path
from nann.signature import BEAM_RETRIEVAL
from nann.training import IndexConfig, SearchConfig, create_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return create_bundle(
        tmp_path_factory.mktemp("made") / "bundle",
        item_ids=np.arange(10, 110),
        item_vectors=np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32),
        sequence_length=3,
        index=IndexConfig(m=8),
        search=SearchConfig(top_k=5, ef=(10, 10, 20), rounds=(1, 1, 1)),
        attributes={"price": np.arange(100.0), "shop": ["a", "b"] * 50},
        filters={"of_bundle": "price < 3", "both": "price < 4"},
        threads=1,
    )


@pytest.fixture
def repository(bundle, tmp_path):
    """A repository whose version 1 has what searches read of the bundle."""
    folder = release_path(tmp_path, 1) / BEAM_RETRIEVAL.name
    folder.mkdir(parents=True)
    for path in bundle.path.iterdir():
        link_or_copy(path, folder / path.name)
    Versions((1,), {1: "x"}).write(tmp_path)
    return tmp_path


def test_set_list_and_remove(repository, tmp_path):
    at = ("--repository", repository)
    ended = nann("filters", "set", "cheap", 'price < 10 and shop = "a"', *at, "--json")
    assert ended.code == 0, ended
    assert ended.json == {"name": "cheap", "items_matching": 5, "item_count": 100, "unknown_ids": None}
    assert "filter cheap allows 5 of 100 items" in ended.stderr
    (tmp_path / "ids.txt").write_text("12\n10\n7\n")
    ended = nann("filters", "set", "both", "--ids", tmp_path / "ids.txt", *at, "--json")
    assert (ended.json["items_matching"], ended.json["unknown_ids"]) == (2, 1)
    assert "filter both allows 2 of 100 items; 1 ids are unknown" in ended.stderr
    listed = nann("filters", "list", *at, "--json")
    assert listed.json["filters"] == [
        {"name": "both", "of": "operator", "filter": "3 ids"},
        {"name": "cheap", "of": "operator", "filter": 'price < 10 and shop = "a"'},
        {"name": "of_bundle", "of": "bundle", "filter": "price < 3"},
    ]
    assert "of_bundle" in listed.stdout
    assert nann("filters", "remove", "cheap", *at).code == 0
    assert NamedFilters.of_repository(repository).names() == ["both"]


def test_before_a_bundle_is_installed(tmp_path):
    ended = nann("filters", "set", "a", "price < 10", "--repository", tmp_path, "--json")
    assert ended.json == {"name": "a", "items_matching": None, "item_count": None, "unknown_ids": None}
    assert "no bundle is installed in the repository yet" in ended.stderr
    rows = nann("filters", "list", "--repository", tmp_path, "--json").json["filters"]
    assert rows == [{"name": "a", "of": "operator", "filter": "price < 10"}]


def test_a_rollback_warns_of_filters_that_do_not_fit(bundle, repository):
    at = ("--repository", repository)
    assert nann("filters", "set", "cheap", "price < 10", *at).code == 0
    NamedFilters.of_repository(repository).set("red", 'color = "red"')
    release_path(repository, 2).mkdir()
    Versions((1, 2), {1: "x", 2: "y"}).write(repository)
    ended = nann("rollback", "--offline", *at)
    assert ended.code == 0, ended
    (warning,) = (line for line in ended.stderr.splitlines() if line.startswith("warning"))
    assert warning.startswith("warning: filter 'red' does not fit this bundle: position 1: got 'color'; expected an")
    assert warning.endswith("price, shop; requests that name it are refused")


def test_what_is_no_file_is_listed_as_such(repository):
    (repository / ".filters").mkdir(exist_ok=True)
    os.mkfifo(repository / ".filters" / "pipe.filter")
    (listed,) = (
        row["filter"]
        for row in nann("filters", "list", "--repository", repository, "--json").json["filters"]
        if row["name"] == "pipe"
    )
    assert "pipe.filter is no file; set the filter again with `nann filters set`" in listed


def test_mistakes(repository, tmp_path):
    at = ("--repository", repository)
    assert "got 'color'; expected an attribute of the items: price, shop" in refused(
        "filters", "set", "a", "color", *at
    )
    assert "position 8: got the end" in refused("filters", "set", "a", "price <", *at)
    assert "came with neither a text and --ids; give one" in refused("filters", "set", "a", *at)
    assert "came with both a text and --ids" in refused("filters", "set", "a", "price", "--ids", tmp_path / "x", *at)
    assert "x is missing; expected a file with the id" in refused("filters", "set", "a", "--ids", tmp_path / "x", *at)
    (tmp_path / "x").write_text("1\nmilk\n")
    words = refused("filters", "set", "a", "--ids", tmp_path / "x", *at)
    assert "id 2 of the filter: 'milk' is no whole number from 1 to 9223372036854775807; expected the id of an" in words
    (tmp_path / "x").write_text("\n")
    assert "holds no ids; a filter must allow something" in refused("filters", "set", "a", "--ids", tmp_path / "x", *at)
    (tmp_path / "x").write_bytes(b"\xff\n")
    assert "x can't be read: " in refused("filters", "set", "a", "--ids", tmp_path / "x", *at)
    (tmp_path / "x").write_text(f"{2**70}\n")
    assert "; expected the id of an item" in refused("filters", "set", "a", "--ids", tmp_path / "x", *at)
    assert "there is no filter 'a' to remove" in refused("filters", "remove", "a", *at)
    assert "a filter's name is '../a'" in refused("filters", "set", "../a", "price < 1", *at)
    nowhere = ("--repository", tmp_path / "nowhere")
    assert "nowhere is no model repository; `nann serve` makes one" in refused("filters", "list", *nowhere)
    assert "--admin-key-file came without --url" in refused("filters", "list", *at, "--admin-key-file", tmp_path / "x")
    assert NamedFilters.of_repository(repository).names() == []


@pytest.mark.heavy
def test_the_bundle_of_nann_index_has_the_logs_category_and_names_filters(pipeline, tmp_path):
    made = ("--data", pipeline.data, "--checkpoint", pipeline.checkpoint, "--out", tmp_path / "bundle", "--threads", 1)
    ended = nann("index", *made, "--named-filter", "one=category = 1", "--named-filter", "others=not category = 1")
    assert ended.code == 0, ended
    opened = Bundle.open(tmp_path / "bundle")
    assert opened.filters == {"one": "category = 1", "others": "not category = 1"}
    assert opened.attributes.names == ["category"]
    assert Bundle.open(pipeline.bundle).attributes.names == ["category"]  # after the export
    NamedFilters.of_repository(tmp_path / "repository").set("own", "not category = 1")
    evaluate = ("evaluate", "--data", pipeline.data, "--bundle", pipeline.bundle, "--filter-name", "own", "--users", 5)
    assert nann(*evaluate, "--repository", tmp_path / "repository").code == 0
    assert "filter_name is 'own'; expected one of: none" in refused(*evaluate)
    assert "--named-filter is 'one'; expected NAME=FILTER" in refused("index", *made, "--named-filter", "one")
    assert "filter 'x': position 1: got 'color'" in refused("index", *made, "--named-filter", "x=color")
