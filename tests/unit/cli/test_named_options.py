"""A message names only options that the command has whose user reads it, or names the other command with them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from support.cli_commands import refused
from support.tiny_bundle import make_bundle

from nann.cli.main import app

ROOT = Path(__file__).parents[3]
PREPARE = ("prepare log", "prepare userbehavior", "prepare complete-journey", "prepare synthetic")
READERS = ("prepare log", "events")
"""Commands that read any log."""
WHOSE = {
    "cli/prepared_summary.py": ("prepare log",),
    "explore": ("explore",),
    "training/batch": ("batch",),
    "training/before_training.py": ("train",),
    "training/data/canonical_rows.py": READERS,
    "training/data/custom_log.py": READERS,
    "training/data/id_kinds.py": READERS,
    "training/data/item_table.py": ("prepare log",),
    "training/data/numbering.py": PREPARE,
    "training/data/output_folder.py": PREPARE,
    "training/data/prepare.py": PREPARE,
    "training/data/profiles.py": ("prepare log",),
    "training/data/protocol.py": PREPARE,
    "training/data/rows.py": READERS,
    "training/data/sources.py": READERS,
    "training/data/splits.py": PREPARE,
    "training/data/tables.py": READERS,
    "training/data/times.py": READERS,
    "training/export/engine.py": ("build-engine",),
    "training/export/half_precision.py": ("export",),
    "training/reports/report.py": ("experiments", "bench"),
    "training/search/filter_mix.py": ("tune",),
    "training/search/tune.py": ("tune",),
    "training/train.py": ("train",),
    "training/warm_start.py": ("train",),
    "python_backend/repository/configs.py": ("serve", "deploy", "refresh"),
    "python_backend/server/ports.py": ("serve",),
    "python_backend/server/served_form.py": ("serve",),
    "python_backend/server/tls.py": ("serve",),
}
"""Which commands the options belong to that a module's messages name alone; a module in `cli/` names its own."""
ELSEWHERE = {"--enable-shared"}
"""Of Python's build."""
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]")


def commands() -> dict[str, tuple[str, set[str]]]:
    """Module and options by command; a subcommand is "items add"."""
    found = {}
    for name, command in typer.main.get_command(app).commands.items():
        for sub, each in getattr(command, "commands", {"": command}).items():
            options = {option for parameter in each.params for option in (*parameter.opts, *parameter.secondary_opts)}
            found[f"{name} {sub}".strip()] = each.callback.__module__, {*options, "--help"}
    return found


COMMANDS = commands()


def prose(path: Path) -> Iterator[str]:
    """The texts of a module with blanks in them: messages, and no documentation, `--help` or arguments of programs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("typer.Option", "panel_option"):
            skipped |= {id(part) for part in ast.walk(node)}
    for node in ast.walk(tree):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        texts = [part.value if isinstance(part, ast.Constant) else "{}" for part in parts]
        if (
            id(node) not in skipped
            and isinstance(node, ast.JoinedStr | ast.Constant)
            and " " in "".join(map(str, texts))
        ):
            yield "".join(map(str, texts))


def owners(path: Path) -> tuple[str, ...]:
    name = path.relative_to(ROOT).as_posix()
    module = f"nann.{name.removesuffix('.py').replace('/', '.')}"
    own = tuple(command for command, (where, _) in COMMANDS.items() if where == module)
    return own or next((whose for prefix, whose in WHOSE.items() if name.startswith(prefix)), ())


def modules() -> list[Path]:
    folders = ("nann", "training", "python_backend", "clients", "explore", "cli")
    found = {path.resolve() for folder in folders for path in (ROOT / folder).rglob("*.py")}
    return sorted(path for path in found if _OPTION.search(path.read_text(encoding="utf-8")))


def wrong_options(text: str, whose: tuple[str, ...]) -> list[str]:
    """The options that a message names and that are nobody's."""
    text = f"`{text}`" if text.startswith("nann ") else text
    wrong = []
    for line in re.findall(r"`nann ([^`]*)`", text):
        words = line.split()
        has = next((COMMANDS[name][1] for name in (" ".join(words[:2]), words[0]) if name in COMMANDS), set())
        wrong += [f"nann {line}" for option in _OPTION.findall(line) if option not in has]
    known = [COMMANDS[command][1] for command in whose] or [set()]
    in_one_file = len({COMMANDS[command][0] for command in whose}) == 1  # as the subcommands of `nann items` are
    has = (set.union if in_one_file else set.intersection)(*known) | ELSEWHERE
    return wrong + [option for option in _OPTION.findall(re.sub(r"`\w[^`]*`", "", text)) if option not in has]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_options_in_messages_exist_where_they_are_read(path):
    found = {text: wrong for text in prose(path) if (wrong := wrong_options(text, owners(path)))}
    assert not found, "name the command too (`nann train --resume`), or add the module to WHOSE"


def test_the_check_sees_what_it_is_for():
    assert wrong_options("x; give --tables", ("events",)) == ["--tables"]
    assert wrong_options("x; give --encoding", ("batch",)) == ["--encoding"]
    assert wrong_options("x; see `nann batch --encoding`", READERS) == ["nann batch --encoding"]
    assert wrong_options("x; give --encoding, or see `nann train --resume`", READERS) == []
    assert any("--max-bad-share" in text for text in prose(ROOT / "training/data/rows.py"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle") / "bundle").path


BROKEN = {
    "latin-1": "user,item,time,items\né,1,1,1\né,1,1,2\n".encode("latin-1"),
    "UTF-16": "user,item,time,items\n1,1,1,1\n".encode("utf-16"),
    "other columns": b"uid,sku,at\n1,1,1\n",
    "too many fields": b"user,item,time,items\n1,1,1,1,1,1\n",
    "an open quote": b'user,item,time,items\n1,"1,1,1\n',
    "no time": b"user,item,time,items\n1,1,noon,x\n",
    "no item": b"user,item,time,items\n1,,1,\n1,,2,\n",
    "nothing": b"",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("command", ["prepare log", "prepare userbehavior", "events", "batch"])
def test_a_broken_file_is_refused_with_options_that_there_are(tmp_path, bundle, command, content):
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    given = {
        "events": (path, "--to", tmp_path / "out"),
        "batch": ("--histories", path, "--bundle", bundle, "--out", tmp_path / "out"),
    }.get(command, (path, "--out", tmp_path / "out"))
    message = refused(*command.split(), *given)
    assert not wrong_options(message.replace(str(tmp_path), ""), (command,)), message
