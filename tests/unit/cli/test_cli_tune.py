from __future__ import annotations

import shutil

import pytest
from support.cli_commands import Pipeline, nann, refused

from nann.bundle import Bundle

pytestmark = pytest.mark.heavy


def test_tune_recommends_what_it_found(pipeline: Pipeline, tmp_path):
    bundle = shutil.copytree(pipeline.bundle, tmp_path / "bundle")
    source = ("--data", pipeline.data, "--bundle", bundle)
    ended = nann("tune", *source, "--coverage", 0.5, "--max-share", 1, "--json")
    assert ended.code == 0, ended
    body = ended.json
    opened = Bundle.open(bundle)
    assert body["bundle_id"] == opened.bundle_id == Bundle.open(pipeline.bundle).bundle_id
    assert body["search"] == opened.manifest["search"]
    assert body["tuning"]["coverage"] >= 0.5
    assert "frontier on 10 validation users, top 20" in ended.stdout
    assert "items can't be reached" in ended.stderr
    assert f"by time, one user at a time, engine {body['tuning']['timed']['engine']}" in ended.stdout
    frontier, by_time = (line for line in ended.stdout.splitlines() if "recommended" in line)
    coverage = f"{body['tuning']['coverage']:.2%}"
    assert coverage in frontier
    assert coverage in by_time
    search = {name: value for name, value in body["search"].items() if name != "top_k"}
    (ms,) = (
        one["ms"]
        for one in body["tuning"]["timed"]["searches"]
        if all(one.get(name) == value for name, value in search.items())
    )
    assert f"{ms:.2f}" in by_time
    found, targets = body["tuning"]["targets_found_by_all"], body["tuning"]["targets"]
    assert f"recall-Delta rests on {found} of {targets} targets" in ended.stderr
    assert f"{body['tuning']['walks']} walks; " in ended.stderr
    assert (tmp_path / "bundle.tuning.png").is_file()
    # Requests without search parameters now get these.
    evaluated = nann("evaluate", *source, "--split", "validation", "--json").json
    assert evaluated["ef"] == body["search"]["ef"]
    assert evaluated["coverage"] == body["tuning"]["coverage"]


def test_tune_for_recall_with_limited_time(pipeline: Pipeline, tmp_path):
    bundle = shutil.copytree(pipeline.bundle, tmp_path / "bundle")
    options = ("--aim", "recall", "--recall-delta", 0.4, "--seconds", 100, "--max-share", 1, "--top-k", 60)
    ended = nann("tune", "--data", pipeline.data, "--bundle", bundle, *options, "--json")
    assert ended.code == 0, ended
    tuning = ended.json["tuning"]
    assert (tuning["wanted_coverage"], tuning["wanted_recall_delta"]) == (None, 0.4)
    assert tuning["recall_delta"] <= 0.4


def test_tune_says_in_one_line_why_it_cannot(pipeline: Pipeline):
    source = ("--data", pipeline.data, "--bundle", pipeline.bundle)
    assert "coverage is 2.0; expected a fraction above 0" in refused("tune", *source, "--coverage", 2)
    assert 'aim is "speed"; expected coverage or recall' in refused("tune", *source, "--aim", "speed")
    assert "is not a bundle" in refused("tune", "--data", pipeline.data, "--bundle", pipeline.folder)
