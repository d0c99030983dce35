"""The wheel, built once, and one clean environment for each extra, made when a test first asks for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.environments import ROOT, Environment, run


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source distribution, which holds all that it takes."""
    folder = tmp_path_factory.mktemp("dist")
    probe = run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "scikit-build-core", cwd=folder)
    if probe.returncode:
        pytest.skip("no package index is reachable, and the extras are there to be installed")  # in CI that fails
    built = run(sys.executable, "-m", "build", "--outdir", folder / "made", ROOT, cwd=folder)
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    (path,) = (folder / "made").glob("*.whl")
    return path


def _environment(extra: str):
    @pytest.fixture(scope="session")
    def made(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
        return Environment.make(tmp_path_factory.mktemp(extra or "bare"), wheel).install(extra)

    return made


bare, train, serve, client = map(_environment, ("", "train", "serve", "client"))
deploy, trace, feast, explore = map(_environment, ("deploy", "trace", "feast", "explore"))


def _grown(base: str, extra: str):
    @pytest.fixture(scope="session")
    def made(request: pytest.FixtureRequest) -> Environment:
        return request.getfixturevalue(base).install(extra)

    return made


# These extras contain the other one: installed after it, what is there is what they alone would bring.
serve_torch, perf = _grown("serve", "serve-torch"), _grown("client", "perf")
