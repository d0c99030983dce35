"""The sizes of `nann experiments`: what each trains, measures and sweeps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

from nann.errors import ConfigError
from nann.search_params import SearchParams, SeedParams

from ..config import AuxiliaryConfig, SearchConfig, TrainingConfig, ValidationConfig, resolve_config
from ..search.tune import DEFAULT_MAX_SHARE

ARCHITECTURES = ("two_sided", "no_attention", "attention")
"""The rows of Table 3, by their names in the configuration."""
SPLIT = "test"
_SEEDED_ROUNDS = 3
ONE_MILLION = 1_000_000
"""Least number of items of a large synthetic corpus; experiments.json has headlines for one."""


@dataclass(frozen=True)
class WorthSettings:
    """What the study `worth` depends on besides the data and the random seeds.

    Attributes:
        steps: of the deep model; the other forms get the same share of theirs. None: as many as `auto` chooses.
        users: test users at most.
        coverage: of the exact top 200, to tune the search for. Test users have up to a point less than that.
        max_share: largest share of the items that the search may score.
        ablations: also train with each means left out, for this share of the steps. None: don't.
    """

    steps: int | None = None
    users: int = 2000
    coverage: float = 0.995
    max_share: float = DEFAULT_MAX_SHARE
    ablations: float | None = None


@dataclass(frozen=True)
class StudySettings:
    """Everything that the studies depend on besides the data.

    Attributes:
        size: name of the size.
        base: the configuration of every model unless a study changes it: attention, with the auxiliary loss.
        search: top_k, ef and rounds of studies that don't sweep them.
        seeds: random seeds of the models. Table 3 and the readings average over them; the figures show the first.
        users: how many test users; None: all.
        tuned_coverages: coverages to tune the search for, ascending; the last one is in the headline.
        tuned_users: validation users to tune it on.
        beam_ef: ef per layer of the beam-retrieval sweep.
        beam_rounds: rounds per layer; the sweep takes every pair of ef and rounds.
        best_first_ef: the ground layer's ef of the while-loop sweep.
        ground_rounds: the last round that Figure 5 shows.
        epsilons: eps of Figure 7a, besides 0 (no auxiliary loss) and that of the base configuration.
        top_ks: K of Figure 7b.
        budgets: scorer evaluations per user at which the re-ranking baselines are measured.
        seeded_walks: (number of seeds, ef of the ground layer) of the sweep with entry by seeds, in multiples of top_k.
        histories: lengths of the histories that give a user's own most frequent items.
        growth_items: sizes of the synthetic corpora.
        growth_users: validation users to tune on and test users to measure on, per size.
        seeded_coverages: coverages that the study of entry by seeds tunes for.
        seeded_max_share: largest share of the corpus that its searches may score.
        seeded_users: validation users that it tunes on.
        seeded_items: sizes of synthetic corpora on which it is repeated, with the models of the growth study.
        worth: those of the study `worth`.
    """

    size: str
    base: TrainingConfig
    search: SearchParams
    seeds: tuple[int, ...]
    users: int | None
    tuned_coverages: tuple[float, ...]
    tuned_users: int
    beam_ef: tuple[tuple[int, ...], ...]
    beam_rounds: tuple[tuple[int, ...], ...]
    best_first_ef: tuple[int, ...]
    ground_rounds: int
    epsilons: tuple[float, ...]
    top_ks: tuple[int, ...]
    budgets: tuple[int, ...]
    seeded_walks: tuple[tuple[float, float], ...]
    histories: tuple[int, ...]
    growth_items: tuple[int, ...]
    growth_users: tuple[int, int]
    seeded_coverages: tuple[float, ...]
    seeded_max_share: float
    seeded_users: int
    seeded_items: tuple[int, ...]
    worth: WorthSettings = WorthSettings()

    @property
    def epsilon(self) -> float:
        """The base configuration's eps."""
        return self.base.loss.auxiliary.epsilon

    @property
    def max_top_k(self) -> int:
        """The largest K of any study."""
        return max(self.search.top_k, *self.top_ks)

    def config(
        self,
        architecture: str = "attention",
        *,
        auxiliary: bool = True,
        reading: str | None = None,
        epsilon: float | None = None,
        seed: int | None = None,
    ) -> TrainingConfig:
        """The configuration of one model.

        Args:
            architecture: one of `ARCHITECTURES`.
            auxiliary: whether to train with the auxiliary loss.
            reading: "none", "eq5" or "row_kl"; None: that of the base configuration.
            epsilon: 0: without the auxiliary loss; None: that of the base configuration.
            seed: random seed; None: the first.
        """
        base = self.base
        settings = base.loss.auxiliary
        if not auxiliary or reading == "none" or epsilon == 0:
            settings = AuxiliaryConfig(reading="none")
        else:
            update = {"reading": reading or settings.reading, "epsilon": epsilon or settings.epsilon}
            settings = settings.model_copy(update=update)
        return base.model_copy(
            update={
                "seed": self.seeds[0] if seed is None else seed,
                "model": base.model.model_copy(update={"architecture": architecture}),
                "loss": base.loss.model_copy(update={"auxiliary": settings}),
            }
        )

    def beam_sweep(self) -> list[SearchParams]:
        """Every pair of ef and rounds of the beam-retrieval sweep."""
        pairs = product(self.beam_ef, self.beam_rounds)
        return [SearchParams(self.search.top_k, ef, rounds) for ef, rounds in pairs]

    def seeded_sweep(self) -> list[SearchParams]:
        """Searches with entry by seeds, cheapest first."""
        top_k = self.search.top_k
        return [
            SearchParams(top_k, (round(ef * top_k),), (_SEEDED_ROUNDS,), SeedParams(count, 2 * count))
            for count, ef in ((max(round(seeds * top_k), 1), ef) for seeds, ef in self.seeded_walks)
        ]

    def epsilon_sweep(self) -> list[float]:
        """The eps of Figure 7a, ascending."""
        return sorted({0.0, self.epsilon, *self.epsilons})


def study_settings(
    size: str,
    *,
    config: str | None = None,
    seeds: int | None = None,
    steps: int | None = None,
    users: int | None = None,
    growth: tuple[int, ...] | None = None,
    ablations: float | None = None,
) -> StudySettings:
    """The settings of a size, with some of them replaced.

    Args:
        size: "quick" or "full".
        config: training configuration, by name or path; its number of steps replaces the size's.
        seeds: how many random seeds; the first is the configuration's.
        steps: training steps of every model.
        users: how many test users.
        growth: sizes of the synthetic corpora; entry by seeds is also studied on those of a million items or more.
        ablations: share of the steps of each ablation of the study `worth`; None: no ablations.

    Raises:
        ConfigError: if there is no such size, a corpus has no item, the share is not above 0 and at most 1, or the
            configuration can't be read or has no auxiliary loss.
    """
    if size not in _SIZES:
        raise ConfigError(f'size is "{size}"; expected {" or ".join(_SIZES)}')
    default_config, default_steps, default_seeds, sweeps = _SIZES[size]
    base = resolve_config(config or default_config, steps=steps or (None if config else default_steps))
    if base.loss.auxiliary.reading == "none" or base.loss.auxiliary.weight == 0:
        raise ConfigError(
            f"configuration {config or default_config} trains without the auxiliary loss; the studies compare with and "
            "without: set loss.auxiliary.reading and a weight above 0"
        )
    search = SearchParams(base.search.top_k, base.search.ef, base.search.rounds)
    if growth is not None:
        if min(growth) < 1:
            raise ConfigError(f"growth is {list(growth)}; expected numbers of items of at least 1")
        sweeps = replace(sweeps, growth_items=growth, seeded_items=tuple(one for one in growth if one >= ONE_MILLION))
    if ablations is not None and not 0 < ablations <= 1:
        raise ConfigError(f"ablations is {ablations}; expected a share of the steps above 0 and at most 1, as in 0.5")
    return replace(
        sweeps,
        # The default search has no part in training, so it must not change a model's fingerprint. Training does not
        # validate, since every study measures its models itself.
        base=base.model_copy(update={"search": SearchConfig(), "validation": ValidationConfig(every=0)}),
        search=search,
        seeds=tuple(range(base.seed, base.seed + (seeds or default_seeds))),
        users=users or sweeps.users,
        worth=WorthSettings(steps=steps, users=users or WorthSettings.users, ablations=ablations),
    )


def _layers(upper: tuple[tuple[int, int], ...], ground: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Every pair of the upper layers' ef, entry layer first, and the ground layer's."""
    return tuple((*above, below) for above, below in product(upper, ground))


_QUICK = StudySettings(
    size="quick",
    base=TrainingConfig(),
    search=SearchParams(200, (61, 60, 300), (1, 3, 5)),
    seeds=(1,),
    users=200,
    tuned_coverages=(0.95, 0.98, 0.9915),  # the last is 0.99 and a margin for the test users
    tuned_users=100,
    beam_ef=_layers(((10, 10), (20, 20), (60, 60), (100, 150)), (200, 300)),
    beam_rounds=((1, 2, 3), (1, 3, 5), (1, 5, 8)),
    best_first_ef=(200, 400, 800),
    ground_rounds=8,
    epsilons=(3e-1,),
    top_ks=(50, 100, 200, 400),
    budgets=(200, 400, 800, 1600, 3200, 6400),
    seeded_walks=((0.5, 1), (1, 1), (2, 1), (3, 1.5), (5, 2), (7.5, 2), (10, 4), (16, 5)),
    histories=(50, 200),
    growth_items=(10_000, 30_000),
    growth_users=(100, 200),
    seeded_coverages=(0.95,),
    seeded_max_share=1.0,  # no limit, to show the full cost of the paper's walk at the highest coverage
    seeded_users=60,
    seeded_items=(),
)
_FULL = replace(
    _QUICK,
    size="full",
    users=None,
    beam_ef=_layers(((5, 5), (10, 10), (20, 20), (30, 60), (60, 60), (60, 100), (100, 200)), (200, 300, 500)),
    beam_rounds=((1, 1, 3), (1, 2, 3), (1, 3, 5), (1, 5, 8)),
    best_first_ef=(200, 300, 400, 600, 800, 1200),
    tuned_users=200,
    epsilons=(1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1),
    budgets=(200, 400, 800, 1600, 3200, 6400, 12_800),
    growth_items=(100_000, 300_000, 1_000_000, 3_000_000),
    growth_users=(200, 500),
    seeded_coverages=(0.95, 0.98),
    seeded_users=200,
    seeded_items=(1_000_000,),
)
# Name: configuration, training steps (None: the configuration's), number of random seeds, other settings.
# "quick" trains eight models. On two cores a step of 256 contexts takes 80 ms; scoring every item takes 20 s per model.
_SIZES: dict[str, tuple[str, int | None, int, StudySettings]] = {
    "quick": ("complete_journey_demo", 500, 1, _QUICK),
    "full": ("complete_journey", None, 3, _FULL),
}
