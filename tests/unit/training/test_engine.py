"""`nann build-engine` for real, on the CPU: TensorRT for RTX builds for GPUs that are not here.

What it builds can't be loaded without one; the check of an engine runs on a fake here and on a GPU for real.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import onnx
import pytest
from onnx import TensorProto, helper
from rich.console import Console
from rich.progress import Progress

from nann.bundle import Bundle, sha256_of, write_manifest
from nann.errors import BundleError, ConfigError, ScorerError
from nann.plans import Plans, Profile, check_profiles, optimization_profiles
from nann.shape_grid import ShapeGrid
from nann.signature import CANDIDATES, SCORER, USER_ENCODER, USER_STATE
from nann.training.export.engine import EngineBuilder, EngineOptions, build_plans, fitting_plans
from nann.training.export.engine_inspection import check_engine, check_network
from nann.training.export.tensorrt_api import LIBRARIES

pytestmark = pytest.mark.heavy

trt = pytest.importorskip("tensorrt_rtx")

GRID = ShapeGrid((1, 16), (64, 128, 320))
# For Turing (7.5) TensorRT for RTX has no products in full precision, which the user encoder needs.
TWO_GPUS = EngineOptions(compute_capabilities=("8.0", "8.9"), optimization_level=0)


@pytest.fixture(scope="module")
def bundle(half_bundle, tmp_path_factory) -> Bundle:
    path = shutil.copytree(half_bundle, tmp_path_factory.mktemp("engine") / "bundle")
    opened = Bundle.open(path)
    return write_manifest(path, {**opened.manifest, "shape_grid": GRID.to_manifest()}, opened.manifest["files"])


@pytest.fixture(scope="module")
def plans(bundle, tmp_path_factory) -> Plans:
    return build_plans(bundle, tmp_path_factory.mktemp("engine") / "plans", TWO_GPUS)


def test_the_manifest_says_what_was_built_from_what_and_for_what(plans, bundle):
    manifest = json.loads((plans.path / "plans.json").read_text())
    assert manifest == plans.manifest
    assert (manifest["library"], manifest["tensorrt"]) == ("tensorrt_rtx", trt.__version__)
    assert manifest["compute_capabilities"] == ["8.0", "8.9"]
    assert manifest["gpu"] is None
    assert manifest["cuda"]
    assert manifest["bundle_id"] == bundle.bundle_id
    assert ShapeGrid.of_manifest(manifest) == GRID
    for name, file, precision in (
        ("user_encoder", "user_encoder.onnx", "full"),
        ("scorer", "scorer.fp16.onnx", "half"),
    ):
        entry = manifest["plans"][name]
        path = plans.path / f"{name}.plan"
        assert (entry["bytes"], entry["sha256"]) == (path.stat().st_size, sha256_of(path))
        assert (entry["onnx_file"], entry["onnx_sha256"]) == (file, sha256_of(bundle.path / file))
        assert entry["precision"] == precision


def test_precision_is_that_of_the_onnx_graph(plans):
    layers = {name: entry["inspection"]["network"] for name, entry in plans.manifest["plans"].items()}
    assert layers["scorer"]["HALF"] > 5
    assert "HALF" not in layers["user_encoder"]


def test_the_plan_holds_every_profile_and_tensor(plans):
    """TensorRT names the tensors of profile 1 and later in the plan."""
    content = (plans.path / "scorer.plan").read_bytes()
    for tensor in (*SCORER.inputs, *SCORER.outputs):
        assert tensor.name.encode() in content
        for number in range(1, len(GRID.widths)):
            assert f"{tensor.name} [profile {number}]".encode() in content
        assert f"{tensor.name} [profile {len(GRID.widths)}]".encode() not in content


@pytest.mark.parametrize("capability", ["8.0", "8.6", "8.9"])
def test_each_compute_capability_builds_by_itself(bundle, tmp_path, capability):
    options = EngineOptions(half=False, compute_capabilities=(capability,), optimization_level=0)
    built = build_plans(bundle, tmp_path / "plans", options)
    assert built.manifest["compute_capabilities"] == [capability]
    assert built.manifest["plans"]["scorer"]["onnx_file"] == "scorer.onnx"


def test_a_second_build_replaces_the_plans(bundle, plans, tmp_path):
    folder = shutil.copytree(plans.path, tmp_path / "plans")
    (folder / "scorer.plan").write_bytes(b"old")
    built = build_plans(bundle, folder, TWO_GPUS)
    assert sha256_of(folder / "scorer.plan") == built.manifest["plans"]["scorer"]["sha256"]
    assert not (folder / "timing.cache").exists(), "TensorRT for RTX has none"


def test_plans_that_fit_are_kept_and_others_are_not(bundle, plans, tmp_path):
    assert fitting_plans(bundle, plans.path, TWO_GPUS) == plans.manifest["plans"]
    before = (plans.path / "plans.json").stat()
    build_plans(bundle, plans.path, TWO_GPUS, keep=True)
    assert (plans.path / "plans.json").stat() == before, "nothing was written"
    for other in (
        EngineOptions(compute_capabilities=("8.0",)),
        EngineOptions(),
    ):
        assert fitting_plans(bundle, plans.path, other) == {}
    assert fitting_plans(bundle, tmp_path, TWO_GPUS) == {}
    # The user encoder's fits whatever the scorer's precision, the grid, and the scorer's plan.
    full = EngineOptions(half=False, compute_capabilities=TWO_GPUS.compute_capabilities)
    other_grid = Bundle(bundle.path, {**bundle.manifest, "shape_grid": ShapeGrid((1, 16), (64,)).to_manifest()})
    changed = shutil.copytree(plans.path, tmp_path / "changed")
    (changed / "scorer.plan").write_bytes(b"old")
    for given in ((bundle, plans.path, full), (other_grid, plans.path, TWO_GPUS), (bundle, changed, TWO_GPUS)):
        assert fitting_plans(*given).keys() == {USER_ENCODER.name}


@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops")
def test_the_timing_cache_is_kept_and_given_back(bundle, tmp_path, monkeypatch):
    """TensorRT for RTX has the same calls, although its cache is empty."""
    monkeypatch.setattr("nann.training.export.engine.TIMING_CACHE_LIBRARIES", ("tensorrt_rtx",))
    options = EngineOptions(compute_capabilities=("8.6",), optimization_level=0)
    build_plans(bundle, tmp_path / "plans", options)
    first = (tmp_path / "plans" / "timing.cache").read_bytes()
    build_plans(bundle, tmp_path / "plans", options)
    assert (tmp_path / "plans" / "timing.cache").read_bytes() == first


# Profiles


def test_profiles_follow_the_grid_and_leave_no_gap(bundle):
    state = bundle.user_state_width
    ranges = [
        (*one.smallest[CANDIDATES], *one.largest[CANDIDATES], *one.smallest[USER_STATE], *one.largest[USER_STATE])
        for one in optimization_profiles(bundle, SCORER)
    ]
    assert ranges == [(1, 64, state, state), (65, 128, state, state), (129, 320, state, state)]
    (encoder,) = optimization_profiles(bundle, USER_ENCODER)
    shapes = dict(zip(USER_ENCODER.inputs, ((bundle.sequence_length,), (bundle.profile_width,)), strict=True))
    assert encoder.smallest == encoder.largest == shapes
    check_profiles(optimization_profiles(bundle, SCORER))


def profile(low, high):
    return Profile({CANDIDATES: (low,)}, {CANDIDATES: (high,)})


@pytest.mark.parametrize(
    ("profiles", "message"),
    [
        (
            [profile(1, 64), profile(70, 128)],
            "candidates of width 65 to 69 without a profile; expected each to begin one",
        ),
        ([profile(1, 64), profile(65, 60)], "candidates of width 65 to 64 without"),
    ],
)
def test_profiles_with_a_gap_are_refused(bundle, tmp_path, profiles, message):
    with pytest.raises(ConfigError, match=message):
        builder(tmp_path).build(bundle.path / "scorer.onnx", profiles)


# What TensorRT or the inspection refuses


def builder(tmp_path, spec=SCORER, half=False):
    return EngineBuilder(
        trt, spec, EngineOptions(half, ("8.6",), 0), Progress(console=Console(quiet=True)), tmp_path / "timing.cache"
    )


def save(path, nodes, *, score_type=TensorProto.FLOAT, candidate_type=TensorProto.INT32, output="candidate_scores"):
    graph = helper.make_graph(
        [helper.make_node(*node[:3], **(node[3] if len(node) > 3 else {})) for node in nodes],
        "test",
        [
            helper.make_tensor_value_info("user_state", TensorProto.FLOAT, ["B", 4]),
            helper.make_tensor_value_info("candidates", candidate_type, ["B", "C"]),
        ],
        [helper.make_tensor_value_info(output, score_type, ["B", "C"])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


PROFILES = [Profile({USER_STATE: (4,), CANDIDATES: (1,)}, {USER_STATE: (4,), CANDIDATES: (32,)})]
MEAN = ("ReduceMean", ["user_state"], ["mean"], {"axes": [1], "keepdims": 1})


def scorer_nodes(last="candidate_scores", to=TensorProto.FLOAT):
    place = ("Cast", ["candidates"], ["place"], {"to": TensorProto.FLOAT})
    return [MEAN, place, ("Sub", ["place", "mean"], ["difference"]), ("Cast", ["difference"], [last], {"to": to})]


def test_anyones_scorer_builds(tmp_path):
    plan, inspection = builder(tmp_path).build(save(tmp_path / "s.onnx", scorer_nodes()), PROFILES)
    assert len(plan) > 1000
    assert inspection["network"]["FLOAT"] > 0


def test_an_operator_that_tensorrt_does_not_have(tmp_path):
    nodes = [*scorer_nodes("before"), ("StringNormalizer", ["before"], ["candidate_scores"])]
    with pytest.raises(
        ScorerError, match=r"TensorRT can't read .*s\.onnx: node .*StringNormalizer.*target onnxruntime"
    ):
        builder(tmp_path).build(save(tmp_path / "s.onnx", nodes), PROFILES)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"nodes": scorer_nodes(to=TensorProto.FLOAT16), "score_type": TensorProto.FLOAT16},
            "candidate_scores in the ONNX file of scorer is HALF; expected FLOAT",
        ),
        (
            {"nodes": scorer_nodes(), "candidate_type": TensorProto.INT64},
            "candidates in the ONNX file of scorer is INT64; expected INT32",
        ),
        (
            {"nodes": scorer_nodes("logits"), "output": "logits"},
            "has the tensors candidates, logits, user_state; expected candidate_scores, candidates, user_state",
        ),
    ],
)
def test_another_signature_is_refused(tmp_path, model, message):
    with pytest.raises(ScorerError, match=message):
        builder(tmp_path).build(save(tmp_path / "s.onnx", **model), PROFILES)


def test_half_precision_that_the_graph_does_not_have(bundle, tmp_path):
    with pytest.raises(
        ScorerError, match=r"half precision was asked for, and \d+ of \d+ matrix products of scorer are in"
    ):
        builder(tmp_path, half=True).build(bundle.path / "scorer.onnx", optimization_profiles(bundle, SCORER))


def test_a_profile_that_does_not_fit_the_model(bundle, tmp_path):
    wrong = [Profile({USER_STATE: (5,), CANDIDATES: (1,)}, {USER_STATE: (5,), CANDIDATES: (32,)})]
    with pytest.raises((ScorerError, ConfigError), match=r"TensorRT (can't build|refuses)"):
        builder(tmp_path).build(bundle.path / "scorer.onnx", wrong)


def test_a_gpu_that_tensorrt_does_not_build_for(bundle, tmp_path):
    with pytest.raises(ConfigError, match=r"--compute-capability is 6\.1; tensorrt_rtx .* builds for 7\.5, 8\.0, 8\.6"):
        build_plans(bundle, tmp_path / "plans", EngineOptions(compute_capabilities=("6.1",)))
    assert not (tmp_path / "plans" / "plans.json").exists()


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a GPU")
def test_without_a_gpu_it_says_which_option_names_one(tmp_path):
    options = EngineOptions(half=False, optimization_level=0)
    here = EngineBuilder(trt, SCORER, options, Progress(console=Console(quiet=True)), tmp_path / "timing.cache")
    with pytest.raises(ConfigError, match=r"is there a GPU and a driver.*--compute-capability 8\.6 or such"):
        here.build(save(tmp_path / "s.onnx", scorer_nodes()), PROFILES)


def test_a_bundle_without_the_scorer_in_half(exported_bundle, tmp_path):
    with pytest.raises(BundleError, match=r"has no scorer\.fp16\.onnx; run `nann export --half`, or build with"):
        build_plans(Bundle.open(exported_bundle), tmp_path / "plans", TWO_GPUS)


def test_without_tensorrt_it_says_what_to_install_and_where_to_run(bundle, tmp_path, monkeypatch):
    for name in LIBRARIES:
        monkeypatch.setitem(sys.modules, name, None)  # makes `import` fail
    with pytest.raises(ConfigError, match=r"TensorRT is not installed\. Build where .*`pip install 'nann\[trt-rtx\]'"):
        build_plans(bundle, tmp_path / "plans", TWO_GPUS)


def test_building_needs_no_torch():
    """The image that builds plans has TensorRT and no torch."""
    imports = "import sys, nann.training.export.engine, nann.cli.build_engine"
    code = imports + "; assert not {'torch', 'onnx', 'polars'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


# The engine: a fake one, since a real one needs a GPU


class FakeEngine:
    """TensorRT's `ICudaEngine`, as far as the inspection reads it."""

    num_io_tensors = 3
    num_optimization_profiles = 1

    def __init__(self, names=("user_state", "candidates", "candidate_scores"), high=32, layer="Half"):
        self._names, self._high, self._layer = names, high, layer

    def get_tensor_name(self, number):
        return self._names[number]

    def get_tensor_dtype(self, name):
        return trt.DataType.INT32 if name == "candidates" else trt.DataType.FLOAT

    def get_tensor_profile_shape(self, name, number):
        low, high = (4, 4) if name == "user_state" else (1, self._high)
        return [(1, low), (16, high), (16, high)]

    def create_engine_inspector(self):
        text = json.dumps({"Layers": [{"Name": "a", "Outputs": [{"Format/Datatype": self._layer}]}, {"Name": "b"}]})
        return SimpleNamespace(get_engine_information=lambda _: text)


def test_an_engine_is_inspected():
    assert check_engine(trt, FakeEngine(), SCORER, PROFILES, half=True) == {"layers": 2, "layers_in_half": 1}


@pytest.mark.parametrize(
    ("engine", "profiles", "message"),
    [
        (
            FakeEngine(names=("user_state", "candidates", "x")),
            PROFILES,
            "the engine of scorer has the tensors candidates, u",
        ),
        (FakeEngine(), PROFILES * 2, "has 1 optimization profiles; expected 2"),
        (FakeEngine(high=31), PROFILES, r"profile 0 of candidates .* is \(\(1, 1\), \(16, 31\), .*; expected .*32"),
        (FakeEngine(layer="Float"), PROFILES, "no layer of scorer computes in half precision"),
    ],
)
def test_an_engine_that_is_not_what_was_asked_for_is_refused(engine, profiles, message):
    with pytest.raises(ScorerError, match=message):
        check_engine(trt, engine, SCORER, profiles, half=True)


def test_an_input_that_the_model_does_not_read_stays(exported_bundle, tmp_path):
    """Triton compares the engine's tensors with config.pbtxt: profile_codes must not vanish."""
    nodes = [("Cast", ["behaviors"], ["user_state"], {"to": TensorProto.FLOAT})]
    graph = helper.make_graph(
        [helper.make_node(*nodes[0][:3], **nodes[0][3])],
        "test",
        [helper.make_tensor_value_info(name, TensorProto.INT32, ["B", 4]) for name in ("behaviors", "profile_codes")],
        [helper.make_tensor_value_info("user_state", TensorProto.FLOAT, ["B", 4])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "u.onnx")
    widths = dict.fromkeys(USER_ENCODER.inputs, (4,))
    plan, _ = builder(tmp_path, USER_ENCODER).build(tmp_path / "u.onnx", [Profile(widths, widths)])
    assert b"profile_codes" in plan


def test_check_network_counts_layers(tmp_path):
    logger = trt.Logger(trt.Logger.ERROR)
    network = trt.Builder(logger).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, logger).parse_from_file(str(save(tmp_path / "s.onnx", scorer_nodes())))
    assert sum(check_network(trt, network, SCORER, half=False).values()) >= network.num_layers
