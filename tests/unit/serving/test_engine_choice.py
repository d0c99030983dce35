"""Which engine a version's scorer gets: by the check that the bundle brings, or as somebody asked."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from support import native_bundle, triton_fakes
from support.native_bundle import INNER_PRODUCT, with_check

from nann.bundle import Bundle
from nann.errors import BundleError, ConfigError, ScorerError
from nann.found_once import FOLDER_VARIABLE
from nann.native_scorer import NATIVE_SCORER_FILE
from nann.python_backend.engines import choose
from nann.python_backend.engines.choose import bundle_engine, open_scorer, time_share
from nann.python_backend.engines.native_model import NativeModel
from nann.python_backend.engines.onnx_model import EmbeddedScorer
from nann.python_backend.engines.recorded import SETTING_FILE, record_engine, recorded_engine
from nann.python_backend.repository.install import install_bundle
from nann.scorer_check import SCORER_CHECK_FILE, ScorerCheck


@pytest.fixture(scope="module", params=[False, True], ids=["table", "rows"])
def made(request, tmp_path_factory) -> Bundle:
    return native_bundle.make_bundle(tmp_path_factory.mktemp("made") / "bundle", item_rows=request.param)


@pytest.fixture
def bundle(made, tmp_path) -> Bundle:
    """A copy of its own."""
    return Bundle.open(shutil.copytree(made.path, tmp_path / "bundle"))


def installed(bundle: Bundle, tmp_path: Path) -> Path:
    """The scorer's version folder."""
    install_bundle(bundle.path, tmp_path / "repository")
    return tmp_path / "repository" / "scorer" / "1"


def test_the_faster_engine_is_taken_if_it_keeps_the_best_items(bundle, tmp_path):
    spec, chosen = open_scorer(installed(bundle, tmp_path), "auto")
    assert (chosen.name, spec) == ("native", bundle.exported_models["scorer"])
    assert "of onnxruntime's time, keeps 100.00% of the exact best 200" in str(chosen)
    check = ScorerCheck.load(bundle.path)
    expected = EmbeddedScorer.open(bundle.path / "scorer.onnx", rows=bundle.item_rows).score(
        check.user_states, np.maximum(check.candidates, 0)
    )
    got = chosen.engine.score(check.user_states, check.candidates, bundle.item_rows)
    known = check.candidates >= 0
    np.testing.assert_allclose(got[known], expected[known], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda scores: scores[:, ::-1], r"keeps \d+\.\d\d% of the exact best 200; expected 99%"),
        (
            lambda scores: np.where(scores == scores.max(), scores.min() - 1, scores),
            r"keeps 99\.[0-9]+% of the exact best 200$",
        ),
    ],
    ids=["all of them", "one in 600"],
)
def test_an_engine_that_loses_the_best_items_is_not(bundle, tmp_path, spoil, reason):
    check = ScorerCheck.load(bundle.path)
    scores = np.ascontiguousarray(spoil(check.scores))
    _, chosen = open_scorer(
        installed(with_check(bundle, ScorerCheck(check.user_states, check.candidates, scores)), tmp_path), "auto"
    )
    assert chosen.name == ("onnxruntime" if "expected" in reason else "native")
    assert re.search(reason, str(chosen))


def test_nan_loses_everything_and_items_as_good_as_the_last_lose_nothing():
    check = ScorerCheck(
        np.zeros((1, 2), np.float32),
        np.arange(8, dtype=np.int32)[None],
        np.array([[9, 5, 5, 5, 1, 1, 1, 0]], np.float32),
    )
    ranked = np.array([[9, 1, 1, 8, 0, 0, 0, 0]], np.float32)
    assert check.agreement(ranked) == 1.0
    assert check.agreement(ranked[:, ::-1]) == 0.0
    ranked[0, 7] = np.nan
    assert check.agreement(ranked) == 0.0


def test_a_bundle_without_a_check_or_a_native_form_runs_in_onnxruntime(bundle, tmp_path):
    unchecked = bundle.change(removed=[SCORER_CHECK_FILE])
    _, chosen = open_scorer(installed(unchecked, tmp_path), "auto")
    assert str(chosen).startswith("scorer: engine onnxruntime; the bundle has nothing to compare others on: run `nann")
    plain = bundle.change(removed=[NATIVE_SCORER_FILE], export={**bundle.manifest["export"], "native": None})
    folder = installed(plain, tmp_path / "plain")
    _, chosen = open_scorer(folder, "auto")
    assert chosen.name == "onnxruntime"
    assert "native: the bundle has no native form" in chosen.reason
    with pytest.raises(ConfigError, match=r"engine is 'native', but the bundle has no native form.*; use auto or"):
        open_scorer(folder, "native")


def test_a_bundle_gets_the_engine_that_it_would_have_once_installed(bundle, tmp_path):
    for name in ("native", "onnxruntime"):
        _, served = open_scorer(installed(bundle, tmp_path / name), "auto")
        found = bundle_engine(bundle)
        assert found.name == served.name == name
        check = ScorerCheck.load(bundle.path)
        candidates = np.maximum(check.candidates, 0)
        np.testing.assert_array_equal(
            found.engine.score(check.user_states, candidates, bundle.item_rows),
            served.engine.score(check.user_states, candidates, bundle.item_rows),
        )
        spoilt = np.ascontiguousarray(check.scores[:, ::-1])
        bundle = with_check(bundle, ScorerCheck(check.user_states, check.candidates, spoilt))
    assert bundle_engine(bundle, "onnxruntime").name == "onnxruntime"
    with pytest.raises(ConfigError, match="engine is 'magic'; expected auto or onnxruntime or native"):
        bundle_engine(bundle, "magic")


def test_a_form_or_a_check_that_can_not_be_read_leaves_onnxruntime(bundle, tmp_path):
    later = bundle.change(export={**bundle.manifest["export"], "native": {"form": "of a later version"}})
    _, chosen = open_scorer(installed(later, tmp_path / "later"), "auto")
    assert chosen.name == "onnxruntime"
    assert "native: fails: " in chosen.reason
    assert "the form is 'of a later version'" in chosen.reason
    path = bundle.path / SCORER_CHECK_FILE
    path.write_bytes(path.read_bytes()[:1000])
    cut = bundle.change(written=[path.name])
    _, chosen = open_scorer(installed(cut, tmp_path / "cut"), "auto")
    assert chosen.name == "onnxruntime"
    assert "scorer.check.npz can't be read" in chosen.reason


def test_an_engine_that_is_asked_for_is_not_compared(bundle, tmp_path):
    folder = installed(bundle.change(removed=[SCORER_CHECK_FILE]), tmp_path)
    for name in ("native", "onnxruntime"):
        _, chosen = open_scorer(folder, name)
        assert str(chosen) == f"scorer: engine {name}; as asked for"
    with pytest.raises(ConfigError, match="engine is 'magic'; expected auto or onnxruntime or native or openvino"):
        open_scorer(folder, "magic")


def test_the_models_run_the_engine_that_was_recorded_or_is_configured(bundle, tmp_path):
    from nann.python_backend.models.embedded_onnx import TritonPythonModel
    from nann.python_backend.search.in_process_scorer import load_in_process

    folder = installed(bundle, tmp_path)
    repository = folder.parent.parent
    outputs = {}
    for engine in ("native", "onnxruntime"):
        model = TritonPythonModel()
        model.initialize(triton_fakes.arguments_of(repository, "scorer", engine=engine, threads="1"))
        items = np.arange(40, dtype=np.int32)[None]
        asked = (
            {"candidates": items} if bundle.item_rows is None else {"candidate_rows": bundle.item_rows.gather(items)}
        )
        states = ScorerCheck.load(bundle.path).user_states[:1]
        (response,) = model.execute([triton_fakes.Request({"user_state": states, **asked})])
        outputs[engine] = response.arrays()["candidate_scores"]
        assert isinstance(model._model, NativeModel) == (engine == "native")
    np.testing.assert_allclose(outputs["native"], outputs["onnxruntime"], rtol=1e-5, atol=1e-5)
    assert not isinstance(load_in_process(repository, 1, 1, "onnxruntime"), NativeModel)
    record_engine(repository, "native")
    assert isinstance(load_in_process(repository, 1, 1, "onnxruntime"), NativeModel)
    assert recorded_engine(repository) == "native"


def test_what_a_native_scorer_refuses_names_the_shapes(bundle, tmp_path):
    engine = NativeModel(bundle)
    states, items = np.zeros((1, 3), np.float32), np.zeros((1, 2), np.int32)
    with pytest.raises(
        ScorerError, match=r"scorer failed on user_state \[1, 3\], candidate\w* \[1, 2\]: user_state has 3"
    ):
        engine.score(states, items, bundle.item_rows)


def test_damaged_files_are_refused(bundle, tmp_path):
    folder = installed(bundle, tmp_path)
    path = folder / NATIVE_SCORER_FILE
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1] + b"?")
    with pytest.raises(BundleError, match=r"scorer\.native\.npz has sha256"):
        open_scorer(folder, "auto")
    changed = bundle.change(export={**bundle.manifest["export"], "native": {**INNER_PRODUCT, "heads": "x"}})
    with pytest.raises(BundleError, match="does not fit its manifest: heads is 'x'"):
        NativeModel(changed)
    (bundle.path / NATIVE_SCORER_FILE).unlink()
    with pytest.raises(BundleError, match="has no native form of its scorer; run `nann export` again"):
        NativeModel(bundle)
    (bundle.path / SCORER_CHECK_FILE).write_bytes(b"PK")
    with pytest.raises(BundleError, match=r"scorer\.check\.npz can't be read"):
        ScorerCheck.load(bundle.path)
    check = ScorerCheck(np.zeros((2, 3), np.float32), np.zeros((1, 4), np.int32), np.zeros((1, 4), np.float32))
    check.save(bundle.path)
    with pytest.raises(BundleError, match=r"scorer\.check\.npz has .* of shapes"):
        ScorerCheck.load(bundle.path)


def test_a_process_takes_the_engine_that_another_one_of_the_server_has_found(bundle, tmp_path, monkeypatch):
    folder = installed(bundle, tmp_path)
    (tmp_path / "found").mkdir()
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "found"))
    _, first = open_scorer(folder, "auto")
    monkeypatch.setattr(choose, "time_share", lambda *_: pytest.fail("engines are compared again"))
    _, second = open_scorer(folder, "auto")
    assert str(second) == str(first)
    check = ScorerCheck.load(bundle.path)
    np.testing.assert_array_equal(
        second.engine.score(check.user_states, check.candidates, bundle.item_rows),
        first.engine.score(check.user_states, check.candidates, bundle.item_rows),
    )
    _, asked = open_scorer(folder, "onnxruntime")
    assert asked.name == "onnxruntime"


class TimedEngine:
    """Takes its time and what other work on the machine takes of it, by a clock of its own."""

    def __init__(self, machine: BusyMachine, own_s: float) -> None:
        self.machine, self.own_s = machine, own_s

    def score(self, *_) -> None:
        self.machine.now_s += self.own_s + self.machine.taken_s()


class BusyMachine:
    """A clock, and other work: two of three calls are interrupted, for up to four times the slower engine's time."""

    def __init__(self, seed: int) -> None:
        self.now_s, self._rng = 0.0, np.random.default_rng(seed)

    def taken_s(self) -> float:
        return self._rng.choice([0, 1, 1]) * self._rng.uniform(0.1, 4.0) * 1e-3

    def share(self, own: float) -> float:
        check = ScorerCheck(np.zeros((4, 2), np.float32), np.zeros((4, 8), np.int32), np.zeros((4, 8), np.float32))
        engines = (TimedEngine(self, own * 1e-3), TimedEngine(self, 1e-3))
        return time_share(*engines, check, None, clock=lambda: self.now_s)


@pytest.mark.parametrize("own", [0.1, 0.5, 0.7, 1.0, 1.4, 2.0])
def test_other_work_on_the_machine_does_not_decide(own):
    shares = [BusyMachine(seed).share(own) for seed in range(200)]
    assert {share <= choose._FASTER for share in shares} == {own <= choose._FASTER}


def test_a_comparison_ends_although_no_time_comes_back():
    machine = BusyMachine(0)
    machine.taken_s = lambda: machine.now_s / 10 + 1e-3  # every call takes longer than the one before
    machine.share(0.8)
    assert 0.5 < machine.now_s < 2


@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_a_damaged_setting_is_refused(tmp_path, text):
    (tmp_path / SETTING_FILE).write_text(text)
    with pytest.raises(
        ConfigError, match=r"\.engine\.json can't be read .*; start the server with `nann serve --engine` again"
    ):
        recorded_engine(tmp_path)
    (tmp_path / SETTING_FILE).write_text(json.dumps({"engine": "magic"}))
    with pytest.raises(ConfigError, match="the scorer's engine is 'magic'; expected"):
        recorded_engine(tmp_path)


def test_a_check_follows_the_items_of_the_next_bundle():
    check = ScorerCheck(
        np.zeros((1, 2), np.float32),
        np.array([[3, 0, 2, -1]], np.int32),
        np.array([[9, 8, 7, 0]], np.float32),
    )
    now = check.renumbered(np.array([2, -1, 3]), 4)  # item 0 is gone, a new one is between the others
    np.testing.assert_array_equal(now.candidates, [[2, 0, -1, -1]])
    np.testing.assert_array_equal(now.scores[:, :2], [[9, 7]])
