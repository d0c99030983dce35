"""No file that is read can run code: no pickle, and no loader that falls back to it. Ruff checks S301 to S307 too."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("nann", "training", "python_backend", "clients", "explore", "perf", "cli", "model_repository", "examples")
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
SAFE_BY = {
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
    "torch.load": ("weights_only", True),
}
FORBIDDEN_CALLS = {"torch.jit.load", "torch.hub.load", "pd.read_pickle", "yaml.load", "eval", "exec"}


def unsafe(source: str) -> Iterator[str]:
    """The imports and calls of a module that could run code from a file."""
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        yield from (f"imports {name}" for name in names if name.split(".")[0] in FORBIDDEN_MODULES)
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            keywords = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
            if called in FORBIDDEN_CALLS:
                yield f"calls {called}"
            if called in SAFE_BY and keywords.get(SAFE_BY[called][0]) is not SAFE_BY[called][1]:
                yield f"calls {called} without {SAFE_BY[called][0]}={SAFE_BY[called][1]}"


def test_no_module_of_ours_reads_code():
    modules = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert len(modules) > 100
    found = [f"{path.relative_to(ROOT)} {what}" for path in modules for what in unsafe(path.read_text())]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "eval(text)",
    ],
)
def test_the_check_would_notice(source):
    assert len(list(unsafe(source))) == 1
