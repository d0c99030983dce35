from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.torchrun import two_processes

from nann.errors import ConfigError, DataError
from nann.metrics import recall
from nann.training.checkpoint import Checkpoint, build_model
from nann.training.config import CONFIG_FOLDER, StartConfig, resolve_config
from nann.training.objective import TrainingObjective
from nann.training.sampling import BatchSampler, UnigramSampler
from nann.training.stages import Stage
from nann.training.train import train

pytestmark = pytest.mark.heavy


def weights_of(path):
    return Checkpoint.load(path).model


def test_the_loss_falls(data, config, tmp_path):
    longer = config.model_copy(update={"optimization": config.optimization.model_copy(update={"steps": 200})})
    objective = TrainingObjective(build_model(config, data), config.loss, torch.tensor(data.train_counts))
    before = objective(BatchSampler(data, config).batch(0)).nce.item()
    report = train(data, longer, tmp_path)
    assert report.nce_loss < before - 0.3
    assert (tmp_path / "tensorboard").is_dir()


def test_resuming_gives_the_uninterrupted_run(data, config, tmp_path):
    whole = train(data, config, tmp_path / "whole")
    train(data, config, tmp_path / "parts", stop_at_step=11)
    resumed = train(data, config, tmp_path / "parts", resume=True)
    assert resumed.examples == 19 * 32
    expected, got = weights_of(whole.checkpoint), weights_of(resumed.checkpoint)
    for name, tensor in expected.items():
        assert torch.equal(tensor, got[name]), name


def assert_it_learns(data, config, tmp_path, *, nce="ranking", reading="row_kl", precision="fp32"):
    """The loss of a batch falls well below the first one, and recall is above that of the most popular items."""
    auxiliary = config.loss.auxiliary.model_copy(update={"reading": reading, "candidates": None})
    changes = {
        "loss": config.loss.model_copy(update={"nce": nce, "auxiliary": auxiliary}),
        "optimization": config.optimization.model_copy(update={"steps": 120, "precision": precision}),
        "search": config.search.model_copy(update={"top_k": 60, "ef": (10, 60)}),  # about as many as a user's tastes
        "validation": config.validation.model_copy(update={"users": 100}),
    }
    config = config.model_copy(update=changes)
    batch = BatchSampler(data, config).batch(0)

    def loss_of(model):
        return TrainingObjective(model.train(), config.loss, torch.tensor(data.train_counts))(batch).nce.item()

    torch.manual_seed(config.seed)
    start = loss_of(build_model(config, data))
    report = train(data, config, tmp_path)
    assert loss_of(Checkpoint.load(report.checkpoint).restore(data)) < 0.85 * start
    queries = data.queries("validation", config.model.sequence_length)
    popular = np.argsort(-data.train_counts, kind="stable")[:60]
    by_popularity = recall(np.tile(popular, (100, 1)), queries.target_indptr, queries.target_items)
    assert report.best.recall > by_popularity + 0.1
    assert (report.auxiliary_loss != 0) == (reading != "none")


@pytest.mark.parametrize("reading", ["none", "eq5", "row_kl"])
@pytest.mark.parametrize("nce", ["binary", "ranking"])
def test_every_loss_trains(many_users, config, tmp_path, reading, nce):
    assert_it_learns(many_users, config, tmp_path, nce=nce, reading=reading)


def test_bf16_trains(many_users, config, tmp_path):
    assert_it_learns(many_users, config, tmp_path, precision="bf16")


def test_the_auxiliary_loss_leaves_the_batch_norm_statistics_alone(data, config):
    batch = BatchSampler(data, config).batch(0)

    def statistics(reading):
        torch.manual_seed(0)
        auxiliary = config.loss.auxiliary.model_copy(update={"reading": reading})
        loss = config.loss.model_copy(update={"auxiliary": auxiliary})
        objective = TrainingObjective(build_model(config, data), loss, torch.tensor(data.train_counts)).train()
        objective(batch)
        return [b for name, b in objective.model.named_buffers() if "running" in name]

    for with_auxiliary, without in zip(statistics("row_kl"), statistics("none"), strict=True):
        torch.testing.assert_close(with_auxiliary, without)


def test_two_processes_train_and_stop_together(data_folder, config, tmp_path):
    """torchrun with gloo: disjoint slices of the batches, one checkpoint; one validates, and both stop."""
    done = two_processes(
        tmp_path / "run.py",
        "from dataclasses import replace\n"
        "from nann.training.config import TrainingConfig\n"
        "from nann.training.data.prepared import PreparedData\n"
        "from nann.training.train import train\n"
        "from nann.training.validation import Validator\n"
        "from pathlib import Path\n"
        "measure = Validator.measure\n"
        "Validator.measure = lambda *given: replace(measure(*given), recall=1 / given[-1])  # ever lower\n"
        "validation = {'every': 10, 'patience': 1}\n"
        f"config = TrainingConfig.model_validate({{**{config.model_dump()!r}, 'validation': validation}})\n"
        f"report = train(PreparedData.load({str(data_folder)!r}), config, Path({str(tmp_path / 'out')!r}))\n"
        "print('EXAMPLES', report.examples)\n",
    )
    assert done.stdout.count(f"EXAMPLES {2 * 20 * 32}") == 2
    assert done.stderr.count("validation recall") >= 2
    assert [Checkpoint.load(tmp_path / "out" / name).step for name in ("checkpoint.pt", "best.pt")] == [20, 10]


def test_the_thread_gives_the_batches_of_the_steps_and_ends(data, config):
    sampler = BatchSampler(data, config)
    with closing(sampler.batches(3, 6)) as batches:
        for step, batch in enumerate(batches, 3):
            for got, expected in zip(batch, BatchSampler(data, config).batch(step), strict=True):
                assert torch.equal(got, expected)
            if step == 4:
                break
    assert step == 4
    assert not threads_of_batches()


def test_a_mistake_in_the_thread_ends_the_run(data, config, tmp_path, monkeypatch):
    whole = BatchSampler.batch

    def batch(sampler, step):
        if step == 3:
            raise IndexError("no such example")
        return whole(sampler, step)

    monkeypatch.setattr(BatchSampler, "batch", batch)
    with pytest.raises(IndexError, match="no such example"):
        train(data, config, tmp_path, checkpoint_every_steps=1)
    assert Checkpoint.load(tmp_path / "checkpoint.pt").step == 3
    assert not threads_of_batches()


def threads_of_batches():
    return [thread for thread in threading.enumerate() if thread.name.startswith("next_batch")]


def test_processes_take_disjoint_examples_and_epochs_visit_each_once(data, config):
    samplers = [BatchSampler(data, config, rank, 2) for rank in range(2)]
    steps = range(samplers[0].example_count // 64)
    seen = np.concatenate([sampler._examples(step) for step in steps for sampler in samplers])
    assert len(np.unique(seen)) == len(seen)


def test_batches_hold_the_behaviours_before_the_positive(data, config):
    sampler = BatchSampler(data, config)
    batch = sampler.batch(3)
    chosen = sampler._examples(3)
    first, _, users = (column[chosen] for column in data.training_groups())
    assert batch.is_positive.all()
    assert batch.is_positive.shape == (32, 1)
    for i, (row, user) in enumerate(zip(first, users, strict=True)):
        assert batch.items[batch.candidates[i, 0]] == data.behavior_items[row]
        history = data.behavior_items[data.user_first[user] : row][-8:]
        np.testing.assert_array_equal(batch.behaviors[i].numpy(), np.r_[[-1] * (8 - len(history)), history])


def test_a_basket_gives_distinct_positives_of_one_context(data, config):
    """The same log with baskets of one to six behaviours: at most four of each become positives."""
    rng = np.random.default_rng(5)
    starts = np.zeros(len(data.behavior_items), bool)
    starts[data.user_first] = True
    starts[rng.choice(len(starts), len(starts) // 3, replace=False)] = True
    group_first = np.maximum.accumulate(np.where(starts, np.arange(len(starts)), 0))
    baskets = replace(data, behavior_group_first=group_first, behavior_items=np.arange(len(starts)) % data.item_count)
    config = config.model_copy(update={"loss": config.loss.model_copy(update={"positives": 4})})
    sampler = BatchSampler(baskets, config)
    batch = sampler.batch(0)
    chosen = sampler._examples(0)
    first, end, _ = (column[chosen] for column in baskets.training_groups())
    sizes = []
    for i in range(32):
        real = batch.items[batch.candidates[i, : batch.is_positive.shape[1]][batch.is_positive[i]]].numpy()
        basket = baskets.behavior_items[first[i] : end[i]]
        assert set(real) <= set(basket)
        assert len(real) == min(len(basket), 4)
        sizes.append(len(real))
    assert {1, 4} <= set(sizes)


def test_unigram_sampler_follows_the_counts():
    counts = np.array([0, 1, 0, 6, 3, 0])
    drawn = np.bincount(UnigramSampler(counts).draw(np.random.default_rng(0), (100_000,)), minlength=6)
    np.testing.assert_allclose(drawn / 100_000, counts / 10, atol=0.01)
    assert drawn[counts == 0].sum() == 0


def test_learning_rate_warms_up_and_falls(data, config):
    stage = Stage(5, BatchSampler(data, config), config.optimization)
    schedule = [stage.learning_rate(5 + step) for step in range(31)]
    assert schedule[0] == pytest.approx(3e-3 / 5)
    assert max(schedule) == pytest.approx(3e-3)
    assert schedule[-1] == pytest.approx(3e-5)
    assert schedule[5:] == sorted(schedule[5:], reverse=True)


def test_resuming_with_another_configuration_is_refused(data, config, tmp_path):
    train(data, config, tmp_path, stop_at_step=2)
    with pytest.raises(ConfigError, match="another configuration"):
        train(data, config.model_copy(update={"seed": 2}), tmp_path, resume=True)


def test_resuming_without_a_checkpoint_is_refused(data, config, tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        train(data, config, tmp_path, resume=True)


def test_a_checkpoint_of_another_architecture_is_refused(data, config, tmp_path):
    checkpoint = Checkpoint.load(train(data, config, tmp_path, stop_at_step=1).checkpoint)
    other = config.model_copy(update={"model": config.model.model_copy(update={"architecture": "two_sided"})})
    with pytest.raises(ConfigError, match="another architecture than `two_sided`"):
        Checkpoint(other, 1, checkpoint.model, checkpoint.optimizer).restore(data)


def test_a_checkpoint_of_another_data_set_is_refused(data, config, tmp_path):
    checkpoint = Checkpoint.load(train(data, config, tmp_path, stop_at_step=1).checkpoint)
    fewer = {**checkpoint.model, "item_embedding.weight": checkpoint.model["item_embedding.weight"][:-1]}
    with pytest.raises(DataError, match=f"was trained on {data.item_count - 1} items"):
        Checkpoint(config, 1, fewer, checkpoint.optimizer).restore(data)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x04K\x01."])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="is not a checkpoint"):
        Checkpoint.load(path)


def test_a_checkpoint_of_another_format_is_refused(tmp_path):
    torch.save({"format_version": 99}, tmp_path / "checkpoint.pt")
    with pytest.raises(ConfigError, match="has format 99; this release reads 1"):
        Checkpoint.load(tmp_path / "checkpoint.pt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {depth: 3}", "model.depth"),
        ("optimization: {learning_rate: -1}", "optimization.learning_rate"),
        ("loss: [", "is not YAML"),
        ("- 1", "expected sections"),
        ("search: {top_k: 500}", "last ef at least top_k"),
        ("validation: {every: 0, patience: 2}", "needs `every` of at least 1"),
    ],
)
def test_configuration_mistakes_are_named(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        resolve_config(path)


def test_a_missing_configuration_lists_the_ready_made_ones(tmp_path):
    with pytest.raises(ConfigError, match=r"complete_journey_demo\.yaml"):
        resolve_config(tmp_path / "none.yaml")


@pytest.mark.parametrize("path", sorted(CONFIG_FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_ready_made_configurations_are_valid(path):
    assert resolve_config(path.stem) == resolve_config(path)


def test_settings_can_be_overridden():
    config = resolve_config("complete_journey_demo", steps=7, seed=9)
    assert (config.optimization.steps, config.seed) == (7, 9)
    assert config.optimization.batch_size == resolve_config("complete_journey_demo").optimization.batch_size


def test_single_settings_can_be_set():
    config = resolve_config("complete_journey_demo")
    settings = ["model.architecture=kernel", "model.id_dropout=0.1", "start.steps=5", "model.item_layers=[32, 16]"]
    changed = config.with_settings(settings)
    assert changed.model.id_dropout == 0.1
    assert changed.start == StartConfig(steps=5)  # the section was left out
    assert changed.model.vector_dim == 16
    assert {key.split(".")[0] for key in config.differences(changed)} == {"model", "start"}
    assert config.with_settings([]) is config


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.depth=3", r"settings model.depth=3: model.depth: Extra inputs"),
        ("model.id_dropout=1.5", r"settings .*: model.id_dropout: Input should be less than 1"),
        ("start.steps=5", "start is for model.architecture kernel, and it is attention: leave it out"),
        ("seed.is=3", r"setting 'seed.is=3': seed is no section; expected a key as in model.id_dropout"),
        ("model.id_dropout", r"setting 'model.id_dropout' has no value; expected section.key=value"),
        ("loss.nce=[", r"setting 'loss.nce=\[' is not YAML"),
    ],
)
def test_mistakes_in_settings_are_named(setting, message):
    with pytest.raises(ConfigError, match=message):
        resolve_config("complete_journey_demo").with_settings([setting])
