"""Into which models a running server divides a request (`nann serve --steps`)."""

from __future__ import annotations

from dataclasses import dataclass

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

from .control import ModelControl


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
