"""The configurations of `nann serve --steps one` and `two`, parsed as Triton parses them, and how they are made."""

from pathlib import Path

import pytest
from google.protobuf import text_format
from support import tiny_bundle
from tritonclient.grpc import model_config_pb2

from nann.errors import ConfigError
from nann.item_ids import TEXT
from nann.python_backend.repository import install
from nann.python_backend.repository.config_text import with_blocks_of, with_parameter, without_blocks
from nann.python_backend.repository.configs import check_target, write_made_configs
from nann.python_backend.repository.install import install_bundle, set_instances
from nann.python_backend.repository.instances import SETTING_FILE, fitting_instances, recorded_instances
from nann.signature import BEAM_RETRIEVAL, ENSEMBLE, FEATURE_TRANSFORM, ITEM_ID_TENSORS, ONE_STEP, SCORER

FORMS = ("one_step", "two_steps")


def parse(path: Path) -> model_config_pb2.ModelConfig:
    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())


@pytest.fixture(scope="module", params=[False, True], ids=["numbers", "texts"])
def texts(request):
    return request.param


@pytest.fixture(scope="module")
def repository(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("one step")
    install_bundle(tiny_bundle.make_bundle(folder / "bundle", texts=texts).path, folder / "repository")
    return folder / "repository"


def wanted(specs, texts):
    each = (TEXT.spec(one) if texts and one in ITEM_ID_TENSORS else one for one in specs)
    return [(one.name, one.config_dtype, one.shape) for one in each]


def tensors(entries):
    return [(e.name, model_config_pb2.DataType.Name(e.data_type), tuple(e.dims)) for e in entries]


@pytest.mark.parametrize("form", FORMS)
def test_the_one_step_takes_and_returns_what_the_ensemble_does(repository, form, texts):
    config = parse(repository / BEAM_RETRIEVAL.name / "configs" / f"{form}.pbtxt")
    assert tensors(config.input) == wanted(ONE_STEP.inputs, texts)
    assert tensors(config.output) == wanted(ONE_STEP.outputs, texts)
    assert all(tensor.optional and tensor.allow_ragged_batch for tensor in config.input)
    ensemble = parse(repository / ENSEMBLE.name / "configs" / f"{form}.pbtxt")
    assert tensors(ensemble.input) == wanted(ENSEMBLE.inputs, texts)
    (step,) = ensemble.ensemble_scheduling.step
    assert (step.model_name, step.model_version) == (BEAM_RETRIEVAL.name, 1)
    assert dict(step.input_map) == {one.name: one.name for one in ENSEMBLE.inputs}, "no heartbeats of clients"
    assert dict(step.output_map) == {one.name: one.name for one in ENSEMBLE.outputs}
    assert list(ensemble.version_policy.specific.versions) == [1]


@pytest.mark.parametrize(("form", "scorer"), [("one_step", "in_process"), ("two_steps", "bls")])
def test_all_else_is_as_people_have_configured_it(repository, form, scorer):
    config, base, features = (
        parse(repository / path)
        for path in (
            f"beam_retrieval/configs/{form}.pbtxt",
            "beam_retrieval/config.pbtxt",
            "feature_transform/config.pbtxt",
        )
    )
    for field, value in base.ListFields():
        if field.name not in ("input", "output", "parameters"):
            assert getattr(config, field.name) == value
    values = {
        **{key: one.string_value for part in (base, features) for key, one in part.parameters.items()},
        "one_step": "true",
        "scorer": scorer,
    }
    assert {key: one.string_value for key, one in config.parameters.items()} == values


def test_the_scorer_that_is_called_is_the_embedded_one(repository):
    assert parse(repository / SCORER.name / "configs" / "two_steps.pbtxt") == parse(
        repository / SCORER.name / "configs" / "embedded.pbtxt"
    )
    check_target(repository, "embedded")


def test_changes_by_hand_reach_it_and_what_protobuf_has_written_too(tmp_path):
    install_bundle(tiny_bundle.make_bundle(tmp_path / "bundle").path, tmp_path)
    for model, key in ((BEAM_RETRIEVAL, "deadline_ms"), (FEATURE_TRANSFORM, "max_list_length")):
        path = tmp_path / model.name / "config.pbtxt"
        config = parse(path)
        config.parameters[key].string_value = "77"
        path.write_text(text_format.MessageToString(config))
    write_made_configs(tmp_path, 1)
    made = parse(tmp_path / BEAM_RETRIEVAL.name / "configs" / "one_step.pbtxt")
    assert [made.parameters[key].string_value for key in ("deadline_ms", "max_list_length")] == ["77", "77"]
    assert tensors(made.input) == wanted(ONE_STEP.inputs, False)


def counts(repository: Path) -> list[int]:
    config = parse(repository / BEAM_RETRIEVAL.name / "configs" / "one_step.pbtxt")
    return [group.count for group in config.instance_group]


def test_as_many_processes_as_fit_or_as_somebody_says(tmp_path, monkeypatch):
    bundle = tiny_bundle.make_bundle(tmp_path / "bundle")
    install_bundle(bundle.path, tmp_path / "r")
    monkeypatch.setattr(install, "core_count", lambda: 3)
    assert (set_instances(tmp_path / "r", "one", None), counts(tmp_path / "r")) == (3, [3])
    assert (set_instances(tmp_path / "r", "one", 5), counts(tmp_path / "r")) == (5, [5])
    install_bundle(bundle.path, tmp_path / "r")
    assert counts(tmp_path / "r") == [5], "a deploy does not change it"
    base = tmp_path / "r" / BEAM_RETRIEVAL.name / "config.pbtxt"
    base.write_text(base.read_text().replace("count: 1", "count: 2"))
    set_instances(tmp_path / "r", "one", 7)
    assert counts(tmp_path / "r") == [2], "a person has the last word"
    (tmp_path / "r" / SETTING_FILE).write_text("{}")
    with pytest.raises(ConfigError, match=r"instances.json can't be read \('instances'\); remove it, and start `nann"):
        recorded_instances(tmp_path / "r")


def test_large_weights_have_one_process(tmp_path):
    bundle = tiny_bundle.make_bundle(tmp_path / "bundle")
    assert fitting_instances(bundle, "one", 64) == 6
    bundle.manifest["files"]["scorer.onnx"]["bytes"] = 600 << 20
    assert [fitting_instances(bundle, steps, 64) for steps in ("one", "two")] == [1, 6]


def test_blocks_end_where_their_brackets_do():
    text = 'name: "m"\ninput [ { name: "a]}" } ] # ] }\ninput {\n  dims: [ 1 ]\n}\nother { input [ ] }\n'
    assert without_blocks(text, "input") == 'name: "m"\n # ] }\n\nother { input [ ] }\n'
    assert with_blocks_of("x\n", text, "input") == 'x\n\ninput [ { name: "a]}" } ]\ninput {\n  dims: [ 1 ]\n}\n'


def test_a_parameter_is_replaced_or_added():
    for text in ('parameters { key: "scorer" value { string_value: "bls" } }', 'name: "beam_retrieval"'):
        config = text_format.Parse(with_parameter(text, "scorer", "in_process"), model_config_pb2.ModelConfig())
        assert config.parameters["scorer"].string_value == "in_process"
