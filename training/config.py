"""Training configuration: what a YAML file in `training/configs/` may say, with the paper's values as defaults."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nann.errors import ConfigError

CONFIG_FOLDER = Path(__file__).parent / "configs"
NOT_IN_WEIGHTS = ("index", "search", "validation")
"""Sections that change no weight: a run may resume with other values."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProfileConfig(_Section):
    """The industrial variant's Transformer over user profile fields (paper, section 5.1)."""

    d_model: int = Field(16, ge=1)
    heads: int = Field(1, ge=1)
    feed_forward: int = Field(24, ge=1)


class KernelConfig(_Section):
    """The architecture `kernel` (`nann.training.models.kernel_scorer`)."""

    heads: int = Field(4, ge=0)
    """0, and no `repeats`: only the inner product, its own two-sided form."""
    attended: int = Field(50, ge=1)
    """The heads see so many of the latest behaviours; the rest of the score sees `sequence_length`."""
    repeats: bool = False
    """Whether the score knows that a candidate is in the history: for logs in which users come back to items."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Of the embeddings that a step looks up."""


class ModelConfig(_Section):
    """The scorer's shape. Defaults are the UserBehavior variant's."""

    architecture: Literal["attention", "no_attention", "two_sided", "kernel"] = "attention"
    """The first three are the paper's (Table 3)."""
    sequence_length: int = Field(50, ge=1)
    embedding_dim: int = Field(32, ge=1)
    item_layers: tuple[int, ...] = (64, 64, 64)
    attention_dim: int = Field(64, ge=1)
    key_hidden: int = Field(64, ge=1)
    query_hidden: int = Field(64, ge=1)
    score_layers: tuple[int, ...] = (128, 64, 32)
    profile: ProfileConfig | None = None
    kernel: KernelConfig = KernelConfig()
    id_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the items that a step knows by their category and attributes alone. Above 0 the model places items that
    training never saw so, and is exported with an item encoder."""
    start: Literal["similarity", "random"] = "similarity"
    """How the weights are initialised (`nann.training.models.start`); the network is the same."""

    @property
    def vector_dim(self) -> int:
        """Width of e_v."""
        return self.item_layers[-1]


class AuxiliaryConfig(_Section):
    """The adversarial auxiliary loss (paper, eq. 3, 5 and 6)."""

    reading: Literal["none", "eq5", "row_kl"] = "row_kl"
    epsilon: float = Field(3e-4, gt=0)
    weight: float = Field(1.0, ge=0)
    candidates: int | None = Field(None, ge=2)
    """How many candidates per row are perturbed, the positive first. None: all of them, as in the paper."""


class LossConfig(_Section):
    """Noise-contrastive estimation with unigram negatives."""

    nce: Literal["binary", "ranking"] = "binary"
    negatives: int = Field(199, ge=1)
    """Per context; the positives of a context share them."""
    positives: int = Field(1, ge=1)
    """Most items of one basket that are positives of the same context; 1 if the log has no baskets."""
    noise_power: float = Field(0.75, ge=0, le=1)
    """`kernel` draws negatives in proportion to their counts to this power."""
    own_items: Literal["kept", "masked"] = "kept"
    """Whether a user's own other items are negatives. `kernel` only; mask them if retrieval leaves out the history."""
    logq: bool = True
    """Whether `kernel` corrects scores for how often a candidate is drawn."""
    basket_power: float = Field(0.5, ge=0, le=1)
    """A basket weighs as much as size^power targets of `kernel`. At 0 all baskets count alike, as in recall, and items
    that are mainly in large ones, as most rare items are, learn too little; at 1 all targets do."""
    popularity_discount: float = Field(0.0, ge=0, lt=1)
    """`kernel` ranks by its score less this share of the log popularity (logit adjustment, arXiv 2007.07314)."""
    auxiliary: AuxiliaryConfig = AuxiliaryConfig()


class LightConfig(_Section):
    """The light head that finds entry points for the light walk (`nann.training.models.light_head`). Not in the paper.

    Its loss has no weight: no gradient reaches the scorer, and Adam is invariant to the scale of a loss.
    """

    enabled: bool = True
    """Ignored by the two-sided architecture, whose own score is an inner product."""
    width: int = Field(64, ge=2)
    """Of w_u and x_v. The bundle stores this many numbers per item."""
    hidden: int = Field(256, ge=2)


class OptimizationConfig(_Section):
    """Adam with warm-up and a cosine schedule."""

    steps: int = Field(10_000, ge=1)
    batch_size: int = Field(800, ge=2)
    """Contexts per step and process."""
    learning_rate: float = Field(3e-3, gt=0)
    warmup_steps: int = Field(100, ge=0)
    adam_beta2: float = Field(0.999, gt=0, lt=1)
    heads_learning_rate: float = Field(4.0, gt=0)
    """Learning rate of the heads of `kernel`, relative to the others'."""
    final_learning_rate_ratio: float = Field(0.01, ge=0, le=1)
    weight_decay: float = Field(0.0, ge=0)
    clip_norm: float = Field(5.0, gt=0)
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    """bf16: matrix products in bfloat16 (autocast). auto: bf16 if the processor has instructions for it."""


class StartConfig(_Section):
    """The first steps, in which `kernel` trains only its inner product. `optimization` is about those after them."""

    steps: int = Field(1000, ge=1)
    batch_size: int = Field(1024, ge=2)
    negatives: int = Field(1024, ge=1)
    learning_rate: float = Field(2e-3, gt=0)


class ValidationConfig(_Section):
    """How a run is validated (`nann.training.validation`)."""

    every: int = Field(500, ge=0)
    """Steps between validations, besides the last step; 0: never. Each scores all items for `users` users."""
    users: int = Field(50, ge=1)
    """A sample of the validation users, always the same one."""
    patience: int | None = Field(None, ge=1)
    """Stop after this many validations in a row without a better recall. None: train all steps."""

    @model_validator(mode="after")
    def _patience_needs_validations(self) -> ValidationConfig:
        if self.patience is not None and not self.every:
            raise ValueError("patience counts validations: it needs `every` of at least 1")
        return self


class IndexConfig(_Section):
    """HNSW construction (paper, section 5.1)."""

    m: int = Field(32, ge=2)
    ef_construction: int = Field(40, ge=1)
    entry_layer: int = Field(2, ge=0)
    seed: int = 100


class SearchConfig(_Section):
    """Search defaults of the bundle, for the paper's entry: one ef and rounds per layer, entry layer first."""

    top_k: int = Field(200, ge=1)
    ef: tuple[int, ...] = (100, 200, 400)
    rounds: tuple[int, ...] = (1, 3, 5)

    @model_validator(mode="after")
    def _one_value_a_layer(self) -> SearchConfig:
        if len(self.ef) != len(self.rounds) or not self.ef or self.ef[-1] < self.top_k:
            raise ValueError("ef and rounds need one value per layer each, and the last ef at least top_k")
        return self


class TrainingConfig(_Section):
    """Everything one training run depends on, besides the data."""

    seed: int = 1
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    light: LightConfig = LightConfig()
    start: StartConfig | None = None
    """`kernel` only. None: all weights train from the first step."""
    optimization: OptimizationConfig = OptimizationConfig()
    index: IndexConfig = IndexConfig()
    search: SearchConfig = SearchConfig()
    validation: ValidationConfig = ValidationConfig()

    @model_validator(mode="after")
    def _only_a_kernel_has_a_start(self) -> TrainingConfig:
        if self.start is not None and self.model.architecture != "kernel":
            raise ValueError(
                f"start is for model.architecture kernel, and it is {self.model.architecture}: leave it out"
            )
        return self

    @property
    def start_steps(self) -> int:
        """Steps before those of `optimization`."""
        return 0 if self.start is None else self.start.steps

    @property
    def steps(self) -> int:
        """All steps of the run."""
        return self.start_steps + self.optimization.steps

    def override(self, *, steps: int | None = None, seed: int | None = None) -> TrainingConfig:
        """The same with other steps, shared out between the stages as before, or another random seed."""
        changes: dict[str, object] = {} if seed is None else {"seed": seed}
        if steps is not None:
            start = min(steps - 1, round(steps * self.start_steps / self.steps))
            changes["optimization"] = self.optimization.model_copy(update={"steps": steps - start})
            if self.start is not None:
                changes["start"] = self.start.model_copy(update={"steps": start}) if start else None
        return self.model_copy(update=changes)

    def with_settings(self, settings: Sequence[str]) -> TrainingConfig:
        """The same with each `section.key=value` set; the value is YAML, as in a file.

        Raises:
            ConfigError: naming the setting, what came and what was expected.
        """
        body = self.model_dump()
        for setting in settings:
            key, equals, value = setting.partition("=")
            section, (*sections, last) = body, key.split(".")
            for name in sections:
                section[name] = section.get(name) or {}  # a section that is left out, such as `start`
                section = section[name]
                if not isinstance(section, dict):
                    raise ConfigError(
                        f"setting {setting!r}: {name} is no section; expected a key as in model.id_dropout"
                    )
            if not equals:
                raise ConfigError(f"setting {setting!r} has no value; expected section.key=value: model.id_dropout=0.1")
            section[last] = _yaml(value, f"setting {setting!r}")
        return _validated(body, f"settings {', '.join(settings)}") if settings else self

    def fitted(self, item_count: int) -> TrainingConfig:
        """The same with a search that so many items allow: top_k and each ef are at most their number."""
        search, most = self.search, max(item_count, 1)
        changes = {"top_k": min(search.top_k, most), "ef": tuple(min(ef, most) for ef in search.ef)}
        return self.model_copy(update={"search": search.model_copy(update=changes)})

    def differences(self, other: TrainingConfig) -> dict[str, tuple[object, object]]:
        """The settings that weights depend on and that differ: `section.key` -> here and in `other`."""
        mine, theirs = (_flat(config.model_dump(mode="json", exclude={*NOT_IN_WEIGHTS})) for config in (self, other))
        keys = dict.fromkeys([*mine, *theirs])
        return {key: (mine.get(key), theirs.get(key)) for key in keys if mine.get(key) != theirs.get(key)}

    @property
    def fingerprint(self) -> str:
        """Short hash of everything but `validation`."""
        return hashlib.sha256(self.model_dump_json(exclude={"validation"}).encode()).hexdigest()[:12]


def _flat(body: dict[str, Any], prefix: str = "") -> dict[str, object]:
    """Nested sections as `section.key`."""
    flat: dict[str, object] = {}
    for key, value in body.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def resolve_config(name: Path | str, *, steps: int | None = None, seed: int | None = None) -> TrainingConfig:
    """Reads a YAML file, or the ready-made configuration of that name, and overrides its steps and random seed.

    Raises:
        ConfigError: naming the file, the field, what came and what was expected.
    """
    ready_made = CONFIG_FOLDER / f"{name}.yaml"
    path = ready_made if ready_made.is_file() else Path(name)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        names = ", ".join(sorted(file.name for file in CONFIG_FOLDER.glob("*.yaml")))
        raise ConfigError(f"configuration {path} can't be read: {error.strerror}; ready-made ones: {names}") from error
    body = _yaml(text, f"configuration {path}")
    if not isinstance(body, dict | None):
        raise ConfigError(f"configuration {path} holds {type(body).__name__}; expected sections such as `model:`")
    return _validated(body or {}, f"configuration {path}").override(steps=steps, seed=seed)


def _yaml(text: str, what: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{what} is not YAML: {' '.join(str(error).split())}") from error


def _validated(body: dict[str, Any], what: str) -> TrainingConfig:
    try:
        return TrainingConfig.model_validate(body)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise ConfigError(f"{what}: {problems}") from error
