"""The model `catalog` adds, changes and deletes items, and `beam_retrieval` follows it."""

from __future__ import annotations

import numpy as np
import pytest
from support import tiny_bundle, triton_fakes
from support.catalog_requests import ask, catalog_of, vectors
from support.changing_bundle import IDS, ITEMS, ROW_WIDTH, make_bundle
from support.tiny_requests import ask as search_request
from support.tiny_requests import score
from support.triton_fakes import SEARCH_PARAMETERS

from nann.catalog import JournalReader
from nann.catalog.checks import MAX_ITEMS
from nann.catalog.journal import journal_path
from nann.python_backend.repository.install import install_bundle
from nann.python_backend.version_history import Versions


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("made") / "bundle")


@pytest.fixture
def repository(bundle, tmp_path):
    install_bundle(bundle.path, tmp_path / "repository")
    return tmp_path / "repository"


@pytest.fixture
def catalog(repository):
    model = catalog_of(repository)
    yield model
    model.finalize()


@pytest.fixture
def retrieval(repository, monkeypatch):
    from nann.python_backend.models.beam_retrieval import TritonPythonModel

    monkeypatch.setattr(triton_fakes.InferenceRequest, "answer", score)
    model = TritonPythonModel()
    model.initialize(triton_fakes.arguments_of(repository, "beam_retrieval", **SEARCH_PARAMETERS))
    yield model
    model.finalize()


def found(retrieval, place=12, **parameters):
    (response,) = retrieval.execute([search_request(place, top_k=5, **parameters)])
    assert not response.has_error(), response.error().message()
    return response.arrays()["item_ids"][0].tolist()


def test_the_next_batch_sees_each_change(catalog, retrieval):
    assert found(retrieval)[0] == IDS[12]
    assert ask(catalog, "delete_items", [IDS[12], 5]) == {"sequence": 1, "removed": 1, "unknown": 1}
    assert IDS[12] not in found(retrieval)
    assert ask(catalog, "delete_items", [IDS[12]]) == {"sequence": 1, "removed": 0, "unknown": 1}
    assert ask(catalog, "upsert_items", [IDS[13]], [{"year": 5}]) == {"sequence": 2, "new": 0, "replaced": 1}
    assert found(retrieval, filter="year = 5") == [IDS[13], -1, -1, -1, -1]
    assert ask(catalog, "upsert_items", [IDS[12]]) == {"sequence": 3, "new": 1, "replaced": 0}
    assert found(retrieval)[0] == IDS[12]
    answer = ask(catalog, "upsert_items", [IDS[12], 7], [{"genre": "fresh"}, {"genre": "fresh"}], **vectors(2))
    assert answer == {"sequence": 4, "new": 1, "replaced": 1}
    assert IDS[12] not in found(retrieval), "its old vectors are not searched"
    assert {IDS[12], 7} < set(found(retrieval, place=1)), "its new ones are"
    assert sorted(found(retrieval, filter='genre = "fresh"')[:2]) == [7, IDS[12]]
    status = ask(catalog, "catalog_status")
    assert {name: status[name] for name in ("items", "of_bundle", "added", "replaced", "deleted", "changed")} == {
        "items": ITEMS + 1,
        "of_bundle": ITEMS,
        "added": 2,
        "replaced": 1,
        "deleted": 0,
        "changed": 1,
    }
    assert (status["sequence"], status["most_added"], status["item_row_width"]) == (4, 1000, ROW_WIDTH)


def test_a_named_filter_follows_changed_attributes(catalog, retrieval, repository):
    from nann.filters import NamedFilters

    NamedFilters.of_repository(repository).set("new", 'genre = "fresh"')
    assert found(retrieval, filter_name="new") == [-1] * 5
    ask(catalog, "upsert_items", [IDS[20]], [{"genre": "fresh"}])
    assert found(retrieval, filter_name="new") == [IDS[20], -1, -1, -1, -1]


def test_a_filter_that_is_set_counts_the_items_that_are_there(catalog, repository):
    from nann.python_backend.operator_filters import OperatorFilters

    ask(catalog, "upsert_items", [7, 8], [{"genre": "fresh"}] * 2, **vectors(2))
    ask(catalog, "upsert_items", IDS[20:22], [{"genre": "fresh"}] * 2)
    ask(catalog, "delete_items", [IDS[21], 8])
    filters = OperatorFilters(repository)
    answer = {"name": "new", "items_matching": 2, "item_count": ITEMS, "unknown_ids": None}
    assert filters.set("new", 'genre = "fresh"') == answer
    listed = filters.ids(["7", *map(str, IDS[20:22]), "99"])
    assert filters.set("new", listed) == {**answer, "unknown_ids": 2}


def test_a_restart_and_a_deploy_keep_the_changes(catalog, repository, tmp_path):
    ask(catalog, "delete_items", IDS[:3])
    ask(catalog, "upsert_items", [7], None, **vectors(1))
    again = ask_new(repository, "catalog_status")
    assert (again["sequence"], again["deleted"], again["added"]) == (2, 3, 1)
    contains = make_bundle(tmp_path / "second", journal_sequence=1)
    install_bundle(contains.path, repository)
    assert Versions.read(repository).current == 2
    status = ask(catalog, "catalog_status")
    assert (status["contained_sequence"], status["deleted"], status["added"], status["items"]) == (1, 0, 1, ITEMS + 1)


def test_a_bundle_that_contains_more_than_the_journal_has(catalog, repository, tmp_path):
    ask(catalog, "delete_items", [IDS[0]])
    install_bundle(make_bundle(tmp_path / "second", journal_sequence=700).path, repository)
    assert ask(catalog, "catalog_status")["deleted"] == 0
    assert ask(catalog, "delete_items", [IDS[1]])["sequence"] == 701
    assert ask(catalog, "catalog_status")["deleted"] == 1


def ask_new(repository, *asked, **more):
    """The same of a model that starts now."""
    model = catalog_of(repository)
    try:
        return ask(model, *asked, **more)
    finally:
        model.finalize()


def test_a_journal_of_superseded_changes_is_compacted(catalog, repository, monkeypatch):
    from nann.python_backend import catalog_journal

    monkeypatch.setattr(catalog_journal, "_COMPACT_BYTES", 1000)
    for year in range(40):
        ask(catalog, "upsert_items", [IDS[0]], [{"year": year}])
    reader = JournalReader(journal_path(repository))
    assert len(reader.new()) < 20
    assert reader.sequence == 40
    assert ask_new(repository, "catalog_status")["changed"] == 1


def test_what_a_crash_left_is_cut_off_and_said(catalog, repository):
    ask(catalog, "delete_items", [IDS[0]])
    catalog._items.close()
    with journal_path(repository).open("ab") as stream:
        stream.write(b"NREC half a record")
    model = catalog_of(repository)
    assert ask(model, "delete_items", [IDS[1]])["sequence"] == 2
    assert "cut off 18 bytes of a change that a crash ended before" in triton_fakes.Logger.warnings[-1]
    model.finalize()


def test_a_damaged_journal_is_never_served(catalog, retrieval, repository):
    from nann.errors import JournalError

    ask(catalog, "delete_items", [IDS[0]])
    ask(catalog, "delete_items", [IDS[1]])
    path = journal_path(repository)
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    with pytest.raises(JournalError, match=r"journal is damaged at byte 32; restore it from a backup"):
        catalog_of(repository)
    (response,) = retrieval.execute([search_request(12)])
    assert "journal is damaged at byte 32" in response.error().message()


def test_metrics(catalog, retrieval):
    ask(catalog, "delete_items", IDS[:4])
    found(retrieval)
    values = triton_fakes.Metric.values
    for model in (catalog, retrieval):
        model.finalize()
        assert (values["nann_catalog_sequence"], values["nann_catalog_added_limit_items"]) == (1, 1000)
        assert values["nann_catalog_newest_timestamp_seconds"] > 1e9


V = vectors(1)
REFUSED = {
    "item_ids is missing; expected BYTES": ("delete_items",),
    f"item_ids holds 0 ids; expected 1 to {MAX_ITEMS:,}": ("delete_items", []),
    "item_ids: '-1' is no whole number from 1": ("delete_items", [IDS[0], -1]),
    "item_ids: '-7' is no whole number from 1": ("upsert_items", [-7]),
    "item_ids holds 100 twice; send each item once": ("delete_items", [100, 110, 100]),
    "attributes has shape [1, 2]; expected one for each of 1 items": ("upsert_items", [100], [{}, {}]),
    "the attributes of item 100 are not JSON: Expecting": ("upsert_items", [100], [b"{"]),
    "the attributes of item 110 are b'[1]'; expected a JSON object": ("upsert_items", [100, 110], [{}, [1]]),
    "item 110 has an attribute 'colour'; expected some of genre, tags, year": (
        "upsert_items",
        [100, 110],
        [{"year": 3}, {"colour": 1}],
    ),
    "item 100: attribute 'year' is 'x'; expected a whole number of 64 bits, or null": (
        "upsert_items",
        [100],
        [{"year": "x"}],
    ),
    "item 100: attribute 'year' is 9223372036854775808; expected a whole": ("upsert_items", [100], [{"year": 2**63}]),
    "item 100: attribute 'price' is nan; expected a finite number": ("upsert_items", [100], [{"price": np.nan}]),
    "item 100: attribute 'price' is True; expected a finite number": ("upsert_items", [100], [{"price": True}]),
    "item 100: attribute 'available' is 1; expected true or false": ("upsert_items", [100], [{"available": 1}]),
    "item 100: attribute 'genre' is 1.5; expected a text, a whole number, or a list": (
        "upsert_items",
        [100],
        [{"genre": 1.5}],
    ),
    "item 100: attribute 'tags' is ['a', '\\ud800']; expected": ("upsert_items", [100], [{"tags": ["a", "\ud800"]}]),
    "item 7 is not in the corpus, and came without vectors; expected row float32[1, 2, 3]": ("upsert_items", [100, 7]),
    "row has shape [1, 1, 2]; expected [1, 1, 3]": ("upsert_items", [7], None, np.ones((1, 2)), V["light"]),
    "light has shape [1, 1, 3]; expected [1, 1, 2]": ("upsert_items", [7], None, V["row"], np.ones((1, 3))),
    "row of item 8 holds NaN or infinity": (
        "upsert_items",
        [7, 8],
        None,
        [[1, 2, 3], [1, np.inf, 3]],
        np.ones((2, 2)),
    ),
    "row of item 8 holds -3e+38; expected numbers from -1e+10 to 1e+10: searches fail": (
        "upsert_items",
        [7, 8],
        None,
        [[1, 2, 3], [1, -3e38, 3]],
        np.ones((2, 2)),
    ),
    "light is missing; expected float32[1, 1, 2]": ("upsert_items", [7], None, V["row"]),
    "light came without row; send both, or neither": ("upsert_items", [100], None, None, V["light"]),
    "vector came without row; send both, or neither": ("upsert_items", [100], None, None, None, V["light"]),
    "vector has shape [1, 1, 3]; expected [1, 1, 4]": ("upsert_items", [7], None, V["row"], V["light"], V["row"]),
    "vector of item 7 holds NaN or": ("upsert_items", [7], None, V["row"], V["light"], np.full((1, 4), np.nan)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_one_mistake_changes_nothing(catalog, repository, message):
    code, words = ask(catalog, *REFUSED[message])
    assert (code, words[: len(message)]) == ("INVALID_ARG", message)
    assert not journal_path(repository).exists()


def test_bundles_that_take_no_new_items(tmp_path):
    table = tiny_bundle.make_bundle(tmp_path / "table")
    install_bundle(table.path, tmp_path / "repository")
    model = catalog_of(tmp_path / "repository")
    assert "the scorer of this bundle has an item table" in ask(model, "upsert_items", [7], None, **V)[1]
    assert "expected an item of the bundle: its scorer has an item table" in ask(model, "upsert_items", [7])[1]
    assert "expected some of none: the bundle has none" in ask(model, "upsert_items", [100], [{"a": 1}])[1]
    assert ask(model, "delete_items", [100])["removed"] == 1
    model.finalize()
    dark = {"search_by_entry": {}, "export": {"user_state_width": 4, "item_row_width": ROW_WIDTH}}
    install_bundle(tiny_bundle.make_bundle(tmp_path / "dark", **dark).path, tmp_path / "repository")
    model = catalog_of(tmp_path / "repository")
    assert "this bundle's model has no light score; leave it out" in ask(model, "upsert_items", [7], None, **V)[1]
    assert ask(model, "upsert_items", [7], None, V["row"])["new"] == 1
    model.finalize()


def test_no_bundle_and_no_room(catalog, tmp_path, monkeypatch):
    from nann.python_backend import catalog_items

    (tmp_path / "empty").mkdir()
    nothing = catalog_of(tmp_path / "empty")
    code, message = ask(nothing, "delete_items", [100])
    assert (code, "has no bundle whose items could change; deploy one first" in message) == ("INTERNAL", True)
    nothing.finalize()
    monkeypatch.setattr(catalog_items, "_ALWAYS", 2)
    ask(catalog, "upsert_items", [7, 8], [{"year": 1}, {"year": 1}], **vectors(2))
    ask(catalog, "upsert_items", [8, 7], [{"year": 2}, {"year": 1}], **vectors(2))
    code, message = ask(catalog, "upsert_items", [9], None, **V)
    assert message == (
        "2 items are added and 1 more came; expected at most 2: deploy a bundle that contains them "
        "(`nann refresh`), or raise max_added_share in config.pbtxt of catalog"
    )
    ask(catalog, "upsert_items", IDS[:3], [{"year": 1}, {"year": 1}, {}])
    ask(catalog, "upsert_items", IDS[:2], [{"year": 1}, {"year": 1}])
    code, message = ask(catalog, "upsert_items", [IDS[5], IDS[6]], [{"year": 1}, {}])
    assert (code, message[:39]) == ("INTERNAL", "2 items are changed and 2 more came; ex")


def test_a_repository_that_can_not_be_written(catalog, repository):
    (repository / ".catalog").write_text("no folder")
    code, message = ask(catalog, "delete_items", [IDS[0]])
    assert (code, "repository can't be written: Not a directory; nothing was changed" in message) == ("INTERNAL", True)
