"""Prints what extras of pyproject.toml need, one requirement a line: `requirements.py serve,trace`.

The image's dependencies come before the code that way, so that a change of code leaves their layer as it is.
"""

import re
import sys
from pathlib import Path

import tomllib

project = tomllib.loads((Path(__file__).parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(extra: str) -> list[str]:
    """Those of one extra; an extra that names others of the project has theirs as well."""
    found = []
    for line in project["optional-dependencies"][extra]:
        own = re.fullmatch(r"nann\[(.*)\]", line)
        found += [one for name in own[1].split(",") for one in requirements(name)] if own else [line]
    return found


lines = [*project["dependencies"], *(line for extra in sys.argv[1].split(",") for line in requirements(extra))]
print("\n".join(dict.fromkeys(lines)))
