"""Validation while training: what it measures, that weights do not depend on it, what it keeps, when it ends a run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nann.errors import DataError
from nann.exact_search import exact_search
from nann.metrics import coverage, recall
from nann.search_input import UserBatch
from nann.training.checkpoint import Checkpoint, build_model
from nann.training.export.serving_modules import light_vectors, serving_modules
from nann.training.sampling import BatchSampler
from nann.training.scorers import TorchScorer, encode_users_torch
from nann.training.train import train
from nann.training.validation import Validation, Validator

pytestmark = pytest.mark.heavy


def watched(config, **settings):
    return config.model_copy(update={"validation": config.validation.model_copy(update=settings)})


def assert_same_weights(left, right):
    expected, got = Checkpoint.load(left).model, Checkpoint.load(right).model
    assert expected.keys() == got.keys()
    for name, tensor in expected.items():  # weights, and the running statistics of batch norm
        assert torch.equal(tensor, got[name]), name


def kept(items, queries, count):
    """The first `count` items of each row that are not excluded."""
    first, end = queries.excluded_indptr[:-1], queries.excluded_indptr[1:]
    rows = zip(items, first, end, strict=True)
    return np.array([row[~np.isin(row, queries.excluded_items[i:j])][:count] for row, i, j in rows])


@pytest.fixture
def recalls(monkeypatch):
    """Makes the validation after each step find the recall that a test sets: `recalls[step]`."""
    values = {}
    monkeypatch.setattr(Validator, "measure", lambda self, model, step: Validation(step, values[step], None))
    return values


@pytest.mark.parametrize("architecture", ["attention", "no_attention", "two_sided"])
@pytest.mark.parametrize("data_set", ["data", "leave_one_out"])
def test_it_measures_what_an_exhaustive_search_finds(data_set, request, config, architecture, monkeypatch):
    data = request.getfixturevalue(data_set)
    monkeypatch.setattr("nann.training.validation._BLOCK_ON_CPU", (3, 64))
    config = config.model_copy(update={"model": config.model.model_copy(update={"architecture": architecture})})
    torch.manual_seed(0)
    model = build_model(config, data).train()
    batch = BatchSampler(data, config).batch(0)
    model(batch.behaviors, batch.profile_codes, batch.items[batch.candidates])  # batch norm statistics of its own
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = Validator(data, watched(config, users=7), torch.device("cpu")).measure(model, 5)

    queries = data.queries("validation", 8, 7)
    encoder, scorer = serving_modules(model.eval())
    states = encode_users_torch(encoder, queries.behaviors, queries.profiles)
    everything = exact_search(TorchScorer(scorer), UserBatch(states, None), data.item_count, data.item_count).items
    exact = kept(everything, queries, 10)
    assert (found.step, found.recall) == (5, recall(exact, queries.target_indptr, queries.target_items))
    if architecture == "two_sided":
        assert found.coverage is None
    else:
        vectors = light_vectors(model).numpy()
        shortlist = kept(np.argsort(-states[:, -vectors.shape[1] :] @ vectors.T, axis=1), queries, 40)
        assert found.coverage == pytest.approx(coverage(shortlist, exact), abs=0.02)
        assert found.coverage < 1
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_the_model_goes_on_in_the_mode_it_was_in(data, config):
    model = build_model(config, data)
    validator = Validator(data, config, torch.device("cpu"))
    for mode in (True, False):
        validator.measure(model.train(mode), 1)
        assert all(module.training == mode for module in model.modules())


def test_the_weights_are_the_same_to_the_last_bit_without_it(data, config, tmp_path):
    without = train(data, watched(config, every=0), tmp_path / "without")
    with_it = train(data, watched(config, every=7), tmp_path / "with")
    assert_same_weights(without.checkpoint, with_it.checkpoint)
    assert (without.best, without.best_checkpoint) == (None, None)
    assert not (tmp_path / "without" / "best.pt").exists()
    assert with_it.best.step in (7, 14, 21, 28, 30)
    assert Checkpoint.load(with_it.best_checkpoint).step == with_it.best.step


def test_the_best_is_kept_beside_the_last(data, config, tmp_path, recalls):
    recalls.update({10: 0.1, 20: 0.3, 30: 0.3})
    report = train(data, watched(config, every=10), tmp_path)
    assert (report.steps, report.stopped_early) == (30, False)
    assert report.best == Checkpoint.load(tmp_path / "best.pt").best == Validation(20, 0.3, None)
    train(data, config, tmp_path / "until_20", stop_at_step=20)
    assert_same_weights(tmp_path / "best.pt", tmp_path / "until_20" / "checkpoint.pt")
    assert Checkpoint.load(report.checkpoint).step == 30


def test_patience_ends_a_run_and_resuming_does_not_go_on(data, config, tmp_path, recalls):
    recalls.update({5: 0.1, 10: 0.3, 15: 0.2, 20: 0.25, 25: 0.9})
    settings = watched(config, every=5, patience=2)
    report = train(data, settings, tmp_path)
    assert (report.steps, report.examples, report.stopped_early) == (20, 20 * 32, True)
    assert (report.best.step, Checkpoint.load(report.checkpoint).step) == (10, 20)
    again = train(data, settings, tmp_path, resume=True)
    assert (again.steps, again.examples, again.stopped_early) == (20, 0, True)
    more = train(data, watched(config, every=5), tmp_path, resume=True, stop_at_step=27)  # now without patience
    assert (more.steps, more.best) == (27, Validation(25, 0.9, None))


def test_a_resumed_run_knows_its_best(data, config, tmp_path, recalls):
    recalls.update({5: 0.1, 10: 0.3, 15: 0.2, 20: 0.25})
    settings = watched(config, every=5, patience=2)
    train(data, settings, tmp_path, stop_at_step=17)
    report = train(data, settings, tmp_path, resume=True)
    assert (report.steps, report.best.step, report.stopped_early) == (20, 10, True)


def test_a_run_that_starts_afresh_leaves_no_best_of_the_one_before(data, config, tmp_path):
    assert train(data, watched(config, every=10), tmp_path).best_checkpoint.exists()
    assert train(data, watched(config, every=0), tmp_path, overwrite=True).best_checkpoint is None
    assert not (tmp_path / "best.pt").exists()


def test_without_validation_users_nothing_is_validated(data, config, tmp_path):
    nobody = replace(data, user_targets={**data.user_targets, "validation": np.full((data.user_count, 2), -1)})
    assert train(nobody, watched(config, every=1), tmp_path, stop_at_step=2).best is None
    with pytest.raises(DataError, match="no validation users"):
        train(nobody, watched(config, every=1, patience=1), tmp_path, overwrite=True)


def test_the_log_shows_validation_time_and_memory(data, config, tmp_path, capsys):
    report = train(data, watched(config, every=10), tmp_path)
    lines = [line for line in capsys.readouterr().err.splitlines() if "validation recall" in line]
    assert [line.split(":")[0] for line in lines] == ["step 10", "step 20", "step 30"]
    assert f"best {100 * report.best.recall:.2f}% at {report.best.step}" in lines[-1]
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    last = {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}
    assert {"validation/recall", "validation/coverage", "step_ms", "examples_per_s"} <= set(last)
    assert [event.step for event in events.Scalars("validation/recall")] == [10, 20, 30]
    assert last["memory/peak_bytes"] == pytest.approx(report.peak_memory_bytes, rel=0.5)
    assert report.peak_memory_bytes > 50_000_000  # an interpreter with torch
    assert report.step_ms * report.steps <= 1e3 * report.seconds
    assert report.examples_per_s == pytest.approx(32e3 / report.step_ms)
