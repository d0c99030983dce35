"""Coverage-guided fuzzing with atheris: `make fuzz`, or `coverage_guided.py TARGET -max_total_time=60`.

The targets are those of `test_fuzz.py`; here code coverage decides which bytes to try next. Further options are
libFuzzer's. Inputs that reached new code are kept in build/fuzz/TARGET, where the next run starts; an input that breaks
a target is written to build/fuzz and printed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import atheris
import targets

CORPUS = Path("build/fuzz")


def write_first_inputs(name: str, folder: Path) -> None:
    """Writes valid inputs to start from."""
    whole = targets.whole()
    inputs = {
        "parameters": [
            b'{"top_k": 3, "ef": "10,20", "rounds": "1,2"}',
            b'{"entry": "seeds", "seeds": 4, "seed_ef": 9, "ef": 20}',
        ],
        "filter_text": [text.encode() for text in targets.FILTERS.values()],
        "manifest": [json.dumps(whole.manifest).encode()],
        "array": [(whole.path / file).read_bytes() for file in ("layer1.indptr.npy", "light_vectors.npy")],
    }.get(name, [bytes(range(64))])
    for number, content in enumerate(inputs):
        (folder / f"first-{number}").write_bytes(content)


def main() -> None:
    """Fuzzes the target that the command line names."""
    name = sys.argv.pop(1)
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    write_first_inputs(name, folder)
    options = ["-timeout=20", "-rss_limit_mb=4096", "-print_final_stats=1", f"-artifact_prefix={CORPUS}/{name}-"]
    atheris.instrument_all()  # its import hook does not see packages of an editable installation
    atheris.Setup([sys.argv[0], *options, *sys.argv[1:], str(folder)], targets.TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
