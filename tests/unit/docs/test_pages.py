"""What the pages name exists: files, links, commands and their options, make targets, modules, compose profiles."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
import yaml
from support.pages import PAGES, REPORTS, ROOT, commands, prose, tracked_files

from nann.cli.main import app

FILES = tracked_files()
FOLDERS = {str(parent) for file in FILES for parent in Path(file).parents}
TOP = sorted(folder for folder in FOLDERS if "/" not in folder and folder != ".")
COMMAND = re.compile(r"(?:^|[ /])nann ([a-z][a-z-]*)((?: .*)?)$")


def label(page: Path) -> str:
    return str(page.relative_to(ROOT))


def each_page(*, reports: bool = False) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", [*PAGES, *(REPORTS if reports else [])], ids=label)


def slugs(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page(reports=True)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{label(page)} links to {target}"
        assert not anchor or anchor in slugs(file), (
            f"{label(page)} links to {target}, and {file.name} has no such heading"
        )


@each_page()
def test_paths_exist(page):
    """Every word that begins with a folder of the repository, also in blocks and within commands."""
    text = re.sub(r"\]\([^)]*\)|https?://\S+", "", page.read_text(encoding="utf-8"))
    for path in re.findall(rf"(?<![\w./-])(?:{'|'.join(TOP)})/[\w./-]*", text):
        name = path.rstrip("./") if path.endswith(("/", ".")) else path
        assert name in FILES | FOLDERS, f"{label(page)} names {path}"


@each_page()
def test_names_of_source_files_exist(page):
    names = {Path(file).name for file in FILES}
    for name in re.findall(r"`([\w-]+\.(?:py|pbtxt|cpp|md|toml))`", prose(page)):
        assert name in names or name == "config.pbtxt", f"{label(page)} names {name}"


def nann_commands() -> dict[str, set[str]]:
    """Options by command; those of a group are those of its subcommands too."""
    group = typer.main.get_command(app)
    found = {}
    for name, command in group.commands.items():
        parts = [command, *getattr(command, "commands", {}).values()]
        parameters = [parameter for part in parts for parameter in part.params]
        options = {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}
        found[name] = options | {"--help"}
    return found


def named_commands(page: Path) -> Iterator[tuple[str, str]]:
    """(command, what follows it) for each command line of ours."""
    for line in commands(page):
        if found := COMMAND.search(line):
            yield found[1], found[2]


NANN = nann_commands()


@each_page()
def test_commands_and_their_options_exist(page):
    for command, rest in named_commands(page):
        assert command in NANN, f"{label(page)} names `nann {command}`"
        for option in re.findall(r"(?<= )--[a-z][a-z-]*", rest):
            assert option in NANN[command], f"{label(page)} names `nann {command} {option}`"


@each_page()
def test_options_alone_exist_in_some_command(page):
    elsewhere = {"--http-max-input-size", "--force-recreate"}  # Triton's and Docker's
    known = elsewhere.union(*NANN.values())
    for code in re.findall(r"`(--[a-z][a-z-]*)", prose(page)):
        assert code in known, f"{label(page)} names {code}"


def test_the_checks_see_what_they_are_for():
    """A page's commands are found: a pattern that finds nothing would let every test above pass."""
    readme = list(named_commands(ROOT / "README.md"))
    assert {"prepare", "train", "index", "export", "tune", "evaluate", "serve", "experiments"} <= dict(readme).keys()
    assert ("query", " --user 17 --exclude-history --top-k 10") in readme
    assert "--coverage" in NANN["tune"]
    assert "faults" in slugs(ROOT / "docs/operations.md")


@each_page()
def test_make_targets_exist(page):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    for line in commands(page):
        if found := re.match(r"make ([a-z][a-z-]*)\b", line):
            assert found[1] in targets, f"{label(page)} names `{line}`"


@each_page()
def test_modules_exist(page):
    for module in re.findall(r"python -m ([\w.]+)", page.read_text(encoding="utf-8")):
        path = module.replace(".", "/").removeprefix("nann/")
        if module.split(".")[0] in ("nann", "examples"):
            assert {f"{path}.py", f"nann/{path}.py", f"{path}/__main__.py"} & FILES, f"{label(page)} names {module}"


@each_page()
def test_profiles_of_docker_compose_exist(page):
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    profiles = {profile for service in services.values() for profile in service.get("profiles", [])}
    for line in commands(page):
        for profile in re.findall(r"docker compose --profile (\S+)", line):
            assert profile in profiles, f"{label(page)} names `{line}`"


def test_messages_name_no_page_and_no_make_target():
    """The wheel has neither: a message must say itself what to do."""
    found = []
    for file in sorted(FILES):
        if not re.match(r"(nann|cli|clients|python_backend|training)/.*\.py$", file):
            continue
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
            if id(node) not in documentation and re.search(r"docs/\w+\.md|`make [\w-]+`", text):
                found.append(f"{file}:{node.lineno}: {text}")
    assert not found


@each_page()
def test_extras_exist(page):
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = set(re.findall(r"^([a-z-]+) = \[", pyproject.split("[project.optional-dependencies]")[1], re.MULTILINE))
    for line in commands(page):
        for names in re.findall(r"pip install (?:--editable )?[\"'](?:\.|nann)\[([a-z,-]+)\]", line):
            assert set(names.split(",")) <= extras, f"{label(page)} names `{line}`"


@each_page()
def test_pytest_command_lines_select_tests(page):
    for words in map(str.split, commands(page)):
        if "pytest" in words and any(word.startswith("tests/") for word in words):
            selection = words[words.index("pytest") + 1 :]
            pytest_here = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
            ended = subprocess.run([*pytest_here, *selection], cwd=ROOT, capture_output=True, text=True)
            assert ended.returncode == 0, f"{' '.join(words)}: {ended.stdout[-300:]}"
