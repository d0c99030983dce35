"""The hand-written config.pbtxt files, parsed as Triton parses them, against nann/signature.py."""

import re
from pathlib import Path

import pytest
from support.triton_configs import SPECS, parse, tensors

from nann.python_backend.repository.configs import hand_written, search_bounds
from nann.python_backend.version_folder import TEMPLATE
from nann.search_requests import SERVED_BOUNDS
from nann.shape_grid import MAX_BATCH_SIZE
from nann.signature import (
    ALLOW_ITEM_IDS,
    ATTRIBUTES,
    BEAM_RETRIEVAL,
    BEHAVIOR_ITEM_IDS,
    CATALOG,
    ENSEMBLE,
    EXCLUDE_ITEM_IDS,
    FEATURE_TRANSFORM,
    ITEM_IDS,
    ITEM_LIGHT,
    ITEM_ROW,
    ITEM_VECTOR,
    ORIGIN,
    SCORER,
    USER_ENCODER,
    USER_ID,
    USER_PROFILE,
)

# Additions are parts of a configuration; tests parse the files that are made from them.
FILES = [path for path in hand_written(TEMPLATE) if path.parent.name != "additions"]
OPTIONAL = (
    *(BEHAVIOR_ITEM_IDS, USER_PROFILE, EXCLUDE_ITEM_IDS, ALLOW_ITEM_IDS, USER_ID, ORIGIN),
    *(ITEM_IDS, ATTRIBUTES, ITEM_ROW, ITEM_LIGHT, ITEM_VECTOR),
)


def model_of(path: Path) -> str:
    return path.relative_to(TEMPLATE).parts[0]


def label(path: Path) -> str:
    return str(path.relative_to(TEMPLATE))


def test_every_model_has_a_configuration_for_every_target():
    by_model = {}
    for path in FILES:
        by_model.setdefault(model_of(path), set()).add(path.name)
    of_targets = {"config.pbtxt", "embedded.pbtxt", "onnxruntime.pbtxt", "torch.pbtxt"}
    assert by_model == {
        ENSEMBLE.name: {"config.pbtxt"},
        CATALOG.name: {"config.pbtxt"},
        FEATURE_TRANSFORM.name: {"config.pbtxt"},
        BEAM_RETRIEVAL.name: {"config.pbtxt"},
        USER_ENCODER.name: of_targets,
        SCORER.name: of_targets,
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
    assert config.max_batch_size == (MAX_BATCH_SIZE if model_of(path) != CATALOG.name else 1)
    optional = [tensor.name for tensor in config.input if tensor.optional]
    assert optional == [spec.name for spec in SPECS[config.name].inputs if spec in OPTIONAL]
    # Requests that differ in the inputs or shapes that a batch must share are searched one after the other.
    if config.name in (FEATURE_TRANSFORM.name, BEAM_RETRIEVAL.name):
        assert all(tensor.allow_ragged_batch for tensor in config.input if tensor.optional)


@pytest.mark.parametrize("path", FILES, ids=label)
def test_python_models_have_a_model_file_of_one_import(path):
    config = parse(path)
    if config.backend == "python":
        model_file = TEMPLATE / model_of(path) / "1" / (config.default_model_filename or "model.py")
        assert len(model_file.read_text().splitlines()) == 1
    else:
        assert config.platform in ("ensemble", "onnxruntime_onnx", "tensorrt_plan")


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
    assert set(config.parameters) == {
        "max_top_k",
        "max_ef",
        "max_rounds",
        "deadline_ms",
        "on_deadline",
        "on_scorer_failure",
        "scorer",
        "scorer_threads",
        "engine",
        "quality_share",
        "quality_load",
    }
    assert search_bounds(TEMPLATE) == SERVED_BOUNDS
    for name, bound in vars(SERVED_BOUNDS).items():
        assert int(config.parameters[name].string_value) == bound
    # A rate limiter on a model that makes BLS calls would wait for itself.
    assert not any(group.HasField("rate_limiter") for group in config.instance_group)


@pytest.mark.parametrize("path", FILES, ids=label)
def test_queues_are_bounded(path):
    """Queues of the models that batch requests."""
    config = parse(path)
    if config.name in (USER_ENCODER.name, SCORER.name) and not path.name.startswith("embedded"):
        batching = config.dynamic_batching
        if config.name == SCORER.name and config.backend == "python":
            assert not config.HasField("dynamic_batching"), (
                "its calls are shapes of the grid already: merging undoes that"
            )
        else:
            assert batching.default_queue_policy.max_queue_size > 0


@pytest.mark.parametrize("path", FILES, ids=label)
def test_all_versions_that_are_there_are_loaded(path):
    """Deploys need it: the folders alone decide which versions are loaded."""
    config = parse(path)
    assert config.version_policy.HasField("all") == (config.name not in (ENSEMBLE.name, CATALOG.name))


def test_what_triton_loads_is_one_import_of_a_class_that_may_run_inside_it():
    """The import contracts see no file of the model repository: each names its class and nothing else."""
    files = sorted(TEMPLATE.glob("*/1/*.py"))
    assert {path.parts[-3] for path in files} == {
        BEAM_RETRIEVAL.name,
        CATALOG.name,
        FEATURE_TRANSFORM.name,
        SCORER.name,
        USER_ENCODER.name,
    }
    for path in files:
        assert re.fullmatch(r"from nann\.python_backend\.models\.\w+ import TritonPythonModel\n", path.read_text()), (
            path
        )
