"""`nann train --from`: the weights of a model of the data set as it was before `nann prepare log --append`."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from support.tiny_log import CATEGORIES, CONFIG, ITEMS, USERS
from support.torchrun import two_processes
from typer.testing import CliRunner

from nann.cli.main import app
from nann.errors import ConfigError, DataError
from nann.training.checkpoint import Checkpoint, build_model
from nann.training.config import KernelConfig, ModelConfig, ProfileConfig, TrainingConfig
from nann.training.data.append import append_log
from nann.training.data.canonical_rows import LogColumns
from nann.training.data.custom_log import read_log
from nann.training.data.item_table import ItemTable
from nann.training.data.log_source import ProfileTable
from nann.training.data.prepare import prepare
from nann.training.data.prepared import PreparedData
from nann.training.data.protocol import Protocol
from nann.training.train import train
from nann.training.vocabulary import Vocabulary
from nann.training.warm_start import WarmStart

pytestmark = pytest.mark.heavy
NEW = 40


def reader(folder, day, users, items, first):
    """Writes a day's log and its tables; users stay within two categories. Everything new sorts before the old."""
    rng = np.random.default_rng(first)
    category = {item: f"c{item % CATEGORIES}" if item < ITEMS else f"a{item % 2}" for item in items}
    rows = []
    for user in users:
        liked = np.isin(np.arange(CATEGORIES), np.random.default_rng(user).choice(CATEGORIES, 2, replace=False))
        own = [item for item in items if item >= ITEMS or liked[item % CATEGORIES]]
        rows += [(user, item, first + place) for place, item in enumerate(rng.choice(own, 20).tolist())]
    rows += [(10_000 + item // 20, item, first + item) for item in items]
    name = {item: f"sku-{item % ITEMS:04d}{'-new' * (item >= ITEMS)}" for item in items}
    log, table, profile = (folder / f"{day}-{what}.parquet" for what in ("log", "items", "users"))
    frame = pl.DataFrame(rows, schema=["user", "number", "time"], orient="row")
    frame.select(
        "user",
        pl.col("number").replace_strict(name).alias("item"),
        "time",
        pl.col("number").replace_strict(category).alias("category"),
    ).write_parquet(log)
    brands = [f"b{item % 7}" if item < ITEMS else "another" for item in items]
    pl.DataFrame({"item": [name[item] for item in items], "brand": brands}).write_parquet(table)
    ages = [f"{user % 5}" if user < USERS else "-1" for user in users]
    pl.DataFrame({"user": list(users), "age": ages}).write_parquet(profile)
    columns = LogColumns("user", "item", "time", category="category")
    tables = {"profile": ProfileTable(profile, "user", ("age",)), "items": ItemTable(table, "item")}
    return lambda scratch: read_log([log], columns, scratch, **tables)


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    """The folder of the appended data set, and the data set as it was before."""
    folder = tmp_path_factory.mktemp("days")
    out = folder / "data"
    prepare(
        reader(folder, "monday", range(USERS), range(ITEMS), 1_000), out, Protocol(validation_users=20, test_users=10)
    )
    before = PreparedData.load(out)
    append_log(reader(folder, "tuesday", range(USERS + 20), range(ITEMS + NEW), 5_000), out)
    return out, before


@pytest.fixture(scope="module")
def before(days):
    return days[1]


@pytest.fixture(scope="module")
def now(days):
    return PreparedData.load(days[0])


NEURAL = TrainingConfig.model_validate(CONFIG)
NEURAL = NEURAL.model_copy(update={"model": NEURAL.model.model_copy(update={"profile": ProfileConfig()})})
KERNEL = NEURAL.model_copy(
    update={
        "model": ModelConfig(
            architecture="kernel",
            sequence_length=8,
            item_layers=(16,),
            kernel=KernelConfig(heads=2, repeats=True, attended=5),
            profile=ProfileConfig(),
        )
    }
)


@pytest.fixture(scope="module", params=[KERNEL, NEURAL], ids=["kernel", "attention"])
def trained(request, before, tmp_path_factory):
    """A path to a checkpoint of the data set as it was."""
    return train(before, request.param.override(steps=120), tmp_path_factory.mktemp("train")).checkpoint


def warm_start_of(path, data, config=None):
    checkpoint = Checkpoint.load(path)
    return WarmStart.of(path, checkpoint, data, config or checkpoint.config)


def scores(model, items, seed=3):
    """Of 6 users, for the given items; their histories are of the given items too."""
    rng = np.random.default_rng(seed)
    behaviors = torch.tensor(items[rng.integers(len(items), size=(6, 8))], dtype=torch.int32)
    behaviors[0, :5] = -1
    return lambda profiles: model(behaviors, profiles, torch.tensor(items)[None]).detach().numpy()


def test_known_items_score_as_before(before, now, trained):
    warm_start = warm_start_of(trained, now)
    model = build_model(warm_start.checkpoint.config, now)
    warm_start.apply(model)
    known = np.flatnonzero(now.item_rows < before.item_count)  # what --append guarantees
    assert known.tolist() != list(range(before.item_count))
    assert before.profile_fields[0]["values"] == now.profile_fields[0]["values"][1:]
    ages = torch.tensor([[0], [1], [2], [3], [4], [5]], dtype=torch.int32)
    expected = scores(warm_start.checkpoint.restore(before), np.arange(before.item_count))(ages)
    got = scores(model.eval(), known)(ages + (ages > 0))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    assert np.ptp(expected) > 0.1


def test_what_is_new_starts_as_in_a_new_model(before, now, trained):
    warm_start = warm_start_of(trained, now)
    torch.manual_seed(5)
    fresh = build_model(warm_start.checkpoint.config, now)
    torch.manual_seed(5)
    model = build_model(warm_start.checkpoint.config, now)
    warm_start.apply(model)
    new = torch.from_numpy(now.item_rows >= before.item_count)
    assert int(new.sum()) == NEW
    got, expected = model.state_dict(), fresh.state_dict()
    torch.testing.assert_close(got["item_embedding.weight"][new], expected["item_embedding.weight"][new])
    torch.testing.assert_close(got["attributes.embedding.weight"][1], expected["attributes.embedding.weight"][1])
    assert now.item_attributes.fields[0]["values"][0] == "another"
    assert warm_start.known["items"] == (ITEMS, ITEMS + NEW)
    assert warm_start.known["categories"] == (CATEGORIES, CATEGORIES + 2)
    assert warm_start.known["attribute values"] == (8, 9)
    assert warm_start.known["profile values"] == (6, 7)
    assert f"knows 300 of 340 items, {CATEGORIES} of {CATEGORIES + 2} categories, 8 of 9" in warm_start.summary


def test_a_warm_start_is_ahead_of_a_new_one(now, trained, tmp_path):
    """After as many steps, by validation loss."""
    warm_start = warm_start_of(trained, now)
    config = warm_start.checkpoint.config.override(steps=10)
    warm = train(now, config, tmp_path / "warm", warm_start=warm_start)
    scratch = train(now, config, tmp_path / "scratch")

    queries = now.queries("validation", config.model.sequence_length)
    inputs = torch.from_numpy(queries.behaviors), torch.from_numpy(queries.profiles)

    def loss_of(report):
        """Of the ground truth of validation users among all items; neither model trained on these users."""
        model = Checkpoint.load(report.checkpoint).restore(now)
        scores = model(*inputs, torch.arange(now.item_count)[None]).detach()
        return torch.nn.functional.cross_entropy(scores, torch.from_numpy(queries.target_items).long()).item()

    assert loss_of(warm) < loss_of(scratch)


def test_a_run_may_replace_the_one_that_it_begins_with_and_is_resumed_like_any_other(now, trained, tmp_path):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(trained.read_bytes())
    warm_start = warm_start_of(path, now)
    config = warm_start.checkpoint.config.override(steps=8)
    whole = train(now, config, tmp_path / "whole", warm_start=warm_start)
    train(now, config, tmp_path, overwrite=True, warm_start=warm_start, stop_at_step=3)
    resumed = train(now, config, tmp_path, resume=True)
    expected, got = Checkpoint.load(whole.checkpoint).model, Checkpoint.load(resumed.checkpoint).model
    for name, tensor in expected.items():
        assert torch.equal(tensor, got[name]), name


def test_the_command(days, trained, tmp_path):
    out = tmp_path / "train"
    changes = ["optimization.clip_norm=4", "validation.every=0"]
    command = ["train", "--data", str(days[0]), "--from", str(trained), "--steps", "3", "--out", str(out), "--json"]
    command += [option for change in changes for option in ("--set", change)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "knows 300 of 340 items" in result.stderr
    body = json.loads(result.stdout.splitlines()[-1])
    assert body["steps"] == 3
    assert body["known"]["items"] == [300, 340]
    expected = Checkpoint.load(trained).config.with_settings(changes).override(steps=3)
    assert Checkpoint.load(out / "checkpoint.pt").config == expected


def test_two_processes_begin_with_the_weights_and_replace_their_run(days, now, trained, tmp_path):
    """torchrun with gloo, steps too small to change a weight: the weights of both processes are those of one."""
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(trained.read_bytes())
    rates = ("optimization.learning_rate", "optimization.heads_learning_rate")
    command = ["train", "--data", str(days[0]), "--from", str(path), "--overwrite", "--out", str(tmp_path)]
    command += ["--steps", "3", "--json", *(word for rate in rates for word in ("--set", f"{rate}=1e-12"))]
    done = two_processes(tmp_path / "run.py", f"from nann.cli.main import app\napp({command!r})\n")
    assert done.stderr.count("knows 300 of 340 items") == 1
    body = json.loads(done.stdout.strip())  # the main process reports alone
    checkpoint = Checkpoint.load(path)
    assert body["steps"] == checkpoint.step == 3
    torch.manual_seed(checkpoint.config.seed)
    expected = build_model(checkpoint.config, now)
    warm_start_of(trained, now).apply(expected)
    for name, tensor in expected.named_parameters():
        torch.testing.assert_close(checkpoint.model[name], tensor, rtol=0, atol=1e-9)


def test_another_network_is_refused(now, trained):
    config = Checkpoint.load(trained).config
    other = config.model_copy(update={"model": config.model.model_copy(update={"sequence_length": 9})})
    with pytest.raises(ConfigError, match=r"another network: model.sequence_length was 8 and is 9; leave out --config"):
        warm_start_of(trained, now, other)
    dropout = config.model.model_copy(update={"start": "random"})
    assert warm_start_of(trained, now, config.model_copy(update={"model": dropout}))


def test_id_dropout_may_be_of_another_share_but_not_come_or_go(now, trained):
    checkpoint = Checkpoint.load(trained)
    without, little, more = (checkpoint.config.with_settings([f"model.id_dropout={share}"]) for share in (0, 0.1, 0.2))
    for before, after in ((without, little), (little, without)):
        with pytest.raises(ConfigError, match=r"another network: model.id_dropout was"):
            WarmStart.of(trained, replace(checkpoint, config=before), now, after)
    assert WarmStart.of(trained, replace(checkpoint, config=little), now, more)


def test_another_data_set_is_refused(data, before, now, trained):
    with pytest.raises(DataError, match=r"are text .*, the data set's whole numbers .*train without --from"):
        warm_start_of(trained, data)
    without = replace(now, item_ids=np.where(now.item_rows == 5, b"sku-0004-x", now.item_ids))
    with pytest.raises(
        DataError, match=r"another data set: 1 of its 300 items are not in this one, such as 'sku-0005'"
    ):
        warm_start_of(trained, without)
    others = replace(now, category_labels=tuple(f"x{label}" for label in now.category_labels))
    with pytest.raises(DataError, match=r"another data set: 12 of its 12 categories are not in this one"):
        warm_start_of(trained, others)


def test_attributes_that_the_checkpoint_has_not_are_refused(now, trained):
    without = replace(now, item_attributes=None, item_categories=np.zeros_like(now.item_categories))
    warm_start = warm_start_of(trained, now)
    model = build_model(warm_start.checkpoint.config, replace(without, profile_fields=()))
    with pytest.raises(DataError, match=r"the checkpoint has .* and the data set has none .*train without --from"):
        warm_start.apply(model)


def test_a_checkpoint_of_an_older_release_is_refused(now, trained):
    checkpoint = replace(Checkpoint.load(trained), vocabulary=None)
    with pytest.raises(ConfigError, match="of an older release and has no item ids"):
        WarmStart.of(trained, checkpoint, now, checkpoint.config)


def vocabulary(attributes=(), profiles=()):
    return Vocabulary(np.array([1]), ("",), attributes, profiles)


def test_fields_are_matched_by_name_values_by_value_and_bins_by_where_they_begin():
    before = (
        {"name": "gone", "kind": "category", "values": ["x"]},
        {"name": "price", "kind": "number", "edges": [10, 20]},
        {"name": "brand", "kind": "category", "values": ["b", "c"]},
    )
    now = (
        {"name": "brand", "kind": "categories", "values": ["a", "c"]},
        {"name": "price", "kind": "number", "edges": [5, 10, 15, 30]},
        {"name": "new", "kind": "category", "values": ["x"]},
        {"name": "gone", "kind": "number", "edges": [3]},
    )
    # Before: gone 0-1, price 2 (unknown), 3, 4, 5, brand 6 (unknown), 7, 8.
    rows = vocabulary(now).attribute_rows(vocabulary(before))
    assert rows.tolist() == [6, -1, 8, 2, 3, 3, 4, 4, 5, -1, -1, -1, -1, -1]


def test_a_profile_field_without_numbers_has_one_code():
    before = ({"name": "age", "kind": "number", "values": ["below 5", "5 or more"], "edges": [5]},)
    now = ({"name": "age", "kind": "number", "values": [], "edges": []},)
    assert vocabulary(profiles=now).profile_rows(vocabulary(profiles=before)).tolist() == [0]
    assert vocabulary(profiles=before).profile_rows(vocabulary(profiles=now)).tolist() == [0, -1, -1]
