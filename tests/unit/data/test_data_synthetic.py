from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from nann.cli.prepare import app
from nann.errors import ConfigError
from nann.training.data.prepare import prepare
from nann.training.data.prepared import PreparedData
from nann.training.data.protocol import Protocol
from nann.training.data.synthetic import SyntheticSpec, catalogue_of, synthetic_log
from nann.training.data.synthetic_catalogue import Catalogue, GridCatalogue

SPEC = SyntheticSpec(items=2000, users=400, categories=20, neighborhood_items=40, seed=3)


def rows_of(spec, folder, **options):
    folder.mkdir(exist_ok=True)
    return synthetic_log(spec, folder, **options).rows.collect()


def drawn_rows(spec, folder):
    """Without those that were added, at the end, for items nobody met."""
    folder.mkdir(exist_ok=True)
    log = synthetic_log(spec, folder)
    return log.rows.collect().head(log.counts.read - log.settings["rows_added_for_items_nobody_met"])


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return rows_of(SPEC, tmp_path_factory.mktemp("synthetic") / "rows")


def test_every_item_and_category_occurs_and_an_item_has_one_category(rows):
    assert sorted(rows["item"].unique()) == list(range(1, 2001))
    assert rows["category"].n_unique() == 20
    assert rows.group_by("item").agg(pl.col("category").n_unique())["category"].max() == 1


def test_users_have_the_wanted_number_of_behaviors_in_order_of_time(tmp_path):
    rows = drawn_rows(SPEC, tmp_path / "rows")
    assert rows["user"].is_sorted()
    users = rows.group_by("user").agg(pl.len().alias("n"), (pl.col("time").diff().min() >= 0).alias("sorted"))
    assert users.height == 400
    assert users["n"].min() >= 10
    assert users["n"].mean() == pytest.approx(87.4, rel=0.15)
    assert users["sorted"].all()


def test_the_same_seed_gives_the_same_log_and_another_another(rows, tmp_path):
    assert rows.equals(rows_of(SPEC, tmp_path / "same"))
    other = SyntheticSpec(**{**SPEC.__dict__, "seed": 4})
    assert not rows.equals(rows_of(other, tmp_path / "other"))


@pytest.mark.parametrize("chunk_rows", [700, 5_000])
def test_the_log_does_not_depend_on_the_chunks(rows, tmp_path, chunk_rows):
    done = []
    again = rows_of(SPEC, tmp_path / "chunks", chunk_rows=chunk_rows, progress=lambda made, total: done.append(made))
    assert rows.equals(again)
    assert len(done) > 5
    assert done == sorted(done)


def test_popularity_is_skewed_as_asked(rows, tmp_path):
    share = {}
    for skew, log in ((1.0, rows), (0.0, rows_of(SyntheticSpec(**{**SPEC.__dict__, "skew": 0.0}), tmp_path / "flat"))):
        counts = np.sort(log["item"].value_counts()["count"].to_numpy())[::-1]
        share[skew] = counts[:100].sum() / counts.sum()
    # Zipf with exponent 1 and a flat head of 0.05% of the items: ln((5% + h) / h) / ln((1 + h) / h)
    assert share[1.0] == pytest.approx(np.log(0.0505 / 0.0005) / np.log(1.0005 / 0.0005), abs=0.08)
    assert share[0.0] < 0.12


def test_users_keep_to_a_few_neighborhoods(tmp_path):
    spec = SyntheticSpec(
        items=5000, users=300, categories=25, neighborhood_items=50, skew=0.0, interests=3, drift=0.0, noise=0.0
    )
    own = drawn_rows(spec, tmp_path / "rows").group_by("user").agg(pl.col("category").n_unique().alias("n"))["n"]
    assert own.mean() < 4  # 3 interests on average, of 25 categories; by popularity alone it would be over 20
    free = SyntheticSpec(**{**spec.__dict__, "drift": 0.2})
    drifting = drawn_rows(free, tmp_path / "drift")
    assert drifting.group_by("user").agg(pl.col("category").n_unique().alias("n"))["n"].mean() > own.mean() + 2


def test_repeats_are_the_users_own_earlier_items(tmp_path):
    spec = SyntheticSpec(items=50_000, users=100, skew=0.0, noise=1.0, repeat=0.3)
    rows = drawn_rows(spec, tmp_path / "rows")
    distinct = rows.group_by("user").agg(pl.col("item").n_unique())["item"].sum() / rows.height
    # Of 50,000 items nobody meets one twice by chance. A few repeats fall before the user's first behaviour.
    assert 0.7 <= distinct <= 0.75


def test_defaults_have_userbehaviors_proportions():
    spec = SyntheticSpec(items=4_163_442)
    assert spec.user_count == 976_779
    assert spec.category_count == 9_439
    assert spec.user_count * spec.behaviors_per_user == pytest.approx(85_384_110)
    assert SyntheticSpec(items=1_000_000).name == "synthetic_1m"
    assert SyntheticSpec(items=100_000).name == "synthetic_100k"
    assert SyntheticSpec(items=1234).name == "synthetic_1234"


def test_catalogue_of_a_line():
    catalogue = Catalogue(1000, 7, 0.7, 30, 1.0, 1e-3, np.random.default_rng(0))
    assert sorted(catalogue.item_ids) == list(range(1, 1001))
    sizes = np.bincount(catalogue.categories)[1:]
    assert len(sizes) == 7
    assert sizes.sum() == 1000
    assert sizes.max() > 2 * sizes.min()
    parts = np.diff(catalogue.first_place)
    assert parts.min() >= 1
    assert parts.max() <= 30
    places = np.arange(1000)
    home = catalogue.neighborhood_of(places)
    low, high = catalogue.popularity_range(home)
    assert np.all((catalogue.popularity[places] >= low) & (catalogue.popularity[places + 1] <= high))
    # Neighbourhoods do not cross categories, and neither does a step to the next one.
    next_home = catalogue.beside(home, np.ones(1000, np.int64))
    np.testing.assert_array_equal(catalogue.categories[catalogue.first_place[next_home]], catalogue.categories)
    assert np.all(next_home - home <= 1)


def test_catalogue_of_a_grid():
    catalogue = GridCatalogue(1300, 7, 0.7, 1, 1.0, 1e-3, np.random.default_rng(0), 3)
    assert catalogue.neighborhood_count == 10**3
    assert np.diff(catalogue.first_place).tolist().count(2) == 300
    assert np.diff(catalogue.first_place).max() == 2
    traits = catalogue.traits_of(catalogue.item_ids)
    cell = catalogue.neighborhood_of(np.arange(1300))
    np.testing.assert_array_equal(traits @ [100, 10, 1], cell)
    rng = np.random.default_rng(1)
    steps = rng.integers(-12, 13, (3, 1000))
    moved = catalogue.moved(np.arange(1000), steps)
    for before, step, after in zip(
        np.unravel_index(np.arange(1000), (10,) * 3), steps, np.unravel_index(moved, (10,) * 3), strict=True
    ):
        inside = (before + step >= 0) & (before + step < 10)
        np.testing.assert_array_equal(after[inside], (before + step)[inside])
        below = (before + step < 0) & (before + step > -10)
        np.testing.assert_array_equal(after[below], -(before + step)[below])


def test_on_a_grid_behaviours_are_near_an_interest_in_every_trait(tmp_path):
    plain = {"interests": 1, "drift": 0.0, "repeat": 0.0, "noise": 0.0, "neighborhood_items": 1}
    spec = SyntheticSpec(items=3**10, users=300, traits=2, wander=0.3, **plain)
    rows = drawn_rows(spec, tmp_path)
    traits = catalogue_of(spec).traits_of(rows["item"].to_numpy())
    for trait in traits.T:
        off = rows.with_columns(trait=trait).select((pl.col("trait") - pl.col("trait").median().over("user")).abs())
        steps = off.to_series().round()
        for least in (1, 2, 3):
            assert (steps >= least).mean() == pytest.approx(0.3**least, rel=0.15)


def test_a_log_without_traits_is_named_as_before():
    assert not {"traits", "wander"} & SyntheticSpec(items=100).settings().keys()
    assert {"traits", "wander"} < SyntheticSpec(items=100, traits=2).settings().keys()


def test_it_feeds_prepare_and_says_that_it_is_synthetic(tmp_path):
    manifest = prepare(lambda scratch: synthetic_log(SPEC, scratch), tmp_path / "data", Protocol())
    assert manifest["name"] == "synthetic_2k"
    assert manifest["sources"] == ["synthetic: generated"]
    assert manifest["reader"]["synthetic"] is True
    assert manifest["reader"]["interests"] == 6
    data = PreparedData.load(tmp_path / "data")
    assert (data.item_count, data.user_count, data.category_count) == (2000, 400, 20)


def test_what_a_user_did_tells_what_comes_next_better_than_popularity(tmp_path):
    spec = SyntheticSpec(items=20_000, users=1000, seed=5)
    prepare(lambda scratch: synthetic_log(spec, scratch), tmp_path / "data", Protocol(test_users=500))
    data = PreparedData.load(tmp_path / "data")
    queries = data.queries("test", 20)
    popular = np.argsort(-data.train_counts, kind="stable")[:100]
    hits = np.zeros(2)
    for user, row in enumerate(queries.behaviors):
        liked = np.bincount(data.item_categories[row[row >= 0]], minlength=data.category_count)
        guess = np.argsort(-liked[data.item_categories] * data.train_counts, kind="stable")[:100]
        hits += [np.isin(queries.targets_of(user), items).mean() for items in (guess, popular)]
    assert hits[0] > 1.3 * hits[1]  # by the categories alone; a sequence model also sees the neighbourhoods


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"items": 0}, "items is 0; expected at least 1"),
        ({"users": 0}, "users is 0; expected at least 1"),
        ({"behaviors_per_user": 5.0}, "expected at least 1 each, the first the largest"),
        ({"repeat": 1.5}, "repeat is 1.5; expected a share from 0 to 1"),
        ({"traits": -1}, "traits is -1 and wander 0.25; expected at least 0"),
        ({"wander": 1.0}, "wander 1.0; expected at least 0, and above 0 and below 1"),
        ({"skew": -1.0}, "skew, category_skew, drift and seed must not be negative"),
        ({"items": 10, "categories": 11}, "categories is 11; expected at most 10, one per item"),
    ],
)
def test_a_specification_that_makes_no_sense_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        SyntheticSpec(**change)


def test_command(tmp_path):
    arguments = [
        "synthetic",
        "--items",
        "1000",
        "--users",
        "200",
        "--seed",
        "7",
        "--out",
        str(tmp_path / "s"),
        "--json",
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    body = json.loads(result.stdout.strip().splitlines()[-1])
    assert body["name"] == "synthetic_1k"
    assert body["counts"]["items"] == 1000
    assert "nann prepare synthetic" in CliRunner().invoke(app, ["synthetic", "--help"]).stdout
