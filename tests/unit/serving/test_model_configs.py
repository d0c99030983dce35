"""The hand-written config.pbtxt files, parsed as Triton parses them, against nann/signature.py."""

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from nann.signature import (
    BEAM_RETRIEVAL,
    ENSEMBLE,
    FEATURE_TRANSFORM,
    MODELS,
    SCORER,
    USER_ENCODER,
    USER_PROFILE,
)
from python_backend.repository import TEMPLATE

SPECS = {spec.name: spec for spec in MODELS}
FILES = sorted(TEMPLATE.rglob("*.pbtxt"))
MAX_BATCH_SIZE = 16


def parse(path: Path) -> model_config_pb2.ModelConfig:
    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())


def model_of(path: Path) -> str:
    return path.relative_to(TEMPLATE).parts[0]


def label(path: Path) -> str:
    return str(path.relative_to(TEMPLATE))


def tensors(entries) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(e.name, model_config_pb2.DataType.Name(e.data_type), tuple(e.dims)) for e in entries]


def test_every_model_has_a_configuration_for_every_target():
    by_model = {}
    for path in FILES:
        by_model.setdefault(model_of(path), set()).add(path.name)
    assert by_model == {
        ENSEMBLE.name: {"config.pbtxt"},
        FEATURE_TRANSFORM.name: {"config.pbtxt"},
        BEAM_RETRIEVAL.name: {"config.pbtxt"},
        USER_ENCODER.name: {"embedded.pbtxt", "onnxruntime.pbtxt"},
        SCORER.name: {"embedded.pbtxt", "onnxruntime.pbtxt"},
    }


@pytest.mark.parametrize("path", FILES, ids=label)
def test_names_dtypes_and_shapes_are_the_signatures(path):
    config, spec = parse(path), SPECS[model_of(path)]
    assert config.name == spec.name
    assert tensors(config.input) == [(t.name, t.config_dtype, t.shape) for t in spec.inputs]
    assert tensors(config.output) == [(t.name, t.config_dtype, t.shape) for t in spec.outputs]


@pytest.mark.parametrize("path", FILES, ids=label)
def test_what_passes_the_ensemble_passes_everywhere(path):
    config = parse(path)
    assert config.max_batch_size == MAX_BATCH_SIZE
    optional = [tensor.name for tensor in config.input if tensor.optional]
    assert optional == ([USER_PROFILE.name] if USER_PROFILE in SPECS[config.name].inputs else [])


@pytest.mark.parametrize("path", FILES, ids=label)
def test_python_models_have_a_model_file_of_one_import(path):
    model_file = TEMPLATE / model_of(path) / "1" / "model.py"
    config = parse(path)
    if config.backend == "python":
        assert len(model_file.read_text().splitlines()) == 1
    elif config.platform == "ensemble":
        assert not model_file.exists()
    else:
        assert config.platform == "onnxruntime_onnx"


def test_the_ensemble_wires_equal_names_in_order():
    steps = parse(TEMPLATE / ENSEMBLE.name / "config.pbtxt").ensemble_scheduling.step
    assert [step.model_name for step in steps] == [FEATURE_TRANSFORM.name, USER_ENCODER.name, BEAM_RETRIEVAL.name]
    for step in steps:
        spec = SPECS[step.model_name]
        assert dict(step.input_map) == {tensor.name: tensor.name for tensor in spec.inputs}
        assert dict(step.output_map) == {tensor.name: tensor.name for tensor in spec.outputs}


def test_bounds_and_batching_of_beam_retrieval():
    config = parse(TEMPLATE / BEAM_RETRIEVAL.name / "config.pbtxt")
    assert config.HasField("dynamic_batching")
    assert set(config.parameters) == {"max_top_k", "max_ef", "max_rounds", "max_search_ms"}
    # A rate limiter on the caller of a BLS model waits for itself.
    assert not any(group.HasField("rate_limiter") for group in config.instance_group)
