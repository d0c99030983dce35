import ast
import gc
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from nann.array_files import load_array, map_array, read_array, read_arrays

ROOT = Path(__file__).resolve().parents[3]
SERVED = ("nann", "python_backend", "explore", "clients")
READERS = {"np.load", "np.lib.format.read_array", "np.lib.format.open_memmap"}
COLLECTIONS = 20
"""Allocations until the garbage is collected: few enough to do it while a header is parsed."""


@pytest.fixture
def switching_threads():
    """Other threads run in the middle of each collection of garbage, so in the middle of NumPy's parsing."""

    def switch(phase, info):
        time.sleep(0.0005)

    before = gc.get_threshold()
    gc.callbacks.append(switch)
    gc.set_threshold(COLLECTIONS)
    yield
    gc.set_threshold(*before)
    gc.callbacks.remove(switch)


def in_threads(read):
    """What four threads that read at the same time meet in a second and a half."""
    end, errors, read_count = time.monotonic() + 1.5, [], [0]

    def work():
        while time.monotonic() < end:
            try:
                read()
            except Exception as error:
                errors.append(error)
            read_count[0] += 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return read_count[0], errors


@pytest.fixture
def files(tmp_path):
    rows = np.arange(60, dtype=np.float32).reshape(30, 2)
    np.save(tmp_path / "rows.npy", rows)
    np.savez(tmp_path / "rows.npz", rows=rows, more=rows + 1)
    return tmp_path


def read_stream(path):
    with path.open("rb") as stream:
        return read_array(stream)


READ = {
    "load_array": lambda folder: load_array(folder / "rows.npy", np.float32, 2),
    "map_array": lambda folder: map_array(folder / "rows.npy"),
    "read_array": lambda folder: read_stream(folder / "rows.npy"),
    "read_arrays": lambda folder: read_arrays(folder / "rows.npz")["rows"],
}


@pytest.mark.parametrize("name", READ)
def test_threads_may_read_at_the_same_time(files, switching_threads, name):
    count, errors = in_threads(lambda: READ[name](files))
    assert count > 10
    assert errors == []
    assert READ[name](files).tolist() == np.arange(60).reshape(30, 2).tolist()


def test_no_other_module_of_a_server_reads_arrays():
    found = [
        (path.name, [ast.unparse(argument) for argument in node.args[1:2]])
        for path in (path for package in SERVED for path in sorted((ROOT / package).rglob("*.py")))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in READERS
    ]
    assert sorted(name for name, mode in found if mode != ["'w+'"]) == ["array_files.py"] * 4
