"""The benchmarks' synthetic corpus, in the setting of the paper's Table 1; made once and kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nann.bundle import Bundle
from nann.manifest import MANIFEST_FILE, search_to_json
from nann.signature import ENTRY_LAYERS

from ...training.data.synthetic import SyntheticSpec
from ...training.reports.runner import Say

TABLE1_ITEMS = 1_300_000
"""Section 4: "the corpus size is 1.3 million"."""
_TOP_K, _EF, _ROUNDS = 200, (200, 500, 1000), (1, 1, 2)
TABLE1_STEPS = 750
"""Enough for items that begin as what they are, in about ten minutes on two cores."""
_CONFIG, _SETTINGS = "complete_journey_demo", ("optimization.warmup_steps=30", "validation.every=0")
"""The paper's network."""
_SPEC = SyntheticSpec(traits=4, interests=3, neighborhood_items=1)
"""Items have four traits, and each user looks for about three combinations of them at a time."""


@dataclass(frozen=True)
class Corpus:
    """An exported bundle and the prepared data set it was made from."""

    bundle: Path
    data: Path


def is_exported(bundle: Path) -> bool:
    """Whether the folder is a bundle with ONNX files, by its manifest; no file is verified."""
    return (bundle / MANIFEST_FILE).is_file() and "export" in Bundle.open(bundle, files=[]).manifest


def table1_corpus(folder: Path, say: Say, items: int = TABLE1_ITEMS, steps: int = TABLE1_STEPS) -> Corpus:
    """A synthetic corpus, kept in `folder`, whose bundle recommends the search of Table 1.

    The scorer is trained on it for `steps` steps, from `content_start` of the studies. Progress lines go to `say`.
    """
    from ...training.config import SearchConfig, resolve_config
    from ...training.search.checked_users import add_check_of
    from ...training.search.pipeline import export_checkpoint
    from ...training.studies.measures.corpus_growth import GrowthSettings, make_size, size_folder

    search = SearchConfig(top_k=_TOP_K, ef=_EF, rounds=_ROUNDS)
    config = resolve_config(_CONFIG, steps=steps).with_settings(_SETTINGS).model_copy(update={"search": search})
    settings = GrowthSettings(config, _SPEC)
    home = size_folder(items, folder, settings)
    corpus = Corpus(home / "bundle", home / "data")
    if not is_exported(corpus.bundle):
        made = make_size(items, folder, settings, say)
        _recommend_layers(made.bundle)
        say(f"{made.name}: export")
        export_checkpoint(made.checkpoint, made.data, Bundle.open(corpus.bundle))
        add_check_of(Bundle.open(corpus.bundle, files=[]), made.data)
    return corpus


def _recommend_layers(bundle: Bundle) -> None:
    """Makes the paper's search, from the top layer, the default; a request may still set `entry` to seeds."""
    by_entry = bundle.search_by_entry
    bundle.change(
        search=search_to_json(by_entry[ENTRY_LAYERS]),
        search_by_entry={entry: search_to_json(params) for entry, params in by_entry.items()},
    )
