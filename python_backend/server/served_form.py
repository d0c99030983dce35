"""Into which models a running server divides a request (`nann serve --steps`)."""

from __future__ import annotations

from dataclasses import dataclass

from nann.errors import ConfigError
from nann.signature import (
    BEAM_RETRIEVAL,
    CATALOG,
    ENSEMBLE,
    FEATURE_TRANSFORM,
    ONE_STEP,
    SCORER,
    USER_ENCODER,
    ModelSpec,
)

from ..version_folder import EMBEDDED, ONE, SEPARATE, STEPS, TWO
from .control import ModelControl

AUTO = "auto"
STEPS_VARIABLE, INSTANCES_VARIABLE = "NANN_STEPS", "NANN_INSTANCES"
"""Environment variables with the choices of `nann serve --steps` and `--instances`."""
_WORDS = {
    ONE: "one process does all of a request, the scorer too",
    TWO: "one process does all of a request but the scorer, which it calls",
    SEPARATE: "a process for each step of a request",
}


def chosen_steps(asked: str, target: str, gpu: bool, instances: int | None = None) -> tuple[str, str]:
    """One of `STEPS`, and a line that says so.

    Args:
        asked: one of `STEPS`, or AUTO.
        target: of Triton.
        gpu: whether the machine has a GPU. There the shape of a server stays the same, whatever runs the scorer.
        instances: that somebody asks for; None: nobody does.

    Raises:
        ConfigError: if there is no such choice, or the target does not allow it.
    """
    if asked not in (*STEPS, AUTO):
        raise ConfigError(f"--steps or {STEPS_VARIABLE} is {asked!r}; expected {', '.join(STEPS)} or {AUTO}")
    if asked not in (SEPARATE, AUTO) and target != EMBEDDED:
        raise ConfigError(
            f"--steps {asked} runs the user encoder with onnxruntime in the process of the search, and the target is "
            f"{target!r}; expected --target {EMBEDDED}, or --steps {SEPARATE}"
        )
    steps = asked if asked != AUTO else ONE if target == EMBEDDED and not gpu else SEPARATE
    if instances is not None and steps == SEPARATE:
        raise ConfigError(
            f"--instances or {INSTANCES_VARIABLE} is {instances}, and steps are {steps}; it is of --steps {ONE} "
            f"and {TWO}: here instance_group in config.pbtxt of beam_retrieval says it"
        )
    why = "" if asked != AUTO or steps == SEPARATE else ": no GPU is here"
    return steps, f"steps {steps} ({_WORDS[steps]}){why}"


@dataclass(frozen=True)
class ServedForm:
    """The models of one version.

    Attributes:
        steps: of the ensemble, in order.
        calls_scorer: whether the model `scorer` is there.
    """

    steps: tuple[ModelSpec, ...] = (FEATURE_TRANSFORM, USER_ENCODER, BEAM_RETRIEVAL)
    calls_scorer: bool = True

    @classmethod
    def of(cls, control: ModelControl) -> ServedForm:
        """The form of a server.

        Raises:
            ServerError: if it does not answer.
        """
        if len(control.config(ENSEMBLE.name)["ensemble_scheduling"]["step"]) > 1:
            return cls()
        parameters = control.config(BEAM_RETRIEVAL.name)["parameters"]
        return cls((ONE_STEP,), parameters[SCORER.name]["string_value"] == "bls")

    @property
    def models(self) -> tuple[ModelSpec, ...]:
        """The steps, and the scorer if it is there."""
        return (*self.steps, SCORER) if self.calls_scorer else self.steps

    @property
    def processes(self) -> tuple[ModelSpec, ...]:
        """All that compute something, and so may have processes of their own."""
        return (*self.models, CATALOG)
