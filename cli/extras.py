"""The answer to a missing package: one line that names the extra to install."""

from __future__ import annotations

import re
from collections import defaultdict
from importlib.metadata import requires

COMMANDS = {
    **dict.fromkeys(("prepare", "train", "index", "export", "evaluate", "tune"), ("train",)),
    **dict.fromkeys(("plan-shapes", "experiments", "baselines", "refresh", "events"), ("train",)),
    "build-engine": (),  # TensorRT comes with the container
    "filters": (),
    "items": (),
    **dict.fromkeys(("deploy", "rollback"), ("deploy",)),
    "serve": ("serve",),
    "query": ("client",),
    "explore": ("explore",),
    "batch": ("train", "client"),
    "demo": ("train", "serve", "client"),
    "bench": ("train", "serve", "perf"),
}
"""The extras that each command needs."""
DISTRIBUTIONS = {
    "google": "protobuf",
    "opentelemetry": "opentelemetry-sdk",
    "pytriton": "nvidia-pytriton",
    "qdrant_edge": "qdrant-edge-py",
    "yaml": "pyyaml",
}
"""Module -> its package, where their names differ."""
_REQUIREMENT = re.compile(r"""([\w.-]+)(?:\[([\w,-]+)\])?.*\bextra\s*==\s*["']([\w-]+)["']""")


def packages_by_extra() -> dict[str, set[str]]:
    """Extra -> its packages, as the installed `nann` declares them; without the extras for work on the repository."""
    packages: dict[str, set[str]] = defaultdict(set)
    for requirement in requires("nann") or ():
        if (match := _REQUIREMENT.match(requirement)) is None:
            continue
        name, extras, extra = match.groups()
        if name == "nann":
            packages[extra].update(*(packages[part] for part in extras.split(",")))
        else:
            packages[extra].add(name.lower())
    return {extra: brought for extra, brought in packages.items() if extra not in ("dev", "fuzz")}


def advice(error: ModuleNotFoundError, command: str) -> str | None:
    """What is missing and how to install it; None if no extra brings the module.

    Args:
        error: from the import.
        command: the command's name, as in `nann train`.
    """
    module = (error.name or "").partition(".")[0]
    package = DISTRIBUTIONS.get(module, module).replace("_", "-")
    packages = packages_by_extra()
    bringing = [extra for extra in packages if package in packages[extra]]
    if not bringing:
        return None
    extras = COMMANDS.get(command, ())
    if not set(extras) & set(bringing):
        # For instance `nann serve --target torch`: prefer an extra that includes what the command always needs.
        usual = set().union(*(packages[extra] for extra in extras))
        extras = (min(bringing, key=lambda extra: not usual <= packages[extra]),)
    return f'nann: {command} needs {package}; install it with: pip install "nann[{",".join(extras)}]"'
