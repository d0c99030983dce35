"""The model `catalog`, as Triton calls it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support import triton_fakes
from support.live_bundle import ITEMS, item_ids, make_bundle

from nann.filters import NamedFilters
from nann.python_backend.repository.install import install_bundle
from nann.python_backend.version_history import Versions

IDS = item_ids()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("made") / "bundle")


@pytest.fixture
def repository(bundle, tmp_path):
    install_bundle(bundle.path, tmp_path / "repository")
    return tmp_path / "repository"


@pytest.fixture
def model(repository):
    from nann.python_backend.models.catalog import TritonPythonModel

    model = TritonPythonModel()
    model.initialize(triton_fakes.arguments_of(repository, "catalog"))
    return model


def ask(model, operation, ids=None, request_id="", **parameters):
    """What the model answers, or the code and the message of its error."""
    tensors = {} if operation is None else {"operation": np.array([[operation.encode()]], object)}
    if ids is not None:
        tensors["allow_item_ids"] = np.array([[str(each).encode() for each in ids]], object)
    (response,) = model.execute([triton_fakes.Request(tensors, json.dumps(parameters), request_id)])
    if response.has_error():
        return response.error().code(), response.error().message()
    return json.loads(response.arrays()["answer"].item())


def test_filters_are_set_listed_and_removed(model, repository, bundle):
    matching = int((np.arange(ITEMS) % 2 == 0).sum())
    assert ask(model, "set_filter", name="stock", filter="available") == {
        "name": "stock",
        "items_matching": matching,
        "item_count": ITEMS,
        "unknown_ids": None,
    }
    asked = [*IDS[:3], 5, IDS[0]]
    assert ask(model, "set_filter", asked, name="few") == {
        "name": "few",
        "items_matching": 3,
        "item_count": ITEMS,
        "unknown_ids": 1,
    }
    assert NamedFilters.of_repository(repository).read("few").tolist() == [5, *IDS[:3]], "distinct, ascending"
    listed = [
        {"name": "available_de", "of": "bundle", "filter": bundle.filters["available_de"]},
        {"name": "few", "of": "operator", "filter": "4 ids"},
        {"name": "stock", "of": "operator", "filter": "available"},
    ]
    assert ask(model, "list_filters") == {"filters": listed}
    assert ask(model, "remove_filter", name="few") == {"name": "few"}
    assert ask(model, "list_filters") == {"filters": [listed[0], listed[2]]}
    assert ask(model, "", request_id="nann-heartbeat") == {}


def test_a_filter_is_checked_against_the_bundle_that_answers_now(model, repository, tmp_path):
    assert "items_matching" in ask(model, "set_filter", name="a", filter="price < 1")
    without = install_bundle(_without_attributes(tmp_path / "without"), tmp_path / "other")
    install_bundle(without.path, repository)
    assert Versions.read(repository).current == 2
    code, message = ask(model, "set_filter", name="a", filter="price < 2")
    assert (code, message) == (
        "INVALID_ARG",
        "filter 'a' is 'price < 2'; expected a bundle whose items have attributes",
    )
    assert NamedFilters.of_repository(repository).read("a") == "price < 1"


def _without_attributes(path):
    from support import tiny_bundle

    return tiny_bundle.make_bundle(path).path


REFUSED = {
    "operation is missing; expected BYTES of shape [batch, 1]": (None, {}),
    'operation is \'drop\'; expected "set_filter" or "remove_filter" or "list_filters"': ("drop", {}),
    "parameter name is None; expected the name of a filter": ("set_filter", {}),
    "parameter name is 3; expected the name of a filter": ("remove_filter", {"name": 3}),
    "a filter's name is '../up'; expected at most 100 letters": (
        "set_filter",
        {"name": "../up", "filter": "price < 1"},
    ),
    "filter 'a' came with neither parameter filter and allow_item_ids; send one": ("set_filter", {"name": "a"}),
    "filter 'a' came with both parameter filter and allow_item_ids; send one": (
        "set_filter",
        {"name": "a", "filter": "price < 1", "ids": [1000]},
    ),
    "parameter filter is 3; expected the text of a filter": ("set_filter", {"name": "a", "filter": 3}),
    "filter 'a' does not fit this bundle: position 8: got the end": ("set_filter", {"name": "a", "filter": "price <"}),
    "filter 'a' does not fit this bundle: position 1: got 'colour'": (
        "set_filter",
        {"name": "a", "filter": "colour = 3"},
    ),
    "the list holds no ids; a filter must allow something": ("set_filter", {"name": "a", "ids": []}),
    "id 2 of the filter: 'sku-1' is no whole number": ("set_filter", {"name": "a", "ids": [7, "sku-1"]}),
    "there is no filter 'a' to remove; there are: none": ("remove_filter", {"name": "a"}),
}


@pytest.mark.parametrize("message", REFUSED)
def test_mistakes_change_nothing(model, repository, message):
    operation, asked = REFUSED[message]
    code, words = ask(model, operation, **asked)
    assert (code, words[: len(message)]) == ("INVALID_ARG", message)
    assert NamedFilters.of_repository(repository).names() == []


def test_a_repository_that_can_not_be_written(model, repository):
    (repository / ".filters").write_text("no folder")
    code, message = ask(model, "set_filter", name="a", filter="price < 1")
    assert (code, "repository can't be written: File exists; nothing was changed: the user who runs" in message) == (
        "INTERNAL",
        True,
    ), message
