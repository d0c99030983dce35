"""`nann refresh` without a server."""

from __future__ import annotations

import time

import pytest
from support.cli_commands import nann, refused
from support.live_bundle import make_bundle

from nann.bundle import Bundle
from nann.catalog import Changes, JournalWriter, Upsert
from nann.catalog.journal import journal_path
from nann.python_backend.repository.install import install_bundle
from nann.python_backend.version_history import contained_sequence


@pytest.fixture
def served(tmp_path):
    """A bundle, and a repository with it and a change."""
    bundle = make_bundle(tmp_path / "bundle", item_rows=True)
    install_bundle(bundle.path, tmp_path / "repository")
    change(tmp_path / "repository", Upsert(7, {"price": 1.0}))
    return bundle


def change(repository, *upserts) -> None:
    writer = JournalWriter(journal_path(repository))
    writer.append(Changes(time.time(), upserts, [1000]).pack())
    writer.close()


def test_the_next_bundle_comes_in_place_of_the_old_one(served, tmp_path):
    at = ("--bundle", served.path, "--repository", tmp_path / "repository", "--json")
    made = nann("refresh", *at)
    assert made.code == 0
    assert made.json == {
        "bundle": str(served.path), "sequence": 1, "items": 3999, "added": 0, "replaced": 0, "removed": 1,
        "written": True, "deployed": False, "unplaced": 1, "unreachable": made.json["unreachable"],
    }  # fmt: skip
    assert "3,999 items after change 1: 0 added, 0 with other vectors, 1 removed" in made.stderr
    assert "1 items came without vectors for this bundle's models and are not in it: add them again" in made.stderr
    assert Bundle.open(served.path).item_ids[0] == 1003
    again = nann("refresh", *at)
    assert again.json == {"bundle": str(served.path), "written": False, "deployed": False}
    assert "has all changes of" in again.stderr


def test_a_bundle_that_lacks_changes_which_the_journal_may_have_lost(served, tmp_path):
    repository = tmp_path / "repository"
    assert nann("refresh", "--bundle", served.path, "--out", tmp_path / "next", "--repository", repository).code == 0
    (repository / ".versions" / "versions.json").unlink()
    assert contained_sequence(repository) == 0
    install_bundle(tmp_path / "next", repository, version=2)
    assert contained_sequence(repository) == 1
    line = refused("refresh", "--bundle", served.path, "--repository", repository)
    assert "bundle has the changes up to 0, and the versions in" in line
    assert "those up to 1: the journal may lack those between; name the bundle that was deployed last" in line


def test_a_repository_that_is_not_there(served, tmp_path):
    line = refused("refresh", "--bundle", served.path, "--repository", tmp_path / "other")
    assert "other is missing; expected the model repository that `nann serve` serves" in line
