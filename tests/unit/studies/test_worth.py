"""The study `worth`: its numbers against plain computations, and the results of other data sets, which stay."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.study_checks import check_study
from support.tiny_log import write_log

from nann.bundle import Bundle
from nann.errors import ConfigError
from nann.training.auto_config import auto_config
from nann.training.baselines.compare import BASELINES
from nann.training.checkpoint import Checkpoint
from nann.training.data.canonical_rows import LogColumns
from nann.training.data.custom_log import read_log
from nann.training.data.prepare import prepare
from nann.training.data.prepared import PreparedData
from nann.training.data.protocol import Protocol
from nann.training.row_sampling import RowSampler
from nann.training.studies import worth
from nann.training.studies.execute import run_studies
from nann.training.studies.runs import Runs, data_fingerprint
from nann.training.studies.settings import WorthSettings, study_settings
from nann.training.studies.worth_forms import Form, ablated, two_sided

pytestmark = pytest.mark.heavy
STEPS = 12


@pytest.fixture(scope="module")
def setup(study_setup):
    return replace(study_setup, worth=WorthSettings(steps=STEPS, users=20, coverage=0.9, max_share=1.0, ablations=0.5))


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    """Another data set, whose answers are never items of the history."""
    folder = tmp_path_factory.mktemp("second")
    log, columns = write_log(folder / "log.csv"), LogColumns("user", "item", "time", category="category")
    protocol = Protocol(kind="leave-one-out", min_behaviors=3, exclude_history=True, validation_users=10, test_users=25)
    prepare(lambda scratch: read_log([log], columns, scratch, name="second"), folder / "data", protocol, name="second")
    return PreparedData.load(folder / "data")


@pytest.fixture(scope="module")
def measured(study_data, second, setup, tmp_path_factory):
    """Both data sets, run one after the other into one report: the runs, the bodies of the file, the progress lines."""
    folder, lines = tmp_path_factory.mktemp("worth"), []
    runs = [Runs(data, folder / "cache", setup, lines.append) for data in (study_data, second)]
    bodies = []
    for each in runs:
        body = run_studies([worth.STUDY], each, setup, folder / "out", command="nann experiments --only worth")
        bodies.append(copy.deepcopy(body))
    return runs, bodies, lines, folder


@pytest.fixture(scope="module", params=[0, 1], ids=["log", "second"])
def one(request, measured):
    """The runs and the result of one data set."""
    runs, bodies, _, _ = measured
    name = runs[request.param].data.manifest["name"]
    return runs[request.param], bodies[1]["studies"]["worth"]["result"][name]


def forms(data, setup):
    auto = auto_config(data).config
    share = STEPS / auto.steps
    for seed in setup.seeds:
        with_seed = auto.override(seed=seed)
        yield seed, Form("deep", with_seed, data).for_share(share), two_sided(with_seed, data).for_share(share)


def folder_of(runs, form):
    return runs.folder / "worth" / f"{form.config.fingerprint}-{data_fingerprint(form.data)}"


@torch.no_grad()
def plain_lists(runs, form):
    """Every item scored by the network itself, one user at a time, without the items that are no answers."""
    model = Checkpoint.load(folder_of(runs, form) / "checkpoint.pt").restore(form.data)
    queries = form.data.queries("test", form.config.model.sequence_length, 20)
    every = torch.arange(form.data.item_count)
    for user, (behaviors, profile) in enumerate(zip(queries.behaviors, queries.profiles, strict=True)):
        context = model.user_context(torch.from_numpy(behaviors)[None], torch.from_numpy(profile)[None])
        vectors = model.item_vectors(every)[None]
        scores = model.score(context, model.item_features(vectors, every[None]))[0].numpy()
        first, end = queries.excluded_indptr[user : user + 2]
        scores[queries.excluded_items[first:end]] = -np.inf
        yield np.argsort(-scores)[:200], set(queries.targets_of(user).tolist())


def plain_measures(lists):
    """recall@20, recall@200 and NDCG@20 of (list, targets) pairs."""
    lists = list(lists)
    recalls = [
        np.mean([len(wanted & set(items[:k].tolist())) / len(wanted) for items, wanted in lists]) for k in (20, 200)
    ]
    gains = []
    for items, wanted in lists:
        gained = sum(1 / np.log2(place + 2) for place, item in enumerate(items[:20].tolist()) if item in wanted)
        gains.append(gained / sum(1 / np.log2(place + 2) for place in range(min(20, len(wanted)))))
    return dict(zip(("recall_20", "recall_200", "ndcg_20"), [*recalls, np.mean(gains)], strict=True))


def test_the_models_are_measured_by_plain_lists_of_every_item(one, setup):
    runs, result = one
    by_seed = {"deep": {}, "two_sided": {}}
    for seed, deep, simple in forms(runs.data, setup):
        for name, form in (("deep", deep), ("two_sided", simple)):
            by_seed[name][seed] = plain_measures(plain_lists(runs, form))
    for name, expected in by_seed.items():
        assert [each["seed"] for each in result[name]["by_seed"]] == [1, 2]
        for metric in ("recall_20", "recall_200", "ndcg_20"):
            values = [expected[seed][metric] for seed in (1, 2)]
            # An item or two may change places: the exported scorer adds in another order.
            assert [each[metric] for each in result[name]["by_seed"]] == pytest.approx(values, abs=0.01)
            assert result[name][metric] == np.mean([each[metric] for each in result[name]["by_seed"]])
        assert result[name]["seconds"] > 0


def test_the_baselines_are_measured_on_the_same_users(one):
    runs, result = one
    length = auto_config(runs.data).config.model.sequence_length
    queries = runs.data.queries("test", length, 20)
    assert set(result["baselines"]) == set(BASELINES)
    for name, measures in result["baselines"].items():
        ranked = BASELINES[name].fit(runs.data).rank(queries.behaviors, runs.data.item_count)
        lists = []
        for user, items in enumerate(ranked):
            first, end = queries.excluded_indptr[user : user + 2]
            kept = items[~np.isin(items, queries.excluded_items[first:end])][:200]
            lists.append((kept, set(queries.targets_of(user).tolist())))
        expected = plain_measures(lists)
        assert {metric: measures[metric] for metric in expected} == pytest.approx(expected)
    for key, metric in (("best_baseline", "recall_200"), ("best_baseline_20", "recall_20")):
        name = result[key]["name"]
        assert result[key] == {"name": name, **result["baselines"][name]}
        assert result[key][metric] == max(each[metric] for each in result["baselines"].values())


def test_margins_are_differences_of_the_recalls(one):
    _, result = one
    for metric, key in (("recall_20", "best_baseline_20"), ("recall_200", "best_baseline")):
        margins = result["margins"][metric]
        deep = result["deep"][metric]
        assert margins["best_baseline"]["difference"] == pytest.approx(deep - result[key][metric])
        assert margins["two_sided"]["difference"] == pytest.approx(deep - result["two_sided"][metric])


def test_classes_add_up_to_all_targets(one):
    runs, result = one
    queries, found = runs.data.queries("test", 50, 20), result["by_frequency"]
    counts = runs.data.train_counts[queries.target_items]
    bounds = [(0, 0), (1, 9), (10, 49), (50, np.inf)]
    expected = [int(((low <= counts) & (counts <= high)).sum()) for low, high in bounds]
    assert list(found["targets"].values()) == expected
    methods = found["methods"]
    assert set(methods) == {"deep", "two_sided", *BASELINES}
    for place, count in enumerate(expected):
        assert all((shares[place] is None) == (count == 0) for shares in methods.values())
        above = found["deep_above_als"][place]
        if above is not None:
            assert above["difference"] == pytest.approx(methods["deep"][place] - methods["als"][place])


def test_the_walk_is_the_one_that_the_bundle_now_recommends(one, setup):
    runs, result = one
    walk = result["walk"]
    assert walk["wanted"] == 0.9
    assert [each["seed"] for each in walk["by_seed"]] == [1, 2]
    for (_, deep, _), each in zip(forms(runs.data, setup), walk["by_seed"], strict=True):
        notes = Bundle.open(folder_of(runs, deep) / "bundle").notes
        assert notes["tuning"]["coverage"] >= 0.9
        assert each["share_scored"] == pytest.approx(notes["tuning"]["share_scored"], rel=0.2)
        assert each["coverage"] == pytest.approx(notes["tuning"]["coverage"], abs=0.1)
    assert walk["coverage"] == np.mean([each["coverage"] for each in walk["by_seed"]])


def test_each_ablation_is_trained_for_its_share_of_the_steps(one, setup):
    runs, result = one
    auto = auto_config(runs.data).config
    share = 0.5 * STEPS / auto.steps
    assert result["ablations"]["share"] == share
    expected = [form.for_share(share) for form in ablated(auto, runs.data)]
    assert list(result["ablations"]["forms"]) == [form.name for form in expected]
    for form in expected:
        assert Checkpoint.load(folder_of(runs, form) / "checkpoint.pt").step == form.config.steps
        measures = result["ablations"]["forms"][form.name]
        assert {"recall_20", "recall_200", "ndcg_20", "seconds", "new"} == set(measures)
    plain = plain_measures(plain_lists(runs, expected[0]))
    assert result["ablations"]["forms"]["nothing"]["recall_200"] == pytest.approx(plain["recall_200"], abs=0.01)


def test_other_data_sets_stay_in_the_report(measured):
    _, (first, both), _, folder = measured
    assert set(first["worth"]) == {"log"}
    assert set(both["worth"]) == {"log", "second"}
    assert both["worth"]["log"] == first["worth"]["log"]
    assert both["studies"]["worth"]["data"] == ["log", "second"]
    assert both == json.loads((folder / "out" / "experiments.json").read_text())
    for name, entry in both["worth"].items():
        result = both["studies"]["worth"]["result"][name]
        assert entry["machine"]["cores"] >= 1
        assert entry["date"] == result["provenance"]["date"]
        for part in ("deep", "two_sided", "best_baseline"):
            assert {"recall_20", "recall_200", "ndcg_20", "seconds"} <= set(entry[part])
            assert entry[part] == result[part]
        assert entry["best_baseline"]["name"] in BASELINES
        assert {"coverage", "recall_delta", "share_scored"} <= set(entry["walk"])
        assert entry["ablations"] == result["ablations"]
    assert "on log and second." in (folder / "out" / "experiments.md").read_text()


def test_tables_and_sentences_show_the_numbers(measured, tmp_path):
    result = measured[1][1]["studies"]["worth"]["result"]
    check_study(worth.STUDY, result, tmp_path)
    text = worth.STUDY.markdown(result)
    for name, one in result.items():
        section = text.split(f"### {name}\n")[1].split("<sub>")[0]
        ratio = one["deep"]["recall_200"] / one["best_baseline"]["recall_200"]
        margin = one["margins"]["recall_200"]["best_baseline"]
        assert f"recall@200 of the deep model is {one['deep']['recall_200']:.2%}: {ratio:.2f} times the best" in section
        assert f"{100 * margin['difference']:+.2f} ± {100 * margin['standard_error']:.2f})" in section
        assert f"covers {one['walk']['coverage']:.2%} of the exact top 200" in section


def test_a_second_run_trains_and_measures_nothing(measured, setup, tmp_path):
    runs, bodies, lines, _ = measured
    trained = [line for line in lines if "training" in line]
    assert len(trained) == 2 * 2 * 2 + sum(
        len(bodies[1]["worth"][name]["ablations"]["forms"]) for name in bodies[1]["worth"]
    )
    before = len(lines)
    result = worth.run(runs[0], replace(setup, worth=replace(setup.worth, ablations=None)))
    assert lines[before:] == []
    assert result["ablations"] is None
    assert json.loads(json.dumps(result["deep"])) == bodies[0]["worth"]["log"]["deep"]


def test_a_training_that_was_interrupted_begins_anew(second, setup, tmp_path):
    """Its seconds would be too few otherwise."""
    lines = []
    runs = Runs(second, tmp_path, setup, lines.append)
    form = next(form for form in ablated(auto_config(second).config, second) if form.name == "heads").for_share(0.01)
    models = worth.WorthModels(runs, worth.Comparison(second, second.queries("test", 50, 5), (20, 200)))
    folder = folder_of(runs, form)
    worth_models = models.lists(form)
    for path in folder.glob("*.json"):
        path.unlink()
    for path in (tmp_path / "worth" / "measured").iterdir():
        path.unlink()
    again = models.lists(form)
    assert len([line for line in lines if "training" in line]) == 2
    assert again["recall_200"] == worth_models["recall_200"]


def test_the_two_sided_form_sees_the_data_as_often_as_the_whole_scorer(second):
    auto = auto_config(second).config
    simple = two_sided(auto, second).config
    assert (simple.model.kernel.heads, simple.model.kernel.repeats, simple.start) == (0, False, None)
    assert simple.optimization.batch_size == auto.start.batch_size
    assert simple.optimization.learning_rate == auto.start.learning_rate
    assert simple.loss.negatives == auto.start.negatives
    main = RowSampler(second, auto, auto.optimization.batch_size, auto.loss.negatives).steps_per_epoch
    start = RowSampler(second, auto, auto.start.batch_size, auto.start.negatives).steps_per_epoch
    passes = auto.start.steps / start + auto.optimization.steps / main
    assert simple.steps / start == pytest.approx(passes, abs=0.5 / start)


def test_an_ablation_changes_one_thing(second, study_data, tmp_path):
    auto = auto_config(second).config
    plain = auto.model_dump()
    changed = {}
    for form in ablated(auto, second):
        body = form.config.model_dump()
        parts = [("loss", name) for name in ("logq", "own_items", "basket_power")]
        changed[form.name] = {name for part, name in parts if body[part][name] != plain[part][name]}
        kernels = body["model"]["kernel"], plain["model"]["kernel"]
        changed[form.name] |= {name for name in kernels[0] if kernels[0][name] != kernels[1][name]}
        changed[form.name] |= {"id_dropout"} if body["model"]["id_dropout"] != plain["model"]["id_dropout"] else set()
        changed[form.name] |= {"start"} if body["start"] != plain["start"] else set()
        changed[form.name] |= {"attributes"} if form.data is not second else set()
    assert changed == {
        "nothing": set(),
        "attributes": {"attributes"},
        **{name: {name} for name in ("logq", "heads", "own_items", "dropout", "start", "id_dropout")},
    }
    bare = next(form.data for form in ablated(auto, second) if form.name == "attributes")
    assert data_fingerprint(bare) != data_fingerprint(second)
    repeating = auto_config(study_data).config
    names = [form.name for form in ablated(repeating, study_data)]
    assert ("repeats" in names) == repeating.model.kernel.repeats
    assert "own_items" not in names
    log, columns = write_log(tmp_path / "log.csv"), LogColumns("user", "item", "time", basket="category")
    prepare(lambda scratch: read_log([log], columns, scratch), tmp_path / "data", Protocol(validation_users=10))
    baskets = PreparedData.load(tmp_path / "data")
    auto = auto_config(baskets).config
    powers = {form.name: form.config.loss.basket_power for form in ablated(auto, baskets)}
    assert [name for name, power in powers.items() if power != auto.loss.basket_power] == ["basket_power"]
    auto = auto.model_copy(update={"loss": auto.loss.model_copy(update={"popularity_discount": 0.2})})
    assert [form.name for form in ablated(auto, baskets) if not form.config.loss.popularity_discount] == [
        "popularity_discount"
    ]
    auto = auto_config(second).config.with_settings(["model.id_dropout=0.1"])
    kept = {form.name: form.data for form in ablated(auto, second) if not form.config.model.id_dropout}
    assert [*kept] == ["attributes", "ids_kept"]
    assert not kept["attributes"].describes_items
    assert kept["ids_kept"] is second


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_of_the_steps_is_above_0_and_at_most_1(share):
    with pytest.raises(ConfigError, match=f"ablations is {share}; expected a share of the steps above 0 and at most 1"):
        study_settings("quick", ablations=share)
    assert study_settings("quick", ablations=1.0, users=7).worth == WorthSettings(users=7, ablations=1.0)
