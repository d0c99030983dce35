import json
import math
import shutil
import threading

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny_bundle, triton_fakes

from nann.errors import BundleError, ScorerError
from nann.manifest import sha256_of
from nann.python_backend.engines.onnx_model import BLOCK_PAIRS, OnnxModel, block_pairs
from nann.scorer import shared_by
from nann.signature import SCORER, USER_ENCODER


def load(args):
    from nann.python_backend.models.embedded_onnx import TritonPythonModel

    model = TritonPythonModel()
    model.initialize(args)
    return model


def score_request(users, candidates):
    states = np.arange(users * tiny_bundle.LENGTH, dtype=np.float32).reshape(users, -1)
    return triton_fakes.Request(
        {"user_state": states, "candidates": np.tile(np.arange(candidates, dtype=np.int32), (users, 1))}
    )


def test_no_candidates_is_the_callers_mistake(model_args):
    (response,) = load(model_args("scorer")).execute([score_request(3, 0)])
    assert response.error().code() == "INVALID_ARG"
    assert "candidates has shape [3, 0]" in response.error().message()


def test_inputs_that_the_model_does_not_read_are_dropped(model_args):
    model = load(model_args("user_encoder"))
    behaviors = np.array([[1, 2, 3, 4]], np.int32)
    (response,) = model.execute(
        [triton_fakes.Request({"behaviors": behaviors, "profile_codes": np.zeros((1, 1), np.int32)})]
    )
    np.testing.assert_array_equal(response.arrays()["user_state"], behaviors)


@pytest.mark.parametrize("widths", [(5, 5, 5), (5, 2, 5), (1,)])
def test_requests_get_their_own_rows_whether_they_run_together_or_not(model_args, widths):
    model = load(model_args("scorer", threads="1"))
    requests = [score_request(users, width) for users, width in enumerate(widths, 1)]
    for request, response in zip(requests, model.execute(requests), strict=True):
        alone = model.execute([request])[0].arrays()["candidate_scores"]
        np.testing.assert_array_equal(response.arrays()["candidate_scores"], alone)


def test_a_run_that_fails_is_an_error_with_the_shapes(model_args):
    model = load(model_args("scorer", threads="1"))
    wrong = {"user_state": np.zeros((1, 3), np.float32), "candidates": np.zeros((1, 2), np.int32)}
    (response,) = model.execute([triton_fakes.Request(wrong)])
    assert "scorer failed on user_state [1, 3], candidates [1, 2]" in response.error().message()
    assert not model.execute([score_request(1, 2)])[0].has_error()


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_a_missing_file_stops_the_load(model_args, repository, tmp_path, name):
    args = copy_model(model_args("scorer", threads="1"), tmp_path)
    (tmp_path / "scorer" / "1" / name).unlink()
    with pytest.raises(BundleError, match=name):
        load(args)


def test_a_changed_byte_stops_the_load(model_args, tmp_path):
    args = copy_model(model_args("scorer", threads="1"), tmp_path)
    path = tmp_path / "scorer" / "1" / "model.onnx"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.onnx has sha256 .* the file was changed"):
        load(args)


def test_external_data_is_verified_too(model_args, tmp_path):
    args = copy_model(model_args("scorer", threads="1"), tmp_path)
    folder = tmp_path / "scorer" / "1"
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "scorer.onnx.data").write_bytes(b"weights")
    manifest["files"]["scorer.onnx.data"] = {"bytes": 7, "sha256": sha256_of(folder / "scorer.onnx.data")}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    load(args)
    (folder / "scorer.onnx.data").write_bytes(b"weighty")
    with pytest.raises(BundleError, match=r"scorer\.onnx\.data has sha256"):
        load(args)


def copy_model(args, tmp_path):
    shutil.copytree(args["model_repository"], tmp_path / args["model_name"])
    return {**args, "model_repository": str(tmp_path / args["model_name"])}


@pytest.mark.parametrize(
    ("model", "spec", "message"),
    [
        (tiny_bundle.scorer(output="logits"), SCORER, "has no output candidate_scores"),
        (tiny_bundle.scorer(), USER_ENCODER, "has an input .*; expected inputs behaviors, profile_codes"),
        (
            tiny_bundle.scorer(output_type=onnx.TensorProto.DOUBLE),
            SCORER,
            r"candidate_scores is tensor\(double\) .*; expected tensor\(float\) of \[batch, any\]",
        ),
    ],
)
def test_a_model_of_another_signature_is_refused(tmp_path, model, spec, message):
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(BundleError, match=message):
        OnnxModel(tmp_path / "model.onnx", spec, 1)


def test_what_is_no_onnx_file_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"junk")
    with pytest.raises(BundleError, match="can't be loaded by onnxruntime"):
        OnnxModel(tmp_path / "model.onnx", SCORER, 1)


def test_an_output_of_another_batch_size_is_an_error(tmp_path):
    graph = tiny_bundle.user_encoder()
    node = graph.graph.node.add(op_type="Transpose", input=["user_state"], output=["turned"])
    graph.graph.node[0].output[0], node.output[0], node.input[0] = "flat", "user_state", "flat"
    graph.graph.output[0].type.tensor_type.ClearField("shape")
    graph.graph.output[0].type.tensor_type.shape.dim.add(dim_param="X")
    graph.graph.output[0].type.tensor_type.shape.dim.add(dim_param="Y")
    onnx.save(graph, tmp_path / "model.onnx")
    model = OnnxModel(tmp_path / "model.onnx", USER_ENCODER, 1)
    with pytest.raises(ScorerError, match=r"returned user_state of shape \[4, 2\]; expected \[2, any\]"):
        model.run({"behaviors": np.zeros((2, 4), np.int32)})


def test_warm_up_runs_what_it_can(tmp_path, monkeypatch):
    onnx.save(tiny_bundle.scorer(), tmp_path / "model.onnx")
    model = OnnxModel(tmp_path / "model.onnx", SCORER, 1)
    runs = []
    monkeypatch.setattr(model, "run", lambda feed: runs.append({name: array.shape for name, array in feed.items()}))
    model.warm_up({})
    assert not runs, "the number of candidates is open"
    model.warm_up({"candidates": (5,)})
    assert runs == [{"user_state": (2, tiny_bundle.LENGTH), "candidates": (2, 5)}]


@pytest.mark.parametrize(("users", "candidates"), [(3, 4), (2, 25), (16, 1)])
def test_scores_in_blocks_are_those_of_the_whole(tmp_path, monkeypatch, users, candidates):
    onnx.save(tiny_bundle.scorer(), tmp_path / "model.onnx")
    rng = np.random.default_rng(0)
    feed = {
        "user_state": rng.uniform(0, 29, (users, tiny_bundle.LENGTH)).astype(np.float32),
        "candidates": rng.integers(tiny_bundle.ITEMS, size=(users, candidates), dtype=np.int32),
    }
    whole = OnnxModel(tmp_path / "model.onnx", SCORER, 1).run(feed)
    monkeypatch.setattr("nann.python_backend.engines.onnx_model.BLOCK_PAIRS", 10)
    for threads in (1, 3):
        np.testing.assert_array_equal(OnnxModel(tmp_path / "model.onnx", SCORER, threads).run(feed), whole)


@given(pairs=st.integers(0, 300_000), threads=st.integers(1, 64))
def test_threads_get_equal_parts_of_the_pairs(pairs, threads):
    size = block_pairs(pairs, threads)
    assert BLOCK_PAIRS // 2 <= size <= BLOCK_PAIRS
    if pairs > BLOCK_PAIRS and size > BLOCK_PAIRS // 2:
        rounds = math.ceil(math.ceil(pairs / size) / threads)
        assert rounds * size <= pairs / threads + rounds, "a thread does more than its share, rounded up"


def test_threads_share_the_blocks():
    together, seen = threading.Barrier(3, timeout=30), []  # no thread could fill it alone

    def function(block):
        together.wait()
        seen.append(block)

    blocks = [(slice(row), slice(1)) for row in range(6)]
    shared_by(3)(function, iter(blocks))
    assert sorted(seen, key=blocks.index) == blocks


@pytest.mark.parametrize("bad", range(4))
def test_what_a_block_raises_is_raised_whichever_thread_had_it(bad):
    blocks = [(slice(row), slice(1)) for row in range(4)]

    def function(block):
        if block == blocks[bad]:
            raise ScorerError("no score")

    with pytest.raises(ScorerError, match="no score"):
        shared_by(2)(function, blocks)


def test_padding_is_not_scored(tmp_path, monkeypatch):
    onnx.save(tiny_bundle.scorer(), tmp_path / "model.onnx")
    monkeypatch.setattr("nann.python_backend.engines.onnx_model.BLOCK_PAIRS", 10)
    model = OnnxModel(tmp_path / "model.onnx", SCORER, 1)
    rng = np.random.default_rng(0)
    states = rng.uniform(0, 29, (4, tiny_bundle.LENGTH)).astype(np.float32)
    candidates = rng.integers(tiny_bundle.ITEMS, size=(4, 25), dtype=np.int32)
    whole = model.run({"user_state": states, "candidates": candidates})
    for user, count in enumerate((25, 3, 0, 12)):
        candidates[user, count:] = -1
    widths, run = [], model._run
    monkeypatch.setattr(model, "_run", lambda feed: widths.append(feed["candidates"].shape[1]) or run(feed))
    scores = model.run({"user_state": states, "candidates": candidates})
    np.testing.assert_array_equal(scores[candidates != -1], whole[candidates != -1])
    assert sum(widths) == 25 + 3 + 0 + 12
