"""The public Python API (docs/python_api.md): a name that leaves or enters it changes this file."""

import subprocess
import sys

import pytest

import nann
import nann.filters
import nann.python_backend
import nann.training

CORE = ["Bundle", "Scorer", "SearchIndex", "SearchParams", "SearchResult", "SeedParams", "UserBatch", "beam_search",
        "coverage", "exact_search", "recall", "recall_delta", "share_scored"]  # fmt: skip
TRAINING = ["GatheringScorer", "IndexConfig", "OnnxScorer", "OnnxUserEncoder", "SearchConfig", "TorchScorer",
            "create_bundle", "encode_users_torch", "export_half", "export_to_bundle"]  # fmt: skip
FILTERS = ["Catalogue", "NamedFilters", "Predicate", "ServedFilters", "parse", "where"]
SERVER = ["ServerOptions", "TritonServer", "free_ports", "install_bundle"]


@pytest.mark.parametrize(
    ("package", "names"),
    [(nann, CORE), (nann.filters, FILTERS), (nann.training, TRAINING), (nann.python_backend, SERVER)],
)
def test_the_public_api_is_pinned(package, names):
    assert package.__all__ == names
    assert all(callable(getattr(package, name)) for name in names)


@pytest.mark.parametrize("package", [nann.training, nann.python_backend])
def test_another_name_is_refused_as_by_any_module(package):
    with pytest.raises(AttributeError, match=rf"module '{package.__name__}' has no attribute 'no_such_name'"):
        package.no_such_name  # noqa: B018


def test_the_core_needs_numpy_alone_and_the_packages_load_their_heavy_parts_on_first_use():
    heavy = "{'torch', 'onnx', 'onnxruntime', 'hnswlib', 'polars', 'pydantic', 'tritonclient', 'pytriton'}"
    code = f"import sys, nann, nann.training, nann.python_backend; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], check=True, timeout=120, capture_output=True, text=True)
    assert result.stdout.strip() == "[]"
