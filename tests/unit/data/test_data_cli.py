from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from nann.cli.prepare import app
from nann.cli.protocol_options import ProtocolKind
from nann.errors import ConfigError, DataError
from nann.training.data.protocol import DEFAULTS


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_log_with_all_options(write, tmp_path):
    lines = "".join(f"u{user}\t{item}\t{item}\t{item}\n" for user in range(9) for item in (1, 2, 3))
    log = write("events.tsv", "uid\tsku\tat\tvisit\n" + lines)
    users = write("users.tsv", "id\ttown\tage\nu1\tOslo\t9\n")
    out = tmp_path / "shop"
    arguments = [
        "log",
        log,
        "--user",
        "uid",
        "--item",
        "sku",
        "--time",
        "at",
        "--basket",
        "visit",
        "--separator",
        "tab",
    ]
    arguments += ["--profile", users, "--profile-user", "id", "--profile-fields", "age", "--name", "shop", "--json"]
    arguments += ["--out", out, "--min-behaviors", 3, "--validation-users", 2, "--test-users", 3, "--seed", 5]
    result = run(*arguments)
    assert result.exit_code == 0
    body = json.loads(result.stdout.strip().splitlines()[-1])
    assert (body["name"], body["path"]) == ("shop", str(out))
    counts = [body["counts"][f"{split}_users"] for split in ("train", "validation", "test")]
    assert counts == [4, 2, 3]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["profile_fields"] == [{"name": "age", "kind": "category", "values": ["9"]}]
    assert manifest["profile_unknown_users"] == [8]
    assert manifest["has_groups"]


def test_protocol_attributes_and_repeats(write, tmp_path, capsys):
    rows = "".join(
        f"{user},{item},{time}\n" for user in range(9) for time, item in enumerate([1, 1, 2, 3, 4 + user % 3])
    )
    log = write("events.csv", "user,item,time\n" + rows)
    items = write("items.csv", "sku,brand,price,title\n1,a,1,One\n2,a,2,\n3,b,3,\n4,b,4,\n77,b,5,\n")
    out = tmp_path / "out"
    arguments = ["log", log, "--out", out, "--json", "--items", items, "--items-id", "sku"]
    arguments += ["--items-numbers", "price", "--items-fields", "brand", "--items-name", "title", "--merge-repeats"]
    result = run(*arguments, "--protocol", "leave-one-out", "--include-history", "--test-users", 4)
    body = json.loads(result.stdout.strip().splitlines()[-1])
    assert body["counts"]["test_users"] == 4
    assert body["counts"]["merged_repeats"] > 0
    expected = {"kind": "leave-one-out", "min_behaviors": 3, "exclude_history": False, "merge_repeats": True}
    assert expected.items() <= body["protocol"].items()
    shown = capsys.readouterr().err + result.stderr
    for words in (
        "leave-one-out, history included",
        "repeats merged",
        "rows of --items not in the log",
        "brand",
        "price",
    ):
        assert words in shown
    fields = json.loads((tmp_path / "out/manifest.json").read_text())["item_attributes"]
    assert [(field["name"], field["kind"]) for field in fields] == [("brand", "category"), ("price", "number")]
    assert run("log", log, "--out", tmp_path / "out", "--protocol", "leave-one-out").exit_code == 0
    assert json.loads((tmp_path / "out/manifest.json").read_text())["protocol"]["exclude_history"] is True
    split = ["--protocol", "time-split", "--split-time", "2", "--min-behaviors", 5]
    assert run("log", log, "--out", tmp_path / "out", *split).exit_code == 0
    protocol = json.loads((tmp_path / "out/manifest.json").read_text())["protocol"]
    assert (protocol["split_time"], protocol["min_behaviors"], protocol["exclude_history"]) == ("2", 5, False)
    with pytest.raises(ConfigError, match="an --items- option is given without a table of items; give the table with"):
        run("log", log, "--items-numbers", "price")
    with pytest.raises(ConfigError, match="a --profile- option is given without a table of users; give the table with"):
        run("log", log, "--profile-numbers", "price")
    leave_one_out = ["--protocol", "leave-one-out", "--include-history", "--json"]
    body = json.loads(
        run("log", log, "--out", out, *leave_one_out, "--test-users", "all").stdout.strip().splitlines()[-1]
    )
    assert body["counts"]["test_users"] == 9
    with pytest.raises(ConfigError, match="test_users is most; expected at least 0, or all"):
        run("log", log, "--out", out, *leave_one_out, "--test-users", "most")
    with pytest.raises(ConfigError, match="test_users is -1; expected at least 0, or all"):
        run("log", log, "--out", out, *leave_one_out, "--test-users", -1)


def test_userbehavior_goes_to_the_default_folder(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{user},{item},1,pv,{item}\n" for user in range(1, 6) for item in range(1, 12))
    log = write("u.csv", rows + "1,2\n")
    arguments = ["userbehavior", log, "--validation-users", 1, "--test-users", 1, "--max-bad-share", 0.1]
    assert run(*arguments).exit_code == 0
    manifest = json.loads((tmp_path / "build/data/userbehavior/manifest.json").read_text())
    assert manifest["counts"]["train_users"] == 3
    assert manifest["rows"]["bad_examples"] == ["u.csv:56 (wrong number of columns)"]
    assert run(*arguments, "--behavior-types", "pv,buy").exit_code == 0
    with pytest.raises(DataError, match="the log is empty"):
        run(*arguments, "--behavior-types", "buy")


def test_a_share_outside_0_to_1_is_refused(write):
    assert run("userbehavior", write("u.csv", "1,2,3,pv,4\n"), "--max-bad-share", 2).exit_code == 2


def test_the_protocols_are_those_of_the_data():
    assert [kind.value for kind in ProtocolKind] == list(DEFAULTS)


def test_help_teaches_with_an_example():
    for command in ("userbehavior", "complete-journey", "log"):
        assert f"nann prepare {command}" in run(command, "--help").stdout
