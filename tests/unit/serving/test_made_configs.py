"""The config.pbtxt files that installation makes for a bundle, against the hand-written ones and the padding grid."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support import tiny_bundle
from support.triton_configs import SPECS, parse, tensors
from tritonclient.grpc import model_config_pb2

from nann.bundle import WARMUP_FILES, Bundle, write_manifest
from nann.errors import ConfigError
from nann.item_ids import TEXT
from nann.python_backend.repository.configs import MADE_CONFIGS
from nann.python_backend.repository.install import install_bundle
from nann.python_backend.version_folder import STEPS_CONFIGS, TEMPLATE
from nann.shape_grid import MAX_BATCH_SIZE, ShapeGrid
from nann.signature import (
    BEAM_RETRIEVAL,
    BEHAVIORS,
    CANDIDATES,
    ENSEMBLE,
    FEATURE_TRANSFORM,
    ITEM_ID_TENSORS,
    PROFILE_CODES,
    SCORER,
    USER_ENCODER,
    USER_STATE,
)

GRID = ShapeGrid((1, 4, 16), (8, 20))
GPU_MODELS = (USER_ENCODER, SCORER)


@pytest.fixture(scope="module", params=[False, True], ids=["unplanned", "planned"])
def installed(request, tmp_path_factory):
    """A bundle with a grid, with and without a real request to warm up with, installed with plans."""
    folder = tmp_path_factory.mktemp("installed")
    bundle = tiny_bundle.make_bundle(folder / "bundle", shape_grid=GRID.to_manifest())
    if request.param:
        for number, name in enumerate(WARMUP_FILES.values()):
            np.save(bundle.path / name, np.arange(4) + number)
        write_manifest(bundle.path, bundle.manifest, [*bundle.manifest["files"], *WARMUP_FILES.values()])
    bundle = Bundle.open(bundle.path)
    plans = tiny_bundle.make_plans(folder / "plans", bundle)
    install_bundle(bundle.path, folder / "repository", plans=plans)
    return folder / "repository"


def made(repository: Path, name: str) -> model_config_pb2.ModelConfig:
    return parse(repository / name)


MADE_FOR_NUMBERS = [
    "beam_retrieval/configs/tensorrt.pbtxt",
    "beam_retrieval/configs/torch.pbtxt",
    "scorer/configs/tensorrt.pbtxt",
    "user_encoder/configs/tensorrt.pbtxt",
]


def made_names(repository: Path) -> list[str]:
    """Without those of a single step, which have tests of their own."""
    names = (name for name in MADE_CONFIGS if Path(name).stem not in STEPS_CONFIGS.values())
    return sorted(name for name in names if (repository / name).exists())


def test_only_configurations_with_something_to_change_are_made(installed):
    assert made_names(installed) == MADE_FOR_NUMBERS


@pytest.mark.parametrize("name", MADE_FOR_NUMBERS)
def test_a_made_configuration_is_the_hand_written_one_and_more(installed, name):
    config = made(installed, name)
    spec = SPECS[config.name]
    assert tensors(config.input) == [(t.name, t.config_dtype, t.shape) for t in spec.inputs]
    base = parse(installed / config.name / "config.pbtxt")
    for field, value in base.ListFields():
        if field.name == "parameters":
            assert {key: value[key] for key in value}.items() <= dict(config.parameters).items()
        else:
            assert getattr(config, field.name) == value
    if config.backend == "python":
        assert (TEMPLATE / config.name / "1" / (config.default_model_filename or "model.py")).exists()


@pytest.fixture(scope="module")
def with_texts(tmp_path_factory):
    """A bundle with text ids, installed with plans."""
    folder = tmp_path_factory.mktemp("texts")
    bundle = tiny_bundle.make_bundle(folder / "bundle", texts=True)
    install_bundle(bundle.path, folder / "repository", plans=tiny_bundle.make_plans(folder / "plans", bundle))
    return folder / "repository"


def test_text_ids_are_bytes_tensors_for_every_target(with_texts):
    made_by_model = {}
    for name in made_names(with_texts):
        made_by_model.setdefault(name.split("/")[0], []).append(Path(name).stem)
    targets = ["embedded", "onnxruntime", "tensorrt", "torch"]
    assert made_by_model["feature_transform"] == made_by_model["beam_retrieval"] == targets
    for model in (ENSEMBLE, FEATURE_TRANSFORM, BEAM_RETRIEVAL):
        for target in targets:
            config = made(with_texts, f"{model.name}/configs/{target}.pbtxt")
            for entries, specs in ((config.input, model.inputs), (config.output, model.outputs)):
                wanted = [TEXT.spec(each) if each in ITEM_ID_TENSORS else each for each in specs]
                assert tensors(entries) == [(t.name, t.config_dtype, t.shape) for t in wanted]


def test_text_ids_change_nothing_else(with_texts, tmp_path):
    bundle = tiny_bundle.make_bundle(tmp_path / "bundle")
    install_bundle(bundle.path, tmp_path / "numbers", plans=tiny_bundle.make_plans(tmp_path / "plans", bundle))
    for name in made_names(with_texts):
        model, target = name.split("/")[0], tmp_path / "numbers" / name
        text = (target if target.exists() else tmp_path / "numbers" / model / "config.pbtxt").read_text()
        made = (with_texts / name).read_text()
        assert made.replace("TYPE_STRING", "TYPE_INT64") == text.replace("TYPE_STRING", "TYPE_INT64")  # of user_id


def test_the_ensemble_names_its_kind_of_ids(installed, with_texts):
    for repository, kind in ((installed, "numbers"), (with_texts, "text")):
        assert made(repository, "nann/configs/embedded.pbtxt").parameters["item_id_kind"].string_value == kind


def test_configurations_for_texts_go_with_the_bundle(with_texts, tmp_path):
    repository = Path(shutil.copytree(with_texts, tmp_path / "repository", symlinks=True))
    install_bundle(tiny_bundle.make_bundle(tmp_path / "bundle").path, repository)
    assert made_names(repository) == ["beam_retrieval/configs/torch.pbtxt"]


def test_a_configuration_without_the_tensors_of_ids_is_refused(tmp_path):
    install_bundle(tiny_bundle.make_bundle(tmp_path / "numbers").path, tmp_path / "repository")
    config = tmp_path / "repository" / "feature_transform" / "config.pbtxt"
    config.write_text(config.read_text().replace("data_type: TYPE_INT64", "data_type: TYPE_INT32", 1))
    words = r'pbtxt has `name: "behavior_item_ids"` without `data_type: TYPE_INT64` behind it; restore it, since nann'
    with pytest.raises(ConfigError, match=words):
        install_bundle(tiny_bundle.make_bundle(tmp_path / "texts", texts=True).path, tmp_path / "repository")


@pytest.mark.parametrize("target", ["tensorrt", "torch"])
def test_beam_retrieval_pads_for_gpu_targets_only(installed, target):
    config = made(installed, f"beam_retrieval/configs/{target}.pbtxt")
    assert config.parameters["pad_to_grid"].string_value == "true"
    assert "pad_to_grid" not in parse(installed / "beam_retrieval" / "config.pbtxt").parameters


def widths_of(spec):
    length = tiny_bundle.LENGTH
    if spec is USER_ENCODER:
        return [{BEHAVIORS.name: length, PROFILE_CODES.name: 1}]
    return [{USER_STATE.name: length, CANDIDATES.name: width} for width in GRID.widths]


@pytest.mark.parametrize("spec", GPU_MODELS, ids=lambda spec: spec.name)
def test_every_profile_is_listed_and_every_point_has_an_exact_graph_and_a_warm_up(installed, spec):
    config = made(installed, f"{spec.name}/configs/tensorrt.pbtxt")
    (group,) = config.instance_group
    assert model_config_pb2.ModelInstanceGroup.Kind.Name(group.kind) == "KIND_GPU"
    assert list(group.profile) == [str(number) for number in range(len(widths_of(spec)))]
    cuda = config.optimization.cuda
    assert cuda.graphs
    batch_sizes = GRID.batch_sizes if spec is SCORER else range(1, MAX_BATCH_SIZE + 1)
    points = [(users, widths) for widths in widths_of(spec) for users in batch_sizes]
    graphs = [(one.batch_size, {name: shape.dim[0] for name, shape in one.input.items()}) for one in cuda.graph_spec]
    assert graphs == points
    assert not any(one.HasField("graph_lower_bound") for one in cuda.graph_spec), "inexact graphs give wrong numbers"
    warmed = [
        (one.batch_size, {name: data.dims[0] for name, data in one.inputs.items()}) for one in config.model_warmup
    ]
    assert warmed == points


@pytest.mark.parametrize("spec", GPU_MODELS, ids=lambda spec: spec.name)
def test_warm_up_data_has_the_size_that_triton_expects(installed, spec):
    """One row of each input; Triton repeats it for the batch."""
    files = set()
    for one in made(installed, f"{spec.name}/configs/tensorrt.pbtxt").model_warmup:
        for tensor in spec.inputs:
            data = one.inputs[tensor.name]
            assert model_config_pb2.DataType.Name(data.data_type) == tensor.config_dtype
            if data.zero_data:
                continue
            path = installed / spec.name / "warmup" / data.input_data_file
            files.add(path)
            number = list(WARMUP_FILES).index(tensor.name)
            expected = np.resize(np.arange(4) + number, data.dims[0]).astype(tensor.dtype)
            np.testing.assert_array_equal(np.fromfile(path, tensor.dtype), expected)
    folder = installed / spec.name / "warmup"
    assert files == (set(folder.iterdir()) if folder.exists() else set())


def test_warm_up_files_of_an_earlier_bundle_go(installed, tmp_path):
    repository = Path(shutil.copytree(installed, tmp_path / "repository", symlinks=True))
    bundle = tiny_bundle.make_bundle(tmp_path / "bundle")
    install_bundle(bundle.path, repository, plans=tiny_bundle.make_plans(tmp_path / "plans", bundle))
    assert not (repository / "scorer" / "warmup").exists()


def test_without_plans_there_is_no_tensorrt_target(tmp_path):
    bundle = tiny_bundle.make_bundle(tmp_path / "bundle")
    plans = tiny_bundle.make_plans(tmp_path / "plans", bundle)
    for given in (plans, None):
        install_bundle(bundle.path, tmp_path / "repository", plans=given)
        of_target = [name for name in made_names(tmp_path / "repository") if "tensorrt" in name]
        assert of_target == ([name for name in MADE_FOR_NUMBERS if "tensorrt" in name] if given else [])
    assert json.loads((plans / "plans.json").read_text())["plans"]
