"""Into which processes a request is divided: what `nann serve` chooses, and what a server says of itself."""

import pytest

from nann.errors import ConfigError
from nann.python_backend.server.served_form import ServedForm, chosen_steps
from nann.signature import BEAM_RETRIEVAL, CATALOG, FEATURE_TRANSFORM, ONE_STEP, SCORER, USER_ENCODER


@pytest.mark.parametrize(
    ("asked", "target", "gpu", "steps"),
    [
        ("auto", "embedded", False, "one"),
        ("auto", "embedded", True, "separate"),
        ("auto", "onnxruntime", False, "separate"),
        ("auto", "torch", True, "separate"),
        ("one", "embedded", True, "one"),
        ("two", "embedded", False, "two"),
        ("separate", "embedded", False, "separate"),
        ("separate", "tensorrt", True, "separate"),
    ],
)
def test_what_is_chosen_is_said(asked, target, gpu, steps):
    chosen, line = chosen_steps(asked, target, gpu)
    assert chosen == steps
    assert line.startswith(f"steps {steps} (")
    assert line.endswith("no GPU is here") == (asked == "auto" and steps == "one")


def test_what_has_no_place_is_refused():
    for steps in ("one", "two"):
        with pytest.raises(
            ConfigError, match=rf"--steps {steps} runs .* target is 'torch'; expected --target embedded"
        ):
            chosen_steps(steps, "torch", False)
    with pytest.raises(ConfigError, match=r"--steps or NANN_STEPS is 'three'; expected one, two, separate or auto"):
        chosen_steps("three", "embedded", False)
    with pytest.raises(
        ConfigError, match=r"--instances or NANN_INSTANCES is 2, and steps are separate; it is of --steps one and two"
    ):
        chosen_steps("auto", "torch", False, 2)


class Control:
    """Configurations as a server gives them."""

    def __init__(self, steps: int, scorer: str) -> None:
        self._configs = {
            "nann": {"ensemble_scheduling": {"step": [{}] * steps}},
            "beam_retrieval": {"parameters": {"scorer": {"string_value": scorer}}},
        }

    def config(self, model: str):
        return self._configs[model]


def test_the_form_of_a_server():
    separate = (FEATURE_TRANSFORM, USER_ENCODER, BEAM_RETRIEVAL)
    assert ServedForm.of(Control(3, "in_process")).processes == (*separate, SCORER, CATALOG)
    assert ServedForm.of(Control(1, "bls")).processes == (ONE_STEP, SCORER, CATALOG)
    assert ServedForm.of(Control(1, "in_process")).processes == (ONE_STEP, CATALOG)
